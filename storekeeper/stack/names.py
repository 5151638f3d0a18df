"""What may be the name of a stack or a store: it becomes a part of paths, of arguments and of rendered files."""

from __future__ import annotations

import re

NAME_PATTERN = r"[a-z][a-z0-9_]{0,39}"
_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None

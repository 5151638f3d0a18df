"""Listings: one JSON object a line, in ASCII."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Generator[dict[str, Any], None, None]:
    """The objects of a listing. Raises ValueError for a line that is no JSON object."""
    with open(path, encoding="ascii") as file:
        for line in file:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError(f"{path.name}: a line is no object")  # noqa: TRY004 - what is wrong is the contents
            yield entry


def to_line(entry: Mapping[str, Any]) -> bytes:
    """One object as a line of a listing: ASCII, sorted keys; bytes of names that are not UTF-8 stand as PEP 383 escapes."""
    return (json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")

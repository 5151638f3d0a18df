"""How a script on a host answers: line by line, and last that it came to its end, so that no answer is taken for whole that was cut off."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from pyinfra.api.exceptions import FactProcessError

_END = "storekeeper-end"


def typed(script: str) -> str:
    """The command that carries a script out. A script that must not be believed any further exits before its end."""
    return "sh -c " + shlex.quote(f"{script}\necho {_END}\n")


def whole(output: Sequence[str]) -> list[str]:
    """The lines of an answer. Raises FactProcessError for one that was cut off."""
    if not output or output[-1] != _END:
        raise FactProcessError("the answer of the host was cut off")
    return list(output[:-1])


def by_word(lines: Iterable[str]) -> dict[str, list[str]]:
    """What stands behind the first word of each line, by that word."""
    said: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        said.setdefault(word, []).append(rest)
    return said

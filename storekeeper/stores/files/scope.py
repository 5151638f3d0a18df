"""Which paths below a root belong to a files store. Pure: names only, no file is looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache

from storekeeper.host.tree import name_of, parent_of

# What a restore puts beside live data; never part of a set, at any depth.
_OURS = re.compile(r"\.storekeeper-[0-9a-f]{8}(-.*)?", re.DOTALL)


def order_of(path: str) -> bytes:
    """Listings are sorted by this: the path's bytes, whatever they encode."""
    return os.fsencode(path)


class Scope:
    """The covered paths: all below the root, or only the entries of `include` and what is below them; less what `exclude` matches.

    A pattern of `exclude` is compared with the whole path below the root. `*` and `?` stand for anything but `/`, `[...]` for one
    of some characters, `**` for anything at all, and `**/` also for nothing. What is below an excluded directory is excluded too.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self.include = tuple(sorted(include, key=order_of))
        self.exclude = tuple(exclude)
        self._patterns = tuple(_compiled(pattern) for pattern in exclude)
        self._steps: dict[str, set[str]] = {}
        for entry in self.include:
            while entry:
                self._steps.setdefault(parent_of(entry), set()).add(name_of(entry))
                entry = parent_of(entry)  # noqa: PLW2901 - up to the root

    @property
    def parents(self) -> tuple[str, ...]:
        """The directories that hold covered entries, the root included where it does, in order."""
        return tuple(sorted({parent_of(entry) for entry in self.include} or {""}, key=order_of))

    def above(self) -> tuple[str, ...]:
        """All directories above covered entries, the root first: they are not covered, but a restore may have to make them."""
        return tuple(sorted(self._steps or {""}, key=order_of))

    def covers(self, path: str) -> bool:
        """Whether a path is an entry of `include` or below one, whatever `exclude` says."""
        return not self.include or any(path == entry or path.startswith(entry + "/") for entry in self.include)

    def steps(self, directory: str) -> tuple[str, ...] | None:
        """The only names of a directory that lead to covered entries; None where all of its names are covered."""
        steps = self._steps.get(directory)
        return tuple(steps) if steps is not None else None

    def leaves_out(self, path: str) -> bool:
        """Whether an entry is excluded, of which no parent is."""
        if _OURS.fullmatch(name_of(path)) is not None:
            return True
        return bool(self._patterns) and any(pattern.fullmatch(path) for pattern in self._patterns)


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(_pieces(pattern)), re.DOTALL)


def _pieces(pattern: str) -> list[str]:
    words = re.findall(r"\*\*/|\*\*|\[[!^]?\]?[^\]]*\]|.", pattern, re.DOTALL)
    return [_piece(word) for word in words]


def _piece(word: str) -> str:
    fixed = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if word in fixed:
        return fixed[word]
    if len(word) > 2 and word.startswith("["):
        inside = word[1:-1]
        negated = inside[0] in "!^" and len(inside) > 1
        signs = (inside[1:] if negated else inside).replace("\\", "\\\\").replace("]", "\\]").replace("[", "\\[").replace("^", "\\^")
        return f"(?!/)[{'^' if negated else ''}{signs}]"
    return re.escape(word)

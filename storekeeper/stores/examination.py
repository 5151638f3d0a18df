"""What a look inside a store finds: its figures, what is wrong with it, who uses it, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from storekeeper.outcomes import Unknown

KINDS = ("damage", "dangling", "index", "risk", "session", "vectors", "unreadable")
MOST = 1000  # flaws of one store that are told one by one

Figure = int | str | bool | None


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong; `object` is the table, index, collection or path that it is about."""

    kind: str
    message: str
    object: str | None = None
    next: str | None = None


@dataclass(frozen=True)
class InUse:
    """A process that has a store's file open, and the lock that it holds on it: `write`, `read`, or None. `waits` for one it has not."""

    pid: int
    program: str
    lock: str | None = None
    waits: bool = False

    def __str__(self) -> str:
        held = f" holds the {self.lock} lock" if self.lock else " has it open"
        return f"{self.program} (pid {self.pid}){held}{' and waits for another' if self.waits else ''}"


@dataclass
class Examination:
    """`users` is None where that is not asked of this kind of store, or could not be seen; `unknown` says what could not be found out."""

    figures: dict[str, Figure] = field(default_factory=dict)
    counts: Mapping[str, int] | None = None
    flaws: list[Flaw] = field(default_factory=list)
    left_out: int = 0
    users: Sequence[InUse] | None = None
    unknown: list[Unknown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, message: str, object: str | None = None, next: str | None = None) -> None:
        """One more flaw; beyond the number that anybody reads they are counted."""
        if len(self.flaws) < MOST:
            self.flaws.append(Flaw(kind, message, object, next))
        else:
            self.left_out += 1

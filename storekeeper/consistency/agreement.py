"""What a set's stores said of each other at its moment, as its manifest has it. Light to load: every listing of sets reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storekeeper.consistency.findings import Class

HOLES = (Class.MISSING, Class.PARTIAL)
EXTRAS = (Class.ORPHAN, Class.LEFTOVER, Class.FOREIGN)


@dataclass(frozen=True)
class Agreement:
    """What a set's stores said of each other at its moment, under the rule as it was declared then (`rule`, as in a stack file).

    `documents`, `in_flight` and `counts` are None where a place could not be read (`unread`): nothing is known then. `ends` are, by place,
    texts that no id can hold there.
    """

    rule: Mapping[str, Any]
    documents: int | None
    in_flight: int | None
    counts: Mapping[str, int] | None
    unread: Sequence[str] = ()
    ends: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def holes(self) -> int | None:
        """Of what the authority has, how much a replica had not, or not all of."""
        return None if self.counts is None else sum(self.counts.get(str(each), 0) for each in HOLES)

    @property
    def extras(self) -> int | None:
        """How much a replica had that the authority had not, or not so."""
        return None if self.counts is None else sum(self.counts.get(str(each), 0) for each in EXTRAS)

    @property
    def figures(self) -> dict[str, Any]:
        """What documents say of it."""
        return {
            "documents": self.documents,
            "in_flight": self.in_flight,
            "counts": None if self.counts is None else dict(self.counts),
            "holes": self.holes,
            "extras": self.extras,
            "unread": list(self.unread),
        }

    def to_json(self) -> dict[str, Any]:
        return {**self.figures, "rule": dict(self.rule), "ends": {place: list(ends) for place, ends in self.ends.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Agreement:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` did not write."""
        counts = document["counts"]
        return cls(
            dict(document["rule"]),
            number_or_none(document["documents"]),
            number_or_none(document["in_flight"]),
            None if counts is None else {str(each): int(count) for each, count in counts.items()},
            tuple(map(str, document["unread"])),
            {str(place): tuple(map(str, ends)) for place, ends in document["ends"].items()},
        )


def number_or_none(value: Any) -> int | None:
    """Raises TypeError for anything else."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a number, found {value!r}")
    return value

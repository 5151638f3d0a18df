"""Which documents a store does not hold any more, although a set of it does: told by the ids that the set recorded of every rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.consistency.places import places_of
from storekeeper.consistency.recording import Recorded, declared_in, ids_of
from storekeeper.outcomes import Problem, Severity, StorekeeperError, Unknown
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Identity, Remarks, Sorted, key_of
from storekeeper.stores.protocol import Copy

_SHOWN = 10


@dataclass(frozen=True)
class Lost:
    """Documents of one place of a rule. `count` is None where it cannot be told, for `why`."""

    rule: str
    place: str
    set: str
    count: int | None
    samples: tuple[str, ...] = ()
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "place": self.place, "set": self.set, "count": self.count, "samples": list(self.samples)}

    def problem(self, command: str) -> Problem | None:
        """None where none is lost."""
        if self.count is None:
            said = f"{self.rule}: which documents of {self.place} are lost cannot be told: {self.why}"
            return Problem(said, Severity.WARNING)
        if not self.count:
            return None
        such = ", ".join(repr(each[:40]) for each in self.samples[:3])
        held = f"{self.count:,} documents that set {self.set} holds in {self.place}"
        said = f"{self.rule}: {held} are not among what was rescued, such as {such}"
        return Problem(said, Severity.WARNING, next=command)


def lost_documents(rules: dict[str, Rule], entry: SetEntry, store: str, copy: Copy, work: Path) -> Iterator[Lost]:
    """One for each place of a rule in this store; `copy` is what was rescued."""
    for name, rule in rules.items():
        for number, place in enumerate(places_of(rule)):
            if place.store != store:
                continue
            try:
                _refuse_unrecorded(entry, name, rule, place.name)
                with Sorted(copy.identities(place.source, Remarks()), work, f"{name}.{number}") as now:
                    count, samples = _only_in_first(Recorded(entry.path / store / ids_of(name, number)), now)
                yield Lost(name, place.name, entry.id, count, samples)
            except StorekeeperError as error:
                yield Lost(name, place.name, entry.id, None, why=error.message)


def _refuse_unrecorded(entry: SetEntry, name: str, rule: Rule, place: str) -> None:
    agreement = entry.manifest.agreements.get(name) if entry.manifest else None
    if agreement is None or place in agreement.unread or declared_in(agreement).digest != rule.digest:
        raise Unknown(f"set {entry.id} did not record the ids of this rule")


def _only_in_first(first: Iterable[Identity], second: Iterable[Identity]) -> tuple[int, tuple[str, ...]]:
    """How many documents stand only in the first of two sorted streams, and the first of them."""
    others = iter(second)
    other, last = next(others, None), None
    samples: list[str] = []
    count = 0
    for each in first:
        while other is not None and key_of(other.id) < key_of(each.id):
            other = next(others, None)
        if each.id != last and (other is None or other.id != each.id):
            count += 1
            samples += [each.id] if len(samples) < _SHOWN else []
        last = each.id
    return count, tuple(samples)

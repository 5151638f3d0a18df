"""What a restore of some stores would make the stores of a rule disagree about, found out before anything is changed.

The stores that would be restored are read from the ids that the set recorded, the others as they are now; what disagrees then and does not
disagree now would come of the restore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.consistency.comparison import Comparison, Stream
from storekeeper.consistency.findings import Class, Finding
from storekeeper.consistency.places import Place, places_of
from storekeeper.consistency.recording import declared_in, streams_of
from storekeeper.consistency.spool import Spool, only_in_second
from storekeeper.host import clock
from storekeeper.outcomes import Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.sets.context import Opened
from storekeeper.sets.repository import SetEntry
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Remarks, Sorted

_SHOWN = 3


@dataclass(frozen=True)
class Disagreement:
    """What would come of one rule: findings by class, the first of them. `unknown` says why it cannot be told; there are no counts then."""

    rule: str
    counts: Mapping[str, int] | None
    samples: tuple[Finding, ...] = ()
    unknown: StorekeeperError | None = None

    @property
    def is_none(self) -> bool:
        return self.unknown is None and not any((self.counts or {}).values())

    def to_json(self) -> dict[str, Any]:
        return {"counts": None if self.counts is None else dict(self.counts), "samples": [each.to_json() for each in self.samples]}

    def sentence(self, chosen: Collection[str]) -> str:
        names = ", ".join(chosen)
        if self.unknown is not None:
            return f"{self.rule}: whether its stores would still agree if only {names} were restored is not known: {self.unknown.message}"
        said = ", ".join(f"{count:,} {name}" for name, count in (self.counts or {}).items() if count)
        such = "; ".join(f"{each.kind} {each.document[:40]!r} in {each.place}" for each in self.samples)
        return f"{self.rule}: if only {names} were restored, its stores would disagree: {said}, such as {such}"


def disagreements(context: Opened, entry: SetEntry, chosen: Collection[str]) -> tuple[Disagreement, ...]:
    """One for each rule that has places both in the chosen stores and in others; nothing is changed."""
    split = {name: rule for name, rule in context.stack.consistency.items() if _is_split(rule, chosen)}
    if not split:
        return ()
    with scratch_directory(context) as work:
        return tuple(_Foreseeing(context, entry, name, rule, chosen, work).found() for name, rule in split.items())


def problems_of(found: Collection[Disagreement], chosen: Collection[str], command: str) -> list[Problem]:
    """A warning for each that is one; `command` is what accepts them."""
    return [Problem(each.sentence(chosen), Severity.WARNING, next=command) for each in found if not each.is_none]


def refuse(found: Collection[Disagreement], chosen: Collection[str], command: str) -> None:
    """Raises Refused where stores would disagree, Unknown where that cannot be told; `command` accepts it."""
    said = [each.sentence(chosen) for each in found if not each.is_none]
    if said:
        kind = Unknown if any(each.unknown is not None for each in found) else Refused
        raise kind("; ".join(said), next=command)


def _is_split(rule: Rule, chosen: Collection[str]) -> bool:
    stores = {place.store for place in places_of(rule)}
    return bool(stores & set(chosen)) and bool(stores - set(chosen))


class _Foreseeing:
    """One rule, as it is now and as it would be."""

    def __init__(self, context: Opened, entry: SetEntry, name: str, rule: Rule, chosen: Collection[str], work: Path) -> None:
        self._context = context
        self._entry = entry
        self._name = name
        self._rule = rule
        self._chosen = chosen
        self._work = work

    def found(self) -> Disagreement:
        try:
            return self._compared()
        except StorekeeperError as error:
            return Disagreement(self._name, None, unknown=error)

    def _compared(self) -> Disagreement:
        recorded = dict(zip(places_of(self._rule), self._recorded(), strict=True))
        numbered = {place: number for number, place in enumerate(recorded)}
        with ExitStack() as held:
            others = {place: self._live(held, place, number) for place, number in numbered.items() if place.store not in self._chosen}
            after = self._spool("after", [others.get(place, found) for place, found in recorded.items()])
            before = self._before(held, numbered, others)
        counts = dict.fromkeys(map(str, Class), 0)
        samples: list[Finding] = []
        for each in only_in_second(before, after):
            counts[each.kind] += 1
            if len(samples) < _SHOWN:
                samples.append(each)
        return Disagreement(self._name, counts, tuple(samples))

    def _recorded(self) -> list[Stream]:
        """Raises Unknown where the set did not record what the rule asks now."""
        agreement = self._entry.manifest.agreements.get(self._name) if self._entry.manifest else None
        if agreement is None or agreement.unread or declared_in(agreement).digest != self._rule.digest:
            raise Unknown(f"set {self._entry.id} did not record the ids of this rule")
        folders = {place.store: self._entry.path / place.store for place in places_of(self._rule)}
        return list(streams_of(self._name, self._rule, folders, agreement.ends))

    def _before(self, held: ExitStack, numbered: Mapping[Place, int], others: Mapping[Place, Stream]) -> Iterable[Finding]:
        """What disagrees now. Nothing is known of that where a store that would be replaced cannot be read: then all that is found
        later counts as new. It is not taken for empty, since what an empty store disagrees about would hide the same later.
        """
        try:
            live = [others[place] if place in others else self._live(held, place, number) for place, number in numbered.items()]
            return self._spool("before", live)
        except StorekeeperError:
            return ()

    def _live(self, held: ExitStack, place: Place, number: int) -> Stream:
        remarks = Remarks()
        self._context.progress.step(place.store, f"reading {place.label}")
        try:
            found = self._context.stores[place.store].identities(place.source, remarks)
            return Stream(place, held.enter_context(Sorted(found, self._work, f"{self._name}.{number}")), remarks.ends)
        except StorekeeperError as error:
            error.about(place.store)
            raise

    def _spool(self, word: str, streams: list[Stream]) -> Spool:
        comparison = Comparison(self._rule.states, self._rule.grace, clock.now())
        return Spool(self._work / f"{self._name}.{word}", comparison.findings(streams[0], streams[1:]))


def told(found: Collection[Disagreement]) -> dict[str, Any]:
    """As the contract has them, by rule."""
    return {each.rule: each.to_json() for each in found}

"""All places of a rule read once, and compared; what has not changed since it was read before is not read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from storekeeper.consistency.clearing import Clearing
from storekeeper.consistency.comparison import Comparison, Tally
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.keeping import Compared, Figures, Keeping, Read
from storekeeper.consistency.places import Place, authority_of, replicas_of
from storekeeper.consistency.spool import Spool, in_both
from storekeeper.host import clock
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Problem, Severity, StorekeeperError, said_by_the_system
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Remarks, Sorted
from storekeeper.stores.protocol import Store


class Reading:
    """All places of a rule read, and compared. The authority is read before the replicas and, `twice`, once more after them: what is found
    disagrees with both.

    With `keeping` a place whose mark is what it was is not read again, and nothing is compared where that is so of all: it would come out
    the same. `unchanged` names them.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        work: Path,
        progress: Progress,
        name: str,
        rule: Rule,
        *,
        twice: bool = False,
        keeping: Keeping | None = None,
        at: datetime | None = None,
    ) -> None:
        self.unread: list[str] = []
        self.unchanged: tuple[str, ...] = ()
        self.problems: list[Problem] = []
        self.tally: Tally | None = None
        self.figures: Figures | None = None
        self.at = at or clock.now()
        self._stores, self._work, self._progress = stores, work, progress
        self._name = name
        self._keeping = keeping
        self._until: datetime | None = None
        path = work / f"{name}.{'second' if twice else 'first'}"
        if keeping is None or not self._is_known(keeping, path, rule):
            self._read_and_compare(path, rule, twice=twice)

    def _is_known(self, keeping: Keeping, path: Path, rule: Rule) -> bool:
        """Whether every place is as it was when all were compared; then that is what comes out."""
        known = keeping.compared(self.at)
        if known is None:
            return False
        self._progress.step(None, f"{self._name}: looking for what has changed")
        places = (authority_of(rule), *replicas_of(rule))
        if not all(keeping.knows(place.name, self._stores[place.store].mark(place.source), self.at) for place in places):
            return False
        self.findings = Spool(path, known.findings())
        self.tally, self.figures, self.unchanged = known.tally, known.figures, tuple(place.name for place in places)
        self.problems += known.problems
        return True

    def _read_and_compare(self, path: Path, rule: Rule, *, twice: bool) -> None:
        with ExitStack() as held:
            authorities, replicas = self._read_all(held, rule, twice=twice)
            try:
                self.findings = self._found(path, rule, authorities, replicas)
            except StorekeeperError as error:
                self.tally = self.figures = None
                self.findings = Spool(path, ())
                self.problems.append(Problem(f"{self._name}: {error.message}", Severity.ERROR, error.store, error.next))
            self.unchanged = tuple(dict.fromkeys(each.place.name for each in (*authorities, *replicas) if each.is_kept))
            if self._keeping is not None:
                self._keeping.keep([*authorities[:1], *replicas], None if twice else self._outcome())

    def _outcome(self) -> Compared | None:
        """What came out, where all places were read and nothing was unknown."""
        if self.unread or self.tally is None or self.figures is None:
            return None
        return Compared(self.findings, self.tally, self.figures, self.problems, self._until)

    def _read_all(self, held: ExitStack, rule: Rule, *, twice: bool) -> tuple[list[Read], list[Read]]:
        """The authority as often as it is read, and the replicas; no authority where it could not be read each time."""
        authority, places = authority_of(rule), replicas_of(rule)
        said = [self._read(held, authority, 0)]
        replicas = [self._read(held, place, number) for number, place in enumerate(places, 1)]
        if twice and said != [None]:
            said.append(self._read(held, authority, len(places) + 1))
        authorities = [each for each in said if each is not None]
        return authorities if len(authorities) == len(said) else [], [each for each in replicas if each is not None]

    def _found(self, path: Path, rule: Rule, authorities: Sequence[Read], replicas: Sequence[Read]) -> Spool:
        """`tally` and `figures` are those of the authority as it was read last."""
        found = [
            Spool(path.with_name(f"{path.name}.{number}"), self._compared(rule, each, replicas)) for number, each in enumerate(authorities)
        ]
        if len(found) == 2:
            return Spool(path, in_both(*found))
        return found[0] if found else Spool(path, ())

    def _read(self, held: ExitStack, place: Place, number: int) -> Read | None:
        """A place's identities, read at once and sorted; None, with a problem, where they cannot be had."""
        store = self._stores[place.store]
        try:
            mark = None if self._keeping is None else store.mark(place.source)
            if self._keeping is not None and (kept := self._keeping.place(place.name, mark, self.at)) is not None:
                self._progress.step(place.store, f"{place.label} has not changed")
                self._say_nameless(place, kept.nameless)
                return kept.opened(held, place)
            self._progress.step(place.store, f"reading {place.label}")
            remarks = Remarks()
            identities = held.enter_context(Sorted(store.identities(place.source, remarks), self._work, f"{self._name}.{number}"))
            if mark is not None and store.mark(place.source) != mark:
                mark = None
        except StorekeeperError as error:
            self._not_read(place, error.message, error.next)
            return None
        except OSError as error:
            self._not_read(place, said_by_the_system(error), None)
            return None
        self._say_nameless(place, remarks.nameless)
        return Read(place=place, identities=identities, ends=remarks.ends, mark=mark, nameless=remarks.nameless, at=self.at)

    def _say_nameless(self, place: Place, count: int) -> None:
        if count > 0:
            said = f"{self._name}: {count:,} entries of {place.name} have no id"
            self.problems.append(Problem(said, Severity.WARNING, place.store))

    def _not_read(self, place: Place, message: str, following: str | None) -> None:
        self.unread.append(place.name)
        said = f"{self._name}: {place.name} cannot be read, so nothing is known of it: {message}"
        self.problems.append(Problem(said, Severity.ERROR, place.store, following))

    def _compared(self, rule: Rule, authority: Read, replicas: Sequence[Read]) -> Iterator[Finding]:
        comparison = Comparison(rule.states, rule.grace, self.at)
        clearing = Clearing(self._work / f"{self._name}.odd", rule.states, authority, replicas)
        yield from comparison.findings(*clearing.doubtful())
        comparison.tally.add(clearing.tally)
        self.tally, self._until = comparison.tally, comparison.until
        self.figures = _figures(authority, comparison.tally, replicas)
        if comparison.tally.unknown_states:
            words = ", ".join(repr(word[:40]) for word in sorted(comparison.tally.unknown_states))
            said = f"{self._name}: documents have states that the rule does not name ({words}); they count as in flight"
            self.problems.append(Problem(said, Severity.WARNING, authority.place.store, next="name them in `states`"))


def _figures(authority: Read, tally: Tally, replicas: Sequence[Read]) -> Figures:
    held = {
        each.place.name: (tally.held[each.place.name], tally.chunks[each.place.name] if each.place.counts else None) for each in replicas
    }
    return Figures(authority.identities.owners(), authority.identities.states(), held)

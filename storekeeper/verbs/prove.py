"""prove: restore a set into a scratch place, read everything back, compare it with the moment that was held."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from storekeeper import __version__
from storekeeper.host import clock, load, space
from storekeeper.outcomes import Failed, Outcome, Problem, Severity, StorekeeperError, Unknown, said_by_the_system
from storekeeper.sets.agreeing import Agreeing
from storekeeper.sets.comparison import refuse_difference
from storekeeper.sets.context import Context
from storekeeper.sets.copies import opened_copy
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.records import Verdict
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.record import StoreRecord
from storekeeper.verbs.report import Report

_VERDICTS: dict[Outcome, Verdict] = {Outcome.OK: "ok", Outcome.FAILED: "failed", Outcome.UNKNOWN: "unknown"}
_ELSEWHERE = "set `scratch:` in storekeeper.yml to a directory with room"


def prove(context: Context, set_name: str | None = None) -> Report:
    """Prove one set, the newest of any state when none is named.

    Every store is tried, also after one that failed. A set whose stores all came out equal is proven; one that failed is
    unprovable; where a store could not be tried nothing is known of the set, and its state stays as it was. What the proven copies
    disagree about by the stack's rules is told and recorded, and decides nothing: the live stores may have disagreed at that moment.
    """
    load.lower()
    entry = context.sets.resolve(set_name or "latest", usable=False).entry
    with context.sets.using(entry):
        manifest = entry.manifest
        if manifest is None:
            raise Failed(f"set {entry.id} cannot be proven: {entry.reason}", next=f"storekeeper list {context.stack.stack}")
        with Agreeing(context, entry, manifest) as agreeing:
            trials = _Trials(context, entry, manifest, agreeing)
            tried = {name: trials.of(name, record) for name, record in manifest.stores.items()}
            agreements = agreeing.compared()
        outcome = _worst(tried)
        problems = [*(trial.problem for trial in tried.values() if trial.problem), *agreeing.problems]
        stores = {name: {"outcome": trial.outcome, "seconds": trial.seconds} for name, trial in tried.items()}
        versions = {name: record.version for name, record in manifest.stores.items()}
        reason = next((problem.message for problem in problems), None) if outcome is not Outcome.OK else None
        facts = {
            "stores": stores,
            "agreements": agreements,
            "versions": {**versions, "storekeeper": __version__},
            "host": context.host,
        }
        context.sets.records.add(entry.id, "prove", _VERDICTS[outcome], clock.now(), reason=reason, facts=facts)
    now = context.sets.entry(entry.id)
    return Report({"sets": [{"id": entry.id, "state": now.state, "stores": stores, "agreements": agreements}]}, problems, outcome)


@dataclass(frozen=True)
class _Trial:
    outcome: Outcome
    seconds: float
    problem: Problem | None


class _Trials:
    """One set's stores, each restored into a scratch directory of its own that is gone afterwards."""

    def __init__(self, context: Context, entry: SetEntry, manifest: Manifest, agreeing: Agreeing) -> None:
        self._context = context
        self._entry = entry
        self._manifest = manifest
        self._agreeing = agreeing

    def of(self, name: str, record: StoreRecord) -> _Trial:
        self._context.progress.step(name, "proving", record.bytes)
        started = clock.monotonic()
        try:
            try:
                self._restore(name, record)
            except (StorekeeperError, OSError) as error:
                if not space.is_for_want_of_room(error) or not self._agreeing.gave_way():
                    raise
                self._restore(name, record)
        except StorekeeperError as error:
            # A disk that was full tells nothing of the set, which another disk would have proven.
            untried = not isinstance(error, Failed) or space.is_for_want_of_room(error)
            if space.is_for_want_of_room(error):
                error.next = _ELSEWHERE
            return self._told(name, Outcome.UNKNOWN if untried else Outcome.FAILED, error.about(name), started)
        except OSError as error:
            unusable = Unknown(f"the scratch place cannot be used: {said_by_the_system(error)}", next=_ELSEWHERE)
            return self._told(name, Outcome.UNKNOWN, unusable, started)
        return self._told(name, Outcome.OK, None, started)

    def _restore(self, name: str, record: StoreRecord) -> None:
        with ExitStack() as held:
            copy = held.enter_context(opened_copy(self._context, self._entry, self._manifest, name))
            found = copy.content()
            refuse_difference(found, record, "what was restored")
            if self._agreeing.needs(name):
                self._agreeing.keep(name, copy, held.pop_all())

    def _told(self, name: str, outcome: Outcome, error: StorekeeperError | None, started: float) -> _Trial:
        problem = None
        if error is not None:
            severity = Severity.WARNING if outcome is Outcome.UNKNOWN else Severity.ERROR
            problem = Problem(f"set {self._entry.id}: {error.message}", severity, name, error.next)
        return _Trial(outcome, round(clock.monotonic() - started, 3), problem)


def _worst(tried: Mapping[str, _Trial]) -> Outcome:
    outcomes = {trial.outcome for trial in tried.values()}
    for outcome in (Outcome.FAILED, Outcome.UNKNOWN):
        if outcome in outcomes:
            return outcome
    return Outcome.OK

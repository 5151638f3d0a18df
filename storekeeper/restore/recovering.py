"""A recovery: one damaged store switched to what could still be read of it, and its damaged files kept as the way back.

It is the walk of a restore, with services stopped before anything is read: what is rescued is then all that anybody ever wrote, and
nobody writes a row that the switch would leave behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, space
from storekeeper.host.space import FileSystem
from storekeeper.outcomes import Problem, Refused, Severity, naming
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, Step, spoken_time
from storekeeper.restore.kept import kept_until
from storekeeper.restore.lost import Lost, lost_documents
from storekeeper.restore.made import recorded
from storekeeper.restore.plan import Live, RestoreRequest, add_up, raw_notes, told_space, told_stores
from storekeeper.restore.restoring import Restored, begin, ended, take_safety_set
from storekeeper.restore.services import Stoppable
from storekeeper.restore.walk import RECOVERY, Walk
from storekeeper.sets.context import Context
from storekeeper.sets.repository import SetEntry
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Foresight, Rescued, Store
from storekeeper.stores.record import StoreRecord

_WORK, _COPY = ".work", ".copy"
_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """What was rescued: `path` has the store's folder with it, `record` says what is in it; beside it what the newest proven set knows."""

    path: Path
    record: StoreRecord
    rescued: Rescued
    proven: SetEntry | None
    in_set: Mapping[str, int]
    lost: tuple[Lost, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "proven_set": self.proven.id if self.proven else None,
            "damages": list(self.rescued.damages),
            "tables": {
                name: {"rows": each.rows, "lost": each.lost, "refused": each.refused, "pages": each.pages, "in_set": self.in_set.get(name)}
                for name, each in self.rescued.tables.items()
            },
            "unplaced": self.rescued.unplaced,
            "documents": [each.to_json() for each in self.lost],
        }


@dataclass(frozen=True)
class RecoveryPlan:
    """A recovery that nothing speaks against."""

    live: Live
    foreseen: Mapping[str, Foresight]
    stops: tuple[str, ...]
    file_systems: tuple[FileSystem, ...]
    rescued: Mapping[str, Any]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        stores = told_stores(self.live, self.foreseen)
        told = {"set": None, "stores": stores, "services": list(self.stops), "space": told_space(self.file_systems)}
        return {**told, "rescued": dict(self.rescued)}


def recover_store(context: Context, name: str, *, plan: bool) -> Restored:
    """Make one store anew from what can be read of it, or say what that would bring (`plan`).

    Raises Refused for a store that is whole, or of which nothing can be made anew, with the command that restores it instead; Failed, with
    everything as it was, for what goes wrong later.
    """
    store = context.stores[name]
    planned = _plan(context, store)
    if plan:
        return Restored({"plan": planned.to_json()}, planned.problems)
    context.progress.foresee(planned.to_json())
    facts = {"set": None, "stores": [name], "undoes": None}
    journal = begin(context, RECOVERY, None, planned.live, facts)
    walk = Walk(context, journal, Interruption())
    try:
        walk.stop_first()
        _save(context, store, planned.live, journal)
        with _rescued(context, store) as found:
            walk.stage(found.path, {name: found.record}, None)
            told, problems = found.to_json(), tuple(_problems(context, store, found))
    except BaseException as error:
        raise walk.undo(error) from error
    walk.finish()
    return Restored({**ended(context, journal, walk), "rescued": told}, (*problems, *_kept(journal)))


def _plan(context: Context, store: Store) -> RecoveryPlan:
    with naming(store.name), _rescued(context, store) as found:
        foreseen = {store.name: store.foresee(found.path / store.name, found.record, None, raw=True)}
        live = Live(raw={store.name: found.rescued.damages[0]})
        needs = add_up([{context.sets.path: store.raw_bytes()}, foreseen[store.name].bytes_needed])
        rescued, problems = found.to_json(), [*raw_notes(live), *_problems(context, store, found)]
    problems += [replace(each, store=each.store or store.name) for each in foreseen[store.name].problems]
    return RecoveryPlan(
        live=live,
        foreseen=foreseen,
        stops=tuple(Stoppable.of(context, {store.name: store}).running()),
        file_systems=tuple(space.check(needs, purpose="a recovery", next=f"storekeeper prune {context.stack.stack}")),
        rescued=rescued,
        problems=tuple(problems),
    )


def _save(context: Context, store: Store, live: Live, journal: Journal) -> None:
    """Keep the damaged files as they are in the repository too: what has damaged one disk may damage it again."""
    request = RestoreRequest(accept_unreadable=frozenset([store.name]))
    safety, _ = take_safety_set(replace(context, stores={store.name: store}), RECOVERY, live, request)
    if safety is not None:
        journal.write(Step.SAVED, safety_set=safety.id, sequence=safety.sequence)


@contextmanager
def _rescued(context: Context, store: Store) -> Iterator[Found]:
    """Make the store anew in a private directory that is gone when the block ends."""
    proven = _newest_proven(context, store)
    with naming(store.name), scratch_directory(context) as scratch:
        needed = 2 * store.raw_bytes()
        space.check({context.scratch: needed}, purpose="a recovery", next="set `scratch:` in storekeeper.yml to a directory with room")
        context.progress.step(store.name, "rescuing")
        started = clock.monotonic()
        for path in (scratch / store.name, scratch / _WORK, scratch / _COPY):
            durable.ensure_directory(path)
        into = StoreFolder(scratch / store.name, None, context.progress.advance)
        try:
            rescued = store.rescue(into, scratch / _WORK)
        except Refused as error:
            error.next = error.next or _restoring(context, store, proven)
            raise
        record = recorded(store, "unknown", rescued.dumped, into, started)
        lost: tuple[Lost, ...] = ()
        if proven is not None and not all(each.is_whole for each in rescued.tables.values()):
            with store.copy(into.path, record, scratch / _COPY) as copy:
                lost = tuple(lost_documents(dict(context.stack.consistency), proven, store.name, copy, scratch / _WORK))
        manifest = proven.manifest if proven is not None else None
        in_set = manifest.stores[store.name].counts if manifest is not None else {}
        yield Found(scratch, record, rescued, proven, in_set, lost)


def _newest_proven(context: Context, store: Store) -> SetEntry | None:
    """The newest proven set that holds the store itself."""
    for entry in reversed(context.sets.entries()):
        manifest = entry.manifest if entry.state == "proven" else None
        record = manifest.stores.get(store.name) if manifest is not None else None
        if record is not None and not record.is_raw:
            return entry
    return None


def _restoring(context: Context, store: Store, proven: SetEntry | None) -> str:
    words = f"storekeeper restore {context.stack.stack} {proven.id if proven else 'latest'} --only {store.name}"
    return f"{words} --accept-unreadable {store.name} --plan"


def _problems(context: Context, store: Store, found: Found) -> Iterator[Problem]:
    """What a person should know: what is lost, and where more of it is."""
    rescued = found.rescued
    for name, table in rescued.tables.items():
        if not table.is_whole:
            yield Problem(f"{name}: {_said(table.rows, table.lost, table.refused, table.pages)}", Severity.WARNING, store.name)
    if rescued.unplaced:
        said = f"{rescued.unplaced:,} rows stand on pages that nothing leads to, of a table that nobody can tell: they are lost"
        yield Problem(said, Severity.WARNING, store.name)
    for note in rescued.notes:
        yield Problem(note, Severity.WARNING, store.name)
    for each in rescued.dumped.problems:
        yield replace(each, store=store.name)
    command = _restoring(context, store, found.proven)
    for lost in found.lost:
        if (problem := lost.problem(command)) is not None:
            yield replace(problem, store=store.name)
    more = {
        name: found.in_set[name] - table.rows
        for name, table in rescued.tables.items()
        if not table.is_whole and found.in_set.get(name, 0) > table.rows
    }
    if more and found.proven is not None:
        counts = ", ".join(f"{count:,} rows more of {name}" for name, count in list(more.items())[:_SHOWN])
        yield Problem(
            f"the newest proven set, {found.proven.id}, holds more than can be rescued: {counts}", Severity.WARNING, store.name, command
        )


def _said(rows: int, lost: int | None, refused: int, pages: int) -> str:
    if lost is None:
        torn = f"{pages:,} of its pages are damaged, and nobody can tell how many rows are lost"
    else:
        torn = f"{lost:,} are lost on {pages:,} damaged pages" if pages else f"{lost:,} that its indexes know are not there"
    parts = [f"{rows:,} rows were rescued", *([torn] if lost != 0 else [])]
    return "; ".join([*parts, *([f"{refused:,} were read and are against its own keys or checks"] if refused else [])])


def _kept(journal: Journal) -> list[Problem]:
    said = f"the damaged files are kept as they were until {spoken_time(kept_until(journal))}"
    return [Problem(said, Severity.INFO)]

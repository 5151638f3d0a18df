"""A reset: all stores of a stack switched to their own schema with nothing in it, or to one that migrations make, or none of them.

It is the walk of a restore. What it switches to is made from the live stores, which are only read for that, in the form of a set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, space
from storekeeper.host.space import FileSystem
from storekeeper.outcomes import Problem, Refused, Severity, naming
from storekeeper.restore import bare, commands
from storekeeper.restore.bare import Bare
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.made import recorded
from storekeeper.restore.plan import (
    Live,
    RestoreRequest,
    add_up,
    foresee_all,
    look_at_live,
    raw_notes,
    safety_need,
    told_space,
    told_stores,
)
from storekeeper.restore.restoring import Restored, begin, ended, old_side_notes, take_safety_set
from storekeeper.restore.services import Stoppable
from storekeeper.restore.walk import RESET, Walk
from storekeeper.sets.context import Context
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Before, Foresight, Store
from storekeeper.stores.record import StoreRecord

_WORK = ".work"


@dataclass(frozen=True)
class Emptied:
    """What the stores are switched to: a folder for each below `path`, and the record of what is in it."""

    path: Path
    records: Mapping[str, StoreRecord]


@dataclass(frozen=True)
class ResetPlan:
    """A reset that nothing speaks against."""

    foreseen: Mapping[str, Foresight]
    live: Live
    bare: Bare | None
    stops: tuple[str, ...]
    file_systems: tuple[FileSystem, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        stores = told_stores(self.live, self.foreseen)
        space_by_mount = told_space(self.file_systems)
        return {
            "set": None,
            "stores": stores,
            "services": list(self.stops),
            "space": space_by_mount,
            "disagreements": {},
            "schema": self.bare and self.bare.to_json(),
        }


def reset_stores(context: Context, request: RestoreRequest) -> Restored:
    """Empty all stores that are there, or say what that would do (`request.plan`).

    Raises everything that a restore raises, and Refused where a declared command could not be run, no store is there, or one is absent
    whose schema the migrations were to make.
    """
    commands.refuse_unless_there(context.stack)
    live = look_at_live(context, request)
    plan = _plan(context, live)
    if request.plan:
        return Restored({"plan": plan.to_json()}, plan.problems)
    context.progress.foresee(plan.to_json())
    safety, live = take_safety_set(context, RESET, live, request)
    stores = _present(context, live)
    with _emptied(context, stores, live) as emptied:  # after the safety set: what it holds is what the schema is taken from
        foresee_all(stores, emptied.path, emptied.records, live)
        facts = {"set": None, "stores": list(stores), "undoes": None, "after": list(commands.recorded(context.stack))}
        facts |= {"bare": list(context.stack.left_bare)}
        journal = begin(context, RESET, safety, live, facts)
        walk = Walk(context, journal, Interruption())
        try:
            walk.stage(emptied.path, emptied.records, None)
        except BaseException as error:
            raise walk.undo(error) from error
    walk.finish()
    late = [note for note in raw_notes(live) if note not in plan.problems]
    schema, moved = _made(plan.bare, walk)
    return Restored({**ended(context, journal, walk), "schema": schema}, (*plan.problems, *late, *moved, *old_side_notes(journal)))


def _made(foreseen: Bare | None, walk: Walk) -> tuple[dict[str, Any] | None, Sequence[Problem]]:
    """What the result says of a schema that migrations have made, and what to say beside it."""
    if foreseen is None:
        return None, ()
    return {**foreseen.to_json(), "applied": walk.applied and walk.applied.to_json()}, tuple(foreseen.changed(walk.applied))


def _plan(context: Context, live: Live) -> ResetPlan:
    stores, left_bare = _present(context, live), bare.foreseen(context, live)
    with _emptied(context, stores, live) as emptied:
        foreseen = foresee_all(stores, emptied.path, emptied.records, live)
    needs = add_up([safety_need(context, live), *(each.bytes_needed for each in foreseen.values())])
    return ResetPlan(
        foreseen=foreseen,
        live=live,
        bare=left_bare,
        stops=tuple(Stoppable.of(context, stores).running()),
        file_systems=tuple(space.check(needs, purpose=RESET, next=f"storekeeper prune {context.stack.stack}")),
        problems=(*_notes(context, live, foreseen), *(left_bare.notes() if left_bare else ())),
    )


def _present(context: Context, live: Live) -> dict[str, Store]:
    """The stores that are there. Raises Refused where none is: then there is nothing to empty."""
    present = {name: store for name, store in context.stores.items() if name not in live.absent}
    if not present:
        raise Refused(f"no store of {context.stack.stack} is there: there is nothing to empty")
    return present


@contextmanager
def _emptied(context: Context, stores: Mapping[str, Store], live: Live) -> Iterator[Emptied]:
    """Make what the stores would be switched to, in a private directory that is gone when the block ends."""
    with scratch_directory(context) as scratch:
        records = {}
        for name, store in stores.items():
            context.progress.step(name, "taking the schema")
            with naming(name):
                records[name] = _empty(context, store, scratch, _instead(context, name) if name in live.raw else None)
        yield Emptied(scratch, records)


def _empty(context: Context, store: Store, scratch: Path, instead: Before | None) -> StoreRecord:
    started = clock.monotonic()
    for path in (scratch / store.name, scratch / _WORK / store.name):
        durable.ensure_directory(path)
    into = StoreFolder(scratch / store.name, None, context.progress.advance)
    version = store.look().version if instead is None else instead.record.version
    keep = None if store.name in context.stack.left_bare else context.stack.reset.keep.get(store.name, ())
    dumped = store.empty(into, scratch / _WORK / store.name, keep, instead)
    return recorded(store, version, dumped, into, started)


def _instead(context: Context, name: str) -> Before:
    """The store in the newest good set. Raises Refused where there is none: nothing says then what its schema is."""
    entry = context.sets.newest_usable()
    record = entry.manifest.stores.get(name) if entry is not None and entry.manifest is not None else None
    if entry is None or record is None or record.is_raw:
        said = "it cannot be read, and no good set holds it: nothing says what its schema is"
        raise Refused(said, store=name, next=f"storekeeper list {context.stack.stack}")
    return Before(entry.path / name, record)


def _notes(context: Context, live: Live, foreseen: Mapping[str, Foresight]) -> Iterator[Problem]:
    """What a person should know before saying yes."""
    for name in live.absent:
        yield Problem("it is absent, and stays so: there is nothing to empty", Severity.INFO, name)
    yield from raw_notes(live)
    for name in live.raw:
        entry = context.sets.newest_usable()
        what = "page size and encoding are" if name in context.stack.left_bare else "schema is"
        yield Problem(f"its {what} taken from set {entry.id if entry else ''}", Severity.WARNING, name)
    for name, tables in context.stack.reset.keep.items():
        if name in foreseen and tables:
            yield Problem(f"the rows of {_joined(tables)} stay", Severity.INFO, name)
    for command in context.stack.once_emptied:
        yield Problem(f"once all stores are empty, and before services start: {command.spoken}", Severity.INFO)
    for name, each in foreseen.items():
        yield from (problem if problem.store else replace(problem, store=name) for problem in each.problems)


def _joined(words: Sequence[str]) -> str:
    return ", ".join(words)

"""Making one set: all stores held at one point, dumped, read back, decoded, and only then given its name.

    preflight -> partial -> hold all -> dump each -> let go -> read back and decode -> manifest -> rename

A store that fails ends the whole: nothing is published, and the partial is removed. What a killed run left is swept by the next.
Only a safety set may hold a raw copy of a store that cannot be read, or lack one that is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storekeeper import __version__
from storekeeper.consistency.agreement import Agreement
from storekeeper.consistency.recording import Recording
from storekeeper.host import clock, durable, space
from storekeeper.outcomes import Failed, Problem, Severity, naming, said_by_the_system
from storekeeper.sets import room, shrinkage
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.point import Point, one_point
from storekeeper.sets.readingback import read_back
from storekeeper.sets.repository import Partial, SetEntry
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Hold, Look, Store
from storekeeper.stores.record import RAW_COPY, StoreRecord

_WORK = ".work"  # the stores' own copies, in the partial so that they are moved into the set and not copied again
_IDS = ".ids"  # in it: what sorts the ids of a rule; no store is named so


@dataclass(frozen=True)
class Found:
    """A store as preflight found it."""

    look: Look
    problems: tuple[Problem, ...]


def take_set(
    context: Context, *, purpose: str, accept_shrink: frozenset[str] = frozenset(), accept_unreadable: frozenset[str] = frozenset()
) -> SetEntry:
    """Take, verify and publish one set of all the stack's stores; its warnings stand in its manifest.

    `purpose` is `backup`, or what the set is the safety of. A backup fails where a store shrank to a tenth of its last good
    set, unless `accept_shrink` names it; a safety set takes what is there. Of a store in `accept_unreadable` a raw copy is kept. With
    one, or without a declared store (absent, and so not in `context.stores`), the set is `incomplete` and no backup.
    Raises the first store's error; then nothing is published.
    """
    try:
        return _take(context, purpose, accept_shrink, accept_unreadable)
    except OSError as error:
        raise Failed(f"no set was published: {said_by_the_system(error)}") from error


def _take(context: Context, purpose: str, accept_shrink: frozenset[str], accept_unreadable: frozenset[str]) -> SetEntry:
    context.sets.sweep()
    previous = context.sets.newest_usable()
    readable = {name: store for name, store in context.stores.items() if name not in accept_unreadable}
    found = _preflight(context, readable, previous)
    raw = {name: store.raw_bytes() for name, store in context.stores.items() if name not in readable}
    _refuse_without_room(context, found, sum(raw.values()))
    with context.sets.begin(clock.now()) as partial:
        making = _Making(context, partial, previous, found)
        point = making.dump_all(readable)
        for name in raw:
            making.copy_raw(name)
        agreements = making.agreements()
        durable.remove_tree(partial.path / _WORK)
        warnings = [problem for each in found.values() for problem in each.problems] + making.problems
        if purpose == "backup":
            warnings += shrinkage.compare(making.records, previous, accept_shrink)
        is_complete = not raw and making.records.keys() == context.stack.stores.keys()
        manifest = Manifest(
            stack=context.stack.stack,
            id=partial.id,
            sequence=partial.sequence,
            created=min(record.pinned for record in making.records.values()),
            host=context.host,
            version=__version__,
            skew_ms=point.skew_ms,
            pause_ms=point.pause_ms,
            stores=making.records,
            agreements=agreements,
            previous=previous.id if previous else None,
            state="verified" if is_complete else "incomplete",
            problems=tuple(warnings),
        )
        read_back(partial.path, manifest, context.stores, context.progress)
        context.progress.step(None, "publishing")
        return partial.publish(manifest)


class _Making:
    """The set in the making: what each store wrote, by name."""

    def __init__(self, context: Context, partial: Partial, previous: SetEntry | None, found: Mapping[str, Found]) -> None:
        self.records: dict[str, StoreRecord] = {}
        self.problems: list[Problem] = []
        self._folders: dict[str, StoreFolder] = {}
        self._begun: dict[str, float] = {}
        self._context = context
        self._partial = partial
        self._previous = previous
        self._found = found
        scratch = partial.path / _WORK / _IDS
        durable.ensure_directory(scratch)
        self._recording = Recording(context.stack.consistency, scratch)

    def agreements(self) -> Mapping[str, Agreement]:
        """What the stores that were dumped say of each other, by rule."""
        found = self._recording.agreements({name: folder.path for name, folder in self._folders.items()})
        self.problems += self._recording.problems
        return found

    def dump_all(self, stores: Mapping[str, Store]) -> Point:
        """Hold these stores at one point and write their artefacts; all holds are closed when this returns."""
        holds = {name: store.hold(self._work(name)) for name, store in stores.items()}
        with one_point(holds, self._context.progress) as point:
            going_on = {name for name, hold in holds.items() if self._begin_dump(name, hold)}
            for name in sorted(holds, key=lambda name: name in going_on):
                with naming(name):
                    self._dump(name, holds[name], point)
        return point

    def copy_raw(self, name: str) -> None:
        """Keep the files of a store that cannot be read as they are now; they are of no common moment with the others."""
        store = self._context.stores[name]
        self._context.progress.step(name, "copying as it is")
        started, moment = clock.monotonic(), clock.now()
        folder = self._folder(name, None)
        with naming(name):
            details = store.raw_copy(folder)
        folder.seal()
        unread = details.get("unread_count")
        rest = f"; {unread} entries could not even be copied, such as {details['unread'][0]}" if unread else ""
        self.problems.append(Problem(f"it could not be read: its files were copied as they are{rest}", Severity.WARNING, name))
        self.records[name] = StoreRecord(
            kind=store.kind,
            klass=RAW_COPY,
            version="unknown",
            pinned=moment,
            pause_ms=0.0,
            downtime_s=0.0,
            seconds=round(clock.monotonic() - started, 3),
            bytes=folder.bytes,
            counts={},
            digests={},
            artefacts=folder.artefacts,
            details=details,
        )

    def _begin_dump(self, name: str, hold: Hold) -> bool:
        """Whether it goes on by itself while other stores are dumped."""
        self._folders[name] = self._folder(name, self._previous)
        began = clock.monotonic()
        with naming(name):
            goes_on = self._context.stores[name].begin_dump(hold, self._folders[name])
        if goes_on:
            self._begun[name] = began
        return goes_on

    def _dump(self, name: str, hold: Hold, point: Point) -> None:
        look = self._found[name].look
        self._context.progress.step(name, "dumping", look.bytes)
        started = self._begun.get(name, clock.monotonic())
        folder = self._folders[name]
        dumped = self._context.stores[name].dump(hold, folder)
        self._recording.write(self._context.stores[name], hold, folder)
        folder.seal()
        self.problems += dumped.problems
        self.records[name] = StoreRecord(
            kind=self._context.stores[name].kind,
            klass=dumped.klass,
            version=look.version,
            pinned=point.pinned[name],
            pause_ms=point.pauses_ms[name],
            downtime_s=0.0,
            seconds=round(clock.monotonic() - started, 3),
            bytes=folder.bytes,
            counts=dict(dumped.counts),
            digests=dict(dumped.digests),
            artefacts=folder.artefacts,
            details=dumped.details,
        )

    def _folder(self, name: str, previous: SetEntry | None) -> StoreFolder:
        path = self._partial.path / name
        durable.make_directory(path)
        return StoreFolder(path, previous.path / name if previous else None, self._context.progress.advance)

    def _work(self, name: str) -> Path:
        work = self._partial.path / _WORK / name
        durable.ensure_directory(work)
        return work


def _preflight(context: Context, stores: Mapping[str, Store], previous: SetEntry | None) -> dict[str, Found]:
    """Ask these stores whether a backup could succeed. Raises the first refusal; nothing was touched then."""
    found = {}
    for name, store in stores.items():
        context.progress.step(name, "looking")
        with naming(name):
            problems = tuple(_about(problem, name) for problem in store.preflight())
            found[name] = Found(store.look(room.before(previous, name)), problems)
    return found


def _refuse_without_room(context: Context, found: Mapping[str, Found], raw_bytes: int) -> None:
    """Raises Refused before any store is held when the set would not fit."""
    needed = room.wanted(each.look for each in found.values()) + raw_bytes
    space.check({context.sets.path: needed}, purpose="a backup", next=f"storekeeper prune {context.stack.stack}")


def _about(problem: Problem, store: str) -> Problem:
    return problem if problem.store else Problem(problem.message, problem.severity, store, problem.next)

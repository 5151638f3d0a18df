"""A backup of one store, walked the way publishing walks it, and the journal and the checks that its restore needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Problem
from storekeeper.sets.point import Point, one_point
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.lines import read_lines
from storekeeper.stores.protocol import Dumped, Store
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import sha256_of


@dataclass(frozen=True)
class Taken:
    """One store's part of a set: its folder, its record as read back from JSON, and what the dump warned of."""

    folder: Path
    record: StoreRecord
    problems: tuple[Problem, ...]


def take(store: Store, directory: Path, previous: Path | None = None) -> tuple[Path, StoreRecord]:
    """Take one store into `directory`/NAME. `previous` is the folder that an earlier call returned."""
    taken = take_whole(store, directory, previous)
    return taken.folder, taken.record


def take_whole(store: Store, directory: Path, previous: Path | None = None) -> Taken:
    folder, work = directory / store.name, directory / f".{store.name}.work"
    durable.ensure_directory(directory)
    durable.make_directory(folder)
    durable.make_directory(work)
    version, started = store.look().version, clock.monotonic()
    into, hold = StoreFolder(folder, previous, lambda _: None), store.hold(work)
    with one_point({store.name: hold}, Progress()) as point:
        dumped = dump(store, hold, into)
    into.seal()
    durable.remove_tree(work)
    seconds = clock.monotonic() - started
    return Taken(folder, _record(store, version, seconds, into, dumped, point), tuple(dumped.problems))


def dump(store: Store, hold: Any, into: StoreFolder) -> Dumped:
    store.begin_dump(hold, into)
    return store.dump(hold, into)


def _record(store: Store, version: str, seconds: float, into: StoreFolder, dumped: Dumped, point: Point) -> StoreRecord:
    record = StoreRecord(
        kind=store.kind,
        klass=dumped.klass,
        version=version,
        pinned=point.pinned[store.name],
        pause_ms=point.pauses_ms[store.name],
        downtime_s=0.0,
        seconds=seconds,
        bytes=into.bytes,
        counts=dumped.counts,
        digests=dumped.digests,
        artefacts=into.artefacts,
        details=dumped.details,
    )
    return StoreRecord.from_json(json.loads(json.dumps(record.to_json())))


def check_sums(folder: Path, record: StoreRecord) -> None:
    """Compare every artefact, and every file that one lists, with its recorded size and sha256; raises ValueError."""
    for artefact in record.artefacts:
        _compare(folder / artefact.path, artefact.size, artefact.sha256)
        if artefact.lists is None:
            continue
        for entry in read_lines(folder / artefact.path):
            if "sha256" in entry:
                _compare(folder / artefact.lists / entry["path"], entry["size"], entry["sha256"])


def _compare(path: Path, size: int, sha256: str) -> None:
    if not path.is_file() or sha256_of(path) != (sha256, size):
        raise ValueError(f"{path} is damaged")


@dataclass
class Journal:
    """A restore's journal in memory: what was noted, in order. `fuse` raises after that many notes, as a crash would."""

    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fuse: int | None = None

    def note(self, step: str, **facts: Any) -> None:
        self.notes.append((step, json.loads(json.dumps(facts))))
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crash(step)

    def noted(self, step: str) -> dict[str, Any] | None:
        return next((facts for noted, facts in reversed(self.notes) if noted == step), None)


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the program may catch it and tidy up."""


def dump_after(store: Store, room: Path, between: Callable[[], None], name: str = "set") -> tuple[Path, Dumped]:
    """A dump in which something happens between the pinned listing and the copy."""
    folder, work = room / name, room / f"{name}-work"
    folder.mkdir()
    work.mkdir()
    hold = store.hold(work)
    hold.prepare()
    hold.pin()
    between()
    into = StoreFolder(folder, None, lambda _: None)
    try:
        return folder, dump(store, hold, into)
    finally:
        hold.close()


def entries(folder: Path) -> dict[str, dict]:
    return {entry["path"]: entry for entry in read_lines(folder / "tree.jsonl")}


def empty(store: Store, directory: Path, *keep: str | None) -> tuple[Path, StoreRecord]:
    """What a reset would switch the store to, as a set has it; None leaves it bare."""
    folder, work = directory / "emptied", directory / "work"
    for path in (folder, work):
        path.mkdir(mode=0o700, parents=True)
    into = StoreFolder(folder, None, lambda _: None)
    version = store.look().version
    dumped = store.empty(into, work, None if None in keep else [name for name in keep if name], None)
    into.seal()
    assert list(work.iterdir()) == []
    return folder, StoreRecord(
        store.kind,
        dumped.klass,
        version,
        clock.now(),
        0.0,
        0.0,
        0.0,
        into.bytes,
        dumped.counts,
        dumped.digests,
        into.artefacts,
        dumped.details,
    )

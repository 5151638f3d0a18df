"""Small real sets: a tree of files, written by the store's folder and published by the repository's own functions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storekeeper.host import durable
from storekeeper.sets.manifest import Manifest, State
from storekeeper.sets.repository import Partial, Repository, SetEntry, StackSets
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.record import StoreRecord

FAULT_COUNT = int(os.environ.get("STOREKEEPER_FAULT_COUNT", "20"))  # how often a random fault is made
START = datetime(2025, 1, 9, 3, 0, 0, tzinfo=UTC)
FILES = {"a.txt": b"alpha" * 50, "paper.pdf": os.urandom(3000), "sub/b.txt": b"beta" * 80, "sub/empty": b""}


def open_sets(folder: Path, stack: str = "demo") -> StackSets:
    """The sets of a stack in a repository below `folder`, made when it is not there."""
    return Repository.open_or_create(folder / "repository", folder / "state").stack(stack)


def write_source(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """The live tree that sets are taken of."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    time.sleep(0.12)  # a file written to this instant is never shared: the clock that stamps files could not tell another write
    return folder


def publish(
    sets: StackSets, source: Path, now: datetime = START, *, state: State = "verified", share: bool = False, notes: bytes = b"notes"
) -> SetEntry:
    """Take a set of `source`; with `share` unchanged files are hard links to the set before."""
    with sets.begin(now) as partial:
        return partial.publish(fill(sets, partial, source, now, state=state, share=share, notes=notes))


def fill(
    sets: StackSets,
    partial: Partial,
    source: Path,
    now: datetime,
    *,
    state: State = "verified",
    share: bool = False,
    notes: bytes = b"notes",
) -> Manifest:
    """Write one store, `papers`, into a partial, and say what the manifest would."""
    previous = sets.newest_usable() if share else None
    path = partial.path / "papers"
    durable.make_directory(path)
    folder = StoreFolder(path, previous.path / "papers" if previous else None, lambda count: None)
    folder.write("notes.bin", [notes])
    with folder.tree("tree.jsonl", "files") as tree:
        for file in sorted((each for each in source.rglob("*") if each.is_file()), key=os.fsencode):
            with open(file, "rb") as content:
                tree.add_file({"path": str(file.relative_to(source)), "type": "file"}, content)
    folder.seal()
    record = StoreRecord(
        kind="files",
        klass="listed-copy",
        version="",
        pinned=now,
        pause_ms=0.0,
        downtime_s=0.0,
        seconds=0.01,
        bytes=folder.bytes,
        counts={"files": 1, "bytes": folder.bytes},
        digests={},
        artefacts=folder.artefacts,
    )
    return Manifest(
        stack=sets.stack,
        id=partial.id,
        sequence=partial.sequence,
        created=now,
        host="testhost",
        version="0.1.0",
        skew_ms=0.0,
        pause_ms=0.0,
        stores={"papers": record},
        previous=previous.id if previous else None,
        state=state,
    )


def publish_daily(sets: StackSets, source: Path, days: int, first: datetime = START) -> list[SetEntry]:
    return [publish(sets, source, first + timedelta(days=day)) for day in range(days)]


def tampered(path: Path) -> Path:
    """Make a sealed file writable, as whoever damages it would."""
    path.chmod(0o600)
    return path

"""What the tests of a switch of a tree of files play in: a live tree that has changed since its set was taken, and that set, staged."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord
from tests.harness.stacks import in_child
from tests.harness.trees import snapshot, store_at
from tests.stores.walk import take

TOKEN = "0123abcd"
KILLED = 77
WHOLE: tuple[str, ...] = ()
ENTRIES = ("raw", "processed/markdown", "index.json", "gone", "late")
EXCLUDED = ("cache", "raw/cache", "processed/markdown/tmp", "only-live/cache")
OPERATIONS = ("rename", "mkdir", "rmdir", "utime")


@dataclass
class Case:
    """A live tree that has changed since its set was taken, and that set, staged. `before` and `changed` are the two sides."""

    root: Path
    store: FilesStore
    folder: Path
    record: StoreRecord
    place: Facts
    before: dict[bytes, Any]
    changed: dict[bytes, Any]

    def side(self, *, killed: bool = False) -> str:
        """Which side is live: old, new, or a mix of both. What is excluded has to be there in any case.

        After a kill the times of directories that something excluded was moved from or to may be those of the move.
        """
        now, before, changed = (_untimed(each) if killed else each for each in (covered(self.root), self.before, self.changed))
        excluded = {inner: (self.root / inner / "kept").read_text() for inner in EXCLUDED}
        assert excluded == dict.fromkeys(EXCLUDED, "latest"), "what is excluded stays as it is"
        return "new" if now == before else "old" if now == changed else f"mixed: {now.keys() ^ before.keys()}"


def covered(root: Path) -> dict[bytes, Any]:
    """All that is covered, without directories that only lead to something excluded, and without times that moving things changes."""
    excluded = tuple(os.fsencode(inner) for inner in EXCLUDED)
    leading = {b"only-live", b"processed"}
    found = snapshot(root)
    return {inner: _lasting(what) for inner, what in found.items() if not inner.startswith(excluded) and inner not in leading}


def _lasting(what: tuple[Any, ...]) -> tuple[Any, ...]:
    mode, uid, gid, mtime, contents, _, xattrs = what
    return (mode, uid, gid, mtime, contents, xattrs)


def _untimed(side: dict[bytes, Any]) -> dict[bytes, Any]:
    return {inner: (*what[:3], None, *what[4:]) if inner in (b"raw", b"processed/markdown") else what for inner, what in side.items()}


def make_case(room: Path, include: tuple[str, ...]) -> Case:
    root = room / "live"
    for inner in ("raw", "raw/deep", "processed/markdown", "cache", "raw/cache", "processed/markdown/tmp", "gone"):
        (root / inner).mkdir(parents=True, exist_ok=True)
    for inner in ("raw/1.pdf", "raw/deep/2.pdf", "processed/markdown/1.md", "index.json", "gone/x"):
        (root / inner).write_text(f"first {inner}")
    for inner in EXCLUDED[:3]:
        (root / inner / "kept").write_text("earlier")
    store = store_at(root, room, include=[*include, *(["only-live"] if include else [])], exclude=EXCLUDED)
    folder, record = take(store, room / "sets")
    before = covered(root)
    (root / "raw/1.pdf").write_text("second")
    (root / "raw/new.pdf").write_text("second")
    (root / "index.json").write_text("second, longer")
    shutil.rmtree(root / "gone")
    (root / "only-live" / "cache").mkdir(parents=True)
    (root / "only-live" / "x").write_text("second")
    (root / "late").write_text("only live")
    for inner in EXCLUDED:
        (root / inner / "kept").write_text("latest")
    place = store.place(TOKEN, None)
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    return Case(root, store, folder, record, place, before, covered(root))


def dies_at(number: int, action: Callable[[], object]) -> bool:
    """Run an action in a child that dies, as by SIGKILL, before its `number`-th change of a name. Whether it died."""

    def run() -> None:
        count = iter(range(1_000_000))

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*words: Any, **more: Any) -> Any:
                if next(count) == number:
                    os._exit(KILLED)
                return real(*words, **more)

            return call

        for name in OPERATIONS:
            setattr(os, name, dying(getattr(os, name)))
        durable.exchange = dying(durable.exchange)
        action()

    code = in_child(run)
    assert code in (0, KILLED)
    return code == KILLED


def cannot_exchange(first: Path, second: Path) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(first), None, str(second))

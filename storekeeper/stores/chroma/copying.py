"""A private copy of a live directory in two passes: everything while writers work, then what changed since while they wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from storekeeper.host import clock, durable, load
from storekeeper.host.aside import Aside
from storekeeper.host.hashing import Hashers, Sum
from storekeeper.outcomes import Failed
from storekeeper.stores import rawcopy
from storekeeper.stores.chroma import index, layout
from storekeeper.stores.chroma.layout import Found

PATIENCE_S = 8.0  # less than the lock's cap: a directory that does not come to rest is said to be just that
_PAUSE_S = 0.02
_CopyFile = Callable[[Path, Path], int]
_WRITING_NS = 1_000_000_000  # an index whose map is older than its vectors is being written, if that was a moment ago


class Copy:
    """The copy at `target` of the directory at `source`. `found` is what stands in it, as it was in the source; `sums` are those of
    its files, as far as they are known."""

    def __init__(self, source: Path, target: Path, *, with_database: bool) -> None:
        self.found: dict[str, Found] = {}
        self.sums: dict[str, Sum] = {}
        self._source = source
        self._target = target
        self._with_database = with_database
        self._final: set[str] = set()  # copied under the lock, so that nobody can have changed it since

    def first_pass(self, at_rest: Callable[[], None] = lambda: None) -> None:
        """Copy everything, whatever changes meanwhile: what is copied again under the lock is then little.

        What is at rest is hashed and written to disk by threads, which have ended when this returns; `at_rest` is called when the
        SQLite file was, and has been copied. Threads copy as well: they may be lowered, and the caller, whom writers will wait for, not.
        """
        with Hashers() as hashers, Aside() as aside, load.lowered_threads(1) as syncing:
            hashing, written = {}, []
            for entry in self._follow(lambda source, target: aside.do(rawcopy.copy_file, source, target)):
                if not entry.settled or entry.path not in self.found:
                    continue
                target = self._target / entry.path
                hashing[entry.path] = hashers.start(os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                written.append(syncing.submit(durable.sync_file, target))
                if entry.path == layout.DATABASE:
                    at_rest()
            self.sums = {path: each.result(lambda _: None) for path, each in hashing.items()}
            for each in written:
                each.result()  # the kernel tells a failed write once, and then no more

    def under_lock(self, patience_s: float = PATIENCE_S) -> None:
        """Bring the copy to what the directory holds now. The caller holds the write lock of the SQLite file.

        An index that Chroma is writing out is waited for: it ends by itself, since what comes after it needs the lock.
        Raises Failed when an index goes on changing, or stays half written, for `patience_s`.
        """
        deadline = clock.monotonic() + patience_s
        while moving := [entry.path for entry in self._follow() if entry.path not in self._final] or self._half_written():
            if clock.monotonic() > deadline:
                raise Failed(
                    f"{self._source}: {moving[0]} did not come to rest within {patience_s:g} s while writers waited",
                    next="back up when fewer documents are being written; after a crash, see whether Chroma still reads the directory",
                )
            time.sleep(_PAUSE_S)

    def _follow(self, unlocked: _CopyFile | None = None) -> Iterator[Found]:
        """Copy what is not the same as when it was last copied, the SQLite file first, and forget what is gone.

        What copies a file is given while the lock is not held.

        Yields each file that was copied, or has to be: under the lock all of them have to be looked at again, but the SQLite file.
        """
        now = self._scan()
        for path in [path for path in self.found if path not in now]:
            self._forget(path)
        for path, entry in sorted(now.items(), key=lambda item: item[0] != layout.DATABASE):
            if path in self._final or _is_same(self.found.get(path), entry):
                continue
            if unlocked is not None or entry.settled or path == layout.DATABASE:
                self._copy(entry, unlocked or rawcopy.copy_file)
            if unlocked is None and path == layout.DATABASE:
                self._final.add(path)
            if entry.is_file:
                yield entry

    def _copy(self, entry: Found, copy_file: _CopyFile) -> None:
        source, target = self._source / entry.path, self._target / entry.path
        self.sums.pop(entry.path, None)
        try:
            if entry.is_file:
                target.unlink(missing_ok=True)  # whoever still reads the copy before must not see it change, or end
                copy_file(source, target)
            elif entry.path not in self.found:
                os.mkdir(target, durable.PRIVATE_DIRECTORY)
        except FileNotFoundError:
            self._forget(entry.path)  # its segment was deleted a moment ago: the next look does not list it
        except OSError as error:
            raise Failed(f"{source} could not be copied: {error.strerror}") from error
        else:
            self.found[entry.path] = entry

    def _forget(self, path: str) -> None:
        entry = self.found.pop(path, None)
        self.sums.pop(path, None)
        for below in [each for each in self.found if each.startswith(path + "/")]:
            self._forget(below)
        target = self._target / path
        if entry is not None and not entry.is_file:
            target.rmdir()
        else:
            target.unlink(missing_ok=True)

    def _half_written(self) -> list[str]:
        """Segments that are being written: their map is older than their vectors, or knows another number of them."""
        now_ns = time.time_ns()
        return [
            folder for folder in self._segments() if self._is_being_written(folder, now_ns) or not index.is_settled(self._target / folder)
        ]

    def _segments(self) -> list[str]:
        return [path.rpartition("/")[0] for path in self.found if path.endswith(f"/{layout.PICKLE}")]

    def _is_being_written(self, folder: str, now_ns: int) -> bool:
        times = {name: self.found[f"{folder}/{name}"].mtime_ns for name in layout.INDEX_FILES if f"{folder}/{name}" in self.found}
        newest = max(times.values())
        return times[layout.PICKLE] < newest and abs(now_ns - newest) < _WRITING_NS

    def _scan(self) -> dict[str, Found]:
        try:
            found = layout.scan(self._source)
        except layout.NotRegular as error:
            raise Failed(f"{self._source} holds {error}, which is neither a file nor a directory") from error
        except OSError as error:
            raise Failed(f"{self._source} cannot be read: {error.strerror}") from error
        if not self._with_database:
            found.pop(layout.DATABASE, None)
        return found


def _is_same(copied: Found | None, now: Found) -> bool:
    if copied is None or copied.is_file != now.is_file:
        return False
    return not now.is_file or (copied.source == now.source and copied.settled)

"""Trees of files in a set: stored as files, with one JSON object a line for each entry in a listing.

A file whose source has not changed since the set before is a hard link to it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from storekeeper.host import durable, load
from storekeeper.host.hashing import Hashers, Hashing, Sum
from storekeeper.host.syncing import Unsynced
from storekeeper.host.tree import parent_of
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.sealing import CHUNK, Progress, seal_open, write_sparse

_AHEAD = 64  # files of a tree that may wait for their sum


def source_of(status: os.stat_result) -> dict[str, int]:
    """What identifies an unchanged source file: all four must be equal for it to count as unchanged."""
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}


def is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Whether a later write must give the file another ctime: not while the clock that stamps files may still say the same.

    Kernels stamp with the last tick, at most 10 ms old; a whole second means a file system that keeps no fractions.
    """
    grain = 2_000_000_000 if status.st_ctime_ns % 1_000_000_000 == 0 else 100_000_000
    return abs(now_ns - status.st_ctime_ns) > grain  # ahead: the clock was put back, and says another time as well


class TreeWriter:
    """Writes a tree entry by entry, in the order of `path` as bytes, so that memory stays flat at any number of files."""

    def __init__(
        self,
        listing: IO[bytes],
        content: Path,
        previous: PreviousTree | None,
        progress: Progress,
        hashers: Hashers,
        unsynced: Unsynced,
    ) -> None:
        self.bytes = 0
        self.listing_bytes = 0
        self.linked = 0
        self._listing = listing
        self._content = str(content)
        self._previous = previous
        self._progress = progress
        self._hashers = hashers
        self._unsynced = unsynced
        self._waiting: deque[_Waiting] = deque()  # what is not listed yet, from the first file on that is still being hashed
        self._digest = hashlib.sha256()
        self._directories = {""}

    @property
    def listing_sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, entry: Mapping[str, Any]) -> None:
        """List something without contents of its own: a directory, a link, a special file, or one that vanished."""
        if self._waiting:
            self._waiting.append((entry, None))
        else:
            self._write(entry)

    def add_file(self, entry: Mapping[str, Any], source: IO[bytes]) -> dict[str, Any]:
        """Store an open regular file under `entry["path"]` and list it with `size` and `sha256`; returns the whole entry.

        `source` is listed where the next set may trust it to tell an unchanged file; `changed` where the file was written to
        while it was read, so that its contents may never have stood on disk together.
        """
        path = str(entry["path"])
        before, now_ns = os.fstat(source.fileno()), time.time_ns()
        identity = source_of(before)
        target = self._target(path)
        known = self._previous.find(path) if self._previous else None
        if known is not None and known.get("source") == identity and _link(self._previous_file(path), target):
            sha256, size = str(known["sha256"]), int(known["size"])
            self.linked += 1
            self._progress(size)
        else:
            sha256, size = self._copy(source, target, path, before.st_size)
        self.bytes += size
        whole = {**entry, "size": size, "sha256": sha256}
        if source_of(os.fstat(source.fileno())) != identity:
            whole["changed"] = True
        elif is_settled(before, now_ns):
            whole["source"] = identity
        self.add(whole)
        return whole

    def add_copied(self, entry: Mapping[str, Any], copied: Path, source: Mapping[str, int] | None = None, known: Sum | None = None) -> None:
        """The same for a private copy on the set's file system, which is moved in at once. `source` identifies the file that it was
        made from; None where that identity would not tell a later write. `known` is its sum, where it was hashed as it is now.

        Threads hash it and make it durable while the caller goes on; it is listed, in its turn, when they have.
        """
        path = str(entry["path"])
        target = self._target(path)
        if source is not None:
            entry = {**entry, "source": dict(source)}
        before = self._previous.find(path) if self._previous else None
        if before is not None and source is not None and before.get("source") == source and _link(self._previous_file(path), target):
            copied.unlink()
            self.linked += 1
            self.bytes += int(before["size"])
            self._progress(int(before["size"]))
            self.add({**entry, "size": int(before["size"]), "sha256": str(before["sha256"])})
            return
        os.rename(copied, target)
        opened = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._waiting.append((entry, self._hashers.start(opened, seal_open, known)))
        self.settle(_AHEAD)

    def settle(self, ahead: int = 0) -> None:
        """List what was added, but for the last `ahead` entries, which may still be hashed."""
        while len(self._waiting) > ahead or (self._waiting and self._waiting[0][1] is None):
            entry, hashing = self._waiting.popleft()
            if hashing is not None:
                sha256, size = hashing.result(self._progress)
                self.bytes += size
                entry = {**entry, "size": size, "sha256": sha256}
            self._write(entry)

    def sync_directories(self) -> None:
        for directory in self._directories:
            durable.sync_directory(Path(self._content, directory))

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = to_line(entry)
        self._listing.write(line)
        self._digest.update(line)
        self.listing_bytes += len(line)

    def _copy(self, source: IO[bytes], target: str, name: str, limit: int) -> tuple[str, int]:
        """Copy at most `limit` bytes: a file that grows as fast as it is read would never end."""
        digest, size = hashlib.sha256(), 0
        with open(target, "xb", buffering=0) as file:
            while chunk := source.read(min(load.piece(CHUNK), limit - size)):
                write_sparse(file, chunk)
                digest.update(chunk)
                size += len(chunk)
                self._progress(len(chunk))
                load.spend(len(chunk))
            file.truncate(size)
            os.fchmod(file.fileno(), durable.SEALED_FILE)
            self._unsynced.add(file.fileno(), name, size)
        return digest.hexdigest(), size

    def _target(self, path: str) -> str:
        """Where a path's contents go, in directories that are there."""
        missing, folder = [], parent_of(path)
        while folder not in self._directories:
            missing.append(folder)
            folder = parent_of(folder)
        for each in reversed(missing):
            os.mkdir(f"{self._content}/{each}", durable.PRIVATE_DIRECTORY)
            self._directories.add(each)
        return f"{self._content}/{path}"

    def _previous_file(self, path: str) -> str:
        if self._previous is None:
            raise ValueError("there is no previous tree")
        return f"{self._previous.content}/{path}"


_Waiting = tuple[Mapping[str, Any], Hashing | None]


class PreviousTree:
    """The listing of the set before, read in step with a walk: both are sorted by path.

    From where it does not read, it shares nothing: what is not shared is copied, so rot in an older set costs room and no backup.
    """

    def __init__(self, entries: Iterator[dict[str, Any]], content: Path) -> None:
        self.content = str(content)
        self._entries = entries
        self._next = self._following()

    def find(self, path: str) -> dict[str, Any] | None:
        wanted = os.fsencode(path)
        while self._next is not None and os.fsencode(str(self._next["path"])) < wanted:
            self._next = self._following()
        if self._next is not None and self._next["path"] == path:
            return self._next
        return None

    def _following(self) -> dict[str, Any] | None:
        try:
            entry = next(self._entries, None)
        except (OSError, ValueError):
            return None
        return entry if entry is not None and isinstance(entry.get("path"), str) else None

    def holds(self, path: str, status: os.stat_result) -> bool:
        """Whether a file has not changed since it was listed, so that it would be shared."""
        known = self.find(path)
        return known is not None and known.get("source") == source_of(status)


@contextmanager
def previous_tree(folder: Path | None, listing: str, content: str) -> Iterator[PreviousTree | None]:
    """A store's tree in the set before; None where there is none to share with."""
    if folder is None or not (folder / listing).is_file():
        yield None
        return
    with closing(read_lines(folder / listing)) as entries:
        yield PreviousTree(entries, folder / content)


def _link(source: str, target: str) -> bool:
    """Hard-link where the file system can: not across devices, not past its limit of links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        return False
    return True

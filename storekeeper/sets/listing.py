"""Very many sets, told one by one: read from their manifests once, then from a copy in the state directory.

The copy has a line for each set, used while its manifest and its folder of records are the same files as when the line was
made. Only what is shown comes from it. What is restored, verified, kept or removed is decided from the sets themselves
(`StackSets.entries`), so that a wrong copy costs nothing but a wrong line.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from storekeeper import __version__
from storekeeper.host import durable
from storekeeper.host.clock import parse_rfc3339, rfc3339
from storekeeper.sets.entry import SetEntry, read_set
from storekeeper.sets.manifest import MANIFEST, Manifest
from storekeeper.sets.names import SetId, parse_id, read_id
from storekeeper.sets.records import Pin
from storekeeper.sets.stacksets import StackSets

COPY = "listing"
_FORMAT = 1
_GRAIN_NS = 2_000_000_000  # a file of this very moment may change once more without another time
_IN_MEMORY = 8 << 20  # bytes; some 10,000 sets
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

Tell = Callable[[Manifest | None], Any]  # JSON-able: what is told of a set beside its entry


@dataclass(frozen=True)
class Listed:
    """A set, and what was told of its manifest, as JSON text."""

    entry: SetEntry
    told: str


class Listing:
    """The sets of a stack as they are now, oldest first. Each pass over it reads them anew from a file: none stays in memory."""

    def __init__(self, sets: StackSets, tell: Tell) -> None:
        self._sets = sets
        self._tell = tell
        self._reads = 0
        self._count = 0
        self._file = self._brought_up_to_date()
        weakref.finalize(self, self._file.close)

    @property
    def reads(self) -> int:
        """How many manifests had to be read."""
        return self._reads

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Listed]:
        self._file.seek(0)
        next(self._file)
        for line in self._file:
            name, _, summary, told = line.decode("ascii").rstrip("\n").split("\t")
            yield Listed(_entry(self._sets, name, json.loads(summary)), told)

    def _brought_up_to_date(self) -> IO[bytes]:
        """The copy, where every line of it still holds; else a new one, in its place where this process may write there."""
        path = self._sets.state / COPY
        old = _opened(path)
        if old is not None and self._still_holds(old):
            return old
        new = _nameless(path.parent)
        try:
            self._write(new, _OldLines(old))
        except OSError:  # no room even for this: it is told all the same, and the next look reads again
            with contextlib.suppress(OSError):  # it would write the rest
                new.close()
            new = cast("IO[bytes]", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 the caller's
            self._write(new, _OldLines(old))
        else:
            with contextlib.suppress(OSError):  # somebody who may only look: the next look reads again
                _put(new, path)
        if old is not None:
            old.close()
        return new

    def _write(self, new: IO[bytes], lines: _OldLines) -> None:
        new.write(_head())
        self._count = 0
        for name, set_id in self._sets.names():
            stamp = _stamp(self._sets, name)
            line = lines.of(name, set_id.sequence, stamp) or self._read(name, set_id, stamp)
            if line is not None:
                new.write(line)
                self._count += 1
        new.flush()

    def _still_holds(self, old: IO[bytes]) -> bool:
        """Whether the copy has a line for each set, made of the files that are there now, and no other line."""
        count = 0
        for name, _ in self._sets.names():
            line = next(old, b"")
            parts = line.split(b"\t", 2)
            if len(parts) != 3 or not line.endswith(b"\n") or parts[0] != name.encode() or parts[1] != _stamp(self._sets, name):
                return False
            count += 1
        self._count = count
        return next(old, None) is None

    def _read(self, name: str, set_id: SetId, stamp: bytes) -> bytes | None:
        """A new line; None for a set that was removed meanwhile."""
        self._reads += 1
        entry, manifest = read_set(self._sets.path / name, set_id, self._sets.stack, self._sets.records)
        if not entry.has_manifest and not entry.path.is_dir():
            return None
        texts = (json.dumps(_summary(entry)), json.dumps(self._tell(manifest)))
        return b"\t".join((name.encode(), stamp, *(text.encode("ascii") for text in texts))) + b"\n"


class _OldLines:
    """The lines of a copy that does not hold any more, asked for by name in the order in which they stand there."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._lines: Iterator[bytes] = iter(())
        if file is not None:
            file.seek(0)
            next(file, None)
            self._lines = iter(file)
        self._line = next(self._lines, None)

    def of(self, name: str, sequence: int, stamp: bytes) -> bytes | None:
        """The line of a set, if it was made of the files that are there now."""
        while self._line is not None and _sequence(self._line) < sequence:
            self._line = next(self._lines, None)
        line = self._line
        if line is None or not line.startswith(name.encode() + b"\t" + stamp + b"\t") or line.count(b"\t") != 3:
            return None
        return line if line.endswith(b"\n") else None


def _sequence(line: bytes) -> int:
    """Of a line's set; below all of them for a line that is none."""
    found = read_id(line.partition(b"\t")[0].decode("ascii", "replace"))
    return found.sequence if found else -1


def _stamp(sets: StackSets, name: str) -> bytes:
    """What tells whether a line still holds: which files it was made of. One of its own for files that may change unseen."""
    newest = 0
    said = []
    for path in (f"{sets.path}/{name}/{MANIFEST}", f"{sets.records.folder}/{name}"):
        try:
            status = os.lstat(path)
        except OSError:
            said.append("-")
            continue
        newest = max(newest, status.st_ctime_ns)
        said.append(f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}")
    if abs(time.time_ns() - newest) < _GRAIN_NS:
        said.append(os.urandom(8).hex())
    return " ".join(said).encode("ascii")


def _summary(entry: SetEntry) -> list[Any]:
    pin = entry.pinned
    return [
        entry.state,
        entry.bytes,
        entry.reason,
        *(None if moment is None else rfc3339(moment) for moment in (entry.verified_at, entry.proven_at)),
        None if pin is None else [pin.reason, None if pin.until is None else rfc3339(pin.until)],
        entry.readable,
        entry.has_manifest,
    ]


def _entry(sets: StackSets, name: str, summary: list[Any]) -> SetEntry:
    state, size, reason, verified_at, proven_at, pin, readable, has_manifest = summary
    found = parse_id(name)
    return SetEntry(
        id=name,
        sequence=found.sequence,
        time=found.time,
        path=sets.path / name,
        stack=sets.stack,
        state=state,
        bytes=size,
        reason=reason,
        verified_at=_moment(verified_at),
        proven_at=_moment(proven_at),
        pinned=None if pin is None else Pin(pin[0], _moment(pin[1])),
        readable=readable,
        has_manifest=has_manifest,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else parse_rfc3339(text)


def _head() -> bytes:
    """The first line: a copy of another version of the program tells other things."""
    return f"storekeeper {__version__} listing {_FORMAT}\n".encode("ascii")


def _opened(path: Path) -> IO[bytes] | None:
    """The copy, after its first line; None where there is none, or one that somebody else could have written."""
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")  # noqa: SIM115 the caller's
    except OSError:
        return None
    status = os.fstat(file.fileno())
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
    if is_ours and file.readline(200) == _head():
        return file
    file.close()
    return None


def _nameless(folder: Path) -> IO[bytes]:
    """A file without a name, where the copy can be made of it if this process may write there. Nothing is left of it otherwise."""
    try:
        return open(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, durable.PRIVATE_FILE), "w+b")
    except OSError:
        return tempfile.TemporaryFile()


def _put(new: IO[bytes], path: Path) -> None:
    """Give the new copy its name, whole: it is linked from the nameless file that it was written as."""
    os.fsync(new.fileno())
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(new.fileno()), beside, src_dir_fd=descriptors, follow_symlinks=True)  # only so is the link followed: linkat(2)
    finally:
        os.close(descriptors)
    os.rename(beside, path)

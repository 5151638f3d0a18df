"""Reading a set back: every artefact, and every file that an artefact lists, against the size and sha256 written down.

Each file is read once, in chunks, and nothing is kept of it, so memory is flat at any number of files. Large ones are hashed by
threads, a few files ahead of the one that is judged: what is found, and in which order, is the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from storekeeper.host import load
from storekeeper.host.hashing import Hashers, Hashing
from storekeeper.host.progress import Progress
from storekeeper.host.tree import is_below
from storekeeper.outcomes import Unknown
from storekeeper.sets.manifest import MANIFEST, Manifest
from storekeeper.sets.strangers import count_files, extra_files, is_directory, names_beside
from storekeeper.stores.lines import read_lines
from storekeeper.stores.record import Artefact, StoreRecord
from storekeeper.stores.sealing import CHUNK

FaultKind = Literal["truncated", "extended", "altered", "replaced", "missing", "extra", "irregular", "unreadable"]
Subset = tuple[int, int]

_LARGE = 1 << 20  # from here on a thread is worth its start
_AHEAD = 8  # files that may be open at once
_KEPT = 100  # faults that are told one by one; the rest is counted
_OTHERS = 0o077
_NOT_REGULAR = {errno.ELOOP, errno.ENXIO, errno.ENODEV}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Fault:
    """One thing in a set that is not as it was written. `path` is relative to the set; `sha256` is what was found instead."""

    store: str | None
    path: str
    kind: FaultKind
    message: str
    sha256: str | None = None


@dataclass
class Findings:
    """What reading back found: the first faults, how many there are in all, and how much was read."""

    faults: list[Fault] = field(default_factory=list)
    total: int = 0
    exposed: int = 0  # files and directories that others can reach, or that are not ours
    first_exposed: str | None = None
    files: int = 0
    bytes: int = 0


def check_artefacts(folder: Path, manifest: Manifest, progress: Progress, only: Collection[str] | None = None) -> list[Fault]:
    """Read back a set, or the stores of it that `only` names. Returns the first faults, none when all is as it was written.

    Raises Unknown where the right to read is missing.
    """
    return examine(folder, manifest, progress, only=only).faults


def examine(
    folder: Path,
    manifest: Manifest,
    progress: Progress,
    *,
    only: Collection[str] | None = None,
    subset: Subset | None = None,
    on_fault: Callable[[Fault], None] | None = None,
) -> Findings:
    """`check_artefacts`, with all that is known; `on_fault` is told of every fault, also of those that are only counted.

    With `subset` (n, t) the files of the n-th of t parts are hashed; of the others only the size is looked at.
    """
    with Hashers() as hashers:
        examination = _Examination(Path(os.path.realpath(folder)), progress, subset, on_fault, hashers)
        if only is None:
            examination.look_around({MANIFEST, *manifest.stores})
        for name, record in manifest.stores.items():
            if only is None or name in only:
                progress.step(name, "reading back", record.bytes)
                examination.read_store(name, record)
        return examination.findings


def look_around(folder: Path, manifest: Manifest) -> Findings:
    """What lies in the set's own directory and does not belong there; no store is read."""
    examination = _Examination(Path(os.path.realpath(folder)), Progress(), None, None, Hashers())
    examination.look_around({MANIFEST, *manifest.stores})
    return examination.findings


def belongs(path: str, subset: Subset) -> bool:
    """Whether a file is in the n-th of t parts: fixed by its name, so that t runs read every file once."""
    number, parts = subset
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big") % parts == number - 1


@dataclass
class _Started:
    """A file that is being compared: what was written down of it, and what is known so far."""

    path: str
    written: tuple[int, str]
    size: int = 0
    sha256: str | None = None
    hashing: Hashing | None = None
    not_opened: OSError | None = None
    not_read: OSError | None = None
    is_regular: bool = True


class _Examination:
    def __init__(
        self,
        folder: Path,
        progress: Progress,
        subset: Subset | None,
        on_fault: Callable[[Fault], None] | None,
        hashers: Hashers,
    ) -> None:
        self.findings = Findings()
        self._folder = str(folder)
        self._progress = progress
        self._subset = subset
        self._on_fault = on_fault
        self._hashers = hashers
        self._ahead: deque[_Started] = deque()
        self._store: str | None = None
        self._parent = ""  # the last directory that was found to be a real one

    def look_around(self, expected: Collection[str]) -> None:
        """What lies in the set's own directory beside its stores."""
        self._note_mode(self._folder, os.lstat(self._folder))
        self._find_extra(self._folder, expected)

    def read_store(self, name: str, record: StoreRecord) -> None:
        self._store = name
        path = f"{self._folder}/{name}"
        if not is_directory(path):
            self._fault(path, "missing", "its folder is missing")
        else:
            self._note_mode(path, os.lstat(path))
            names = [word for each in record.artefacts for word in (each.path, each.lists) if word is not None]
            self._find_extra(path, names)
            for artefact in record.artefacts:
                self._read_artefact(path, artefact)
            self._finish_ahead()
        self._store = None

    def _read_artefact(self, folder: str, artefact: Artefact) -> None:
        path = f"{folder}/{artefact.path}"
        if artefact.lists is None:
            self._read_ahead(path, artefact.size, artefact.sha256)
            return
        self._finish_ahead()
        # What lists others is always read whole: the others are judged by it.
        if not self._finish(self._start(path, artefact.size, artefact.sha256, always=True)):
            self._fault(f"{folder}/{artefact.lists}", "unreadable", f"its files could not be checked, for want of {artefact.path}")
            return
        try:
            self._read_listed(path, f"{folder}/{artefact.lists}")
        except (ValueError, KeyError, TypeError) as error:
            self._fault(path, "altered", f"cannot be read as a listing: {error}")

    def _read_listed(self, listing: str, content: str) -> None:
        present = 0
        for entry in read_lines(Path(listing)):
            if "sha256" not in entry:
                continue
            path = f"{content}/{_inner(str(entry['path']))}"
            if not self._is_real(os.path.dirname(path)):
                self._fault(path, "missing", "is missing: a link stands in its way")
                continue
            self._read_ahead(path, int(entry["size"]), str(entry["sha256"]))
            present += os.path.lexists(path)
        self._finish_ahead()
        if present != count_files(content):
            for extra in extra_files(Path(content), Path(listing)):
                self._fault(f"{content}/{extra}", "extra", "does not belong to the set")

    def _read_ahead(self, path: str, size: int, sha256: str) -> None:
        """Compare one file, a few files later."""
        self._ahead.append(self._start(path, size, sha256))
        self._finish_ahead(_AHEAD)

    def _finish_ahead(self, but: int = 0) -> None:
        while len(self._ahead) > but:
            self._finish(self._ahead.popleft())

    def _start(self, path: str, size: int, sha256: str, *, always: bool = False) -> _Started:
        """Open one file and, unless it is not in this run's part, begin to hash it."""
        started = _Started(path, (size, sha256))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            started.not_opened = error
            return started
        try:
            status = os.fstat(descriptor)
            started.size, started.is_regular = status.st_size, stat.S_ISREG(status.st_mode)
            if started.is_regular:
                self._note_mode(path, status)
                self.findings.files += 1
                if always or self._subset is None or belongs(self._relative(path), self._subset):
                    self._begin_hash(started, descriptor)
        except OSError as error:
            started.not_read = error
        finally:
            if started.hashing is None:
                os.close(descriptor)
        return started

    def _begin_hash(self, started: _Started, descriptor: int) -> None:
        if started.size >= _LARGE:
            started.hashing = self._hashers.start(descriptor)
        else:
            started.sha256 = self._hash(descriptor)

    def _finish(self, started: _Started) -> bool:
        """True when a file is as it was written, or not in this run's part and of the right size."""
        if started.not_opened is not None:
            return self._cannot_open(started.path, started.not_opened)
        try:
            if started.hashing is not None:
                started.sha256, _ = started.hashing.result(self._advance)
        except OSError as error:
            started.not_read = error
        if started.not_read is not None:
            return self._fault(started.path, "unreadable", f"cannot be read: {started.not_read.strerror}")
        if not started.is_regular:
            return self._fault(started.path, "irregular", "is no regular file")
        return self._compare(started.path, started.written, (started.size, started.sha256))

    def _compare(self, path: str, written: tuple[int, str], found: tuple[int, str | None]) -> bool:
        size, sha256 = found
        if size < written[0]:
            return self._fault(path, "truncated", f"is truncated: {size} of {written[0]} bytes", sha256)
        if size > written[0]:
            return self._fault(path, "extended", f"is longer than it was written: {size} bytes, not {written[0]}", sha256)
        if sha256 not in (None, written[1]):
            return self._fault(path, "altered", "is altered: its sha256 is not the one written down", sha256)
        return True

    def _hash(self, descriptor: int) -> str:
        digest = hashlib.sha256()
        while chunk := os.read(descriptor, load.piece(CHUNK)):
            digest.update(chunk)
            load.spend(len(chunk))
            self._advance(len(chunk))
        return digest.hexdigest()

    def _advance(self, count: int) -> None:
        self.findings.bytes += count
        self._progress.advance(count)

    def _cannot_open(self, path: str, error: OSError) -> bool:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return self._fault(path, "missing", "is missing")
        if error.errno in _NOT_REGULAR:
            return self._fault(path, "irregular", "is no regular file")
        if error.errno in _FORBIDDEN:
            raise Unknown(f"{self._relative(path)} cannot be read by user {os.geteuid()}: {error.strerror}", store=self._store) from error
        return self._fault(path, "unreadable", f"cannot be opened: {error.strerror}")

    def _find_extra(self, folder: str, expected: Collection[str]) -> None:
        for name in names_beside(folder, expected):
            self._fault(f"{folder}/{name}", "extra", "does not belong to the set")

    def _is_real(self, parent: str) -> bool:
        """Whether no part of a directory's path is a link, so that nothing outside the set is read. The last one found so is kept."""
        if parent != self._parent:
            if os.path.realpath(parent) != parent:
                return False
            self._parent = parent
        return True

    def _note_mode(self, path: str, status: os.stat_result) -> None:
        if status.st_mode & _OTHERS or status.st_uid != os.geteuid():
            self.findings.exposed += 1
            self.findings.first_exposed = self.findings.first_exposed or self._relative(path)

    def _fault(self, path: str, kind: FaultKind, what: str, sha256: str | None = None) -> bool:
        name = self._relative(path)
        fault = Fault(self._store, name, kind, f"{ascii(name)[1:-1]} {what}", sha256)
        self.findings.total += 1
        if len(self.findings.faults) < _KEPT:
            self.findings.faults.append(fault)
        if self._on_fault is not None:
            self._on_fault(fault)
        return False

    def _relative(self, path: str) -> str:
        return path[len(self._folder) + 1 :] or "."


def _inner(path: str) -> str:
    if not is_below(path):
        raise ValueError(f"it lists {path[:60]!a}, which is no path inside the set")
    return path

"""A set on its way from one host to another: its files one after the other in one stream, which says of itself where it ends.

    {"format": 1, "stack": "maestro", "id": "20260101T030000Z-000123", "bytes": 123}    a line of JSON
    {"path": "main/main.db", "size": 45}                                               one before each file, then its bytes
    {"end": "<sha256 of everything before this line>"}

No archive format: a set is files in directories, and nothing else can be said here. A stream that was cut off has no end.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.host.syncing import Unsynced
from storekeeper.host.tree import is_below
from storekeeper.outcomes import Failed, Refused
from storekeeper.sets.manifest import LARGEST, MANIFEST
from storekeeper.stores.sealing import CHUNK

FORMAT = 1
_LONGEST_LINE = 32_768  # bytes: a path of 4,096 in JSON's longest spelling, and its size


@dataclass(frozen=True)
class Label:
    """What a stream says it is. Nothing of it is believed before the manifest has been."""

    stack: str
    id: str
    bytes: int


def send(folder: Path, label: Label, write: Callable[[bytes], object], progress: Progress) -> None:
    """Write a set's files to a stream, the manifest first. Raises Failed for one that is no regular file, or is not what it was."""
    digest = hashlib.sha256()

    def tell(data: bytes) -> None:
        digest.update(data)
        write(data)

    tell(_line({"format": FORMAT, "stack": label.stack, "id": label.id, "bytes": label.bytes}))
    progress.step(None, "sending", label.bytes)
    for path in [MANIFEST, *(each for each in _files(folder) if each != MANIFEST)]:
        try:
            _send_file(folder / path, path, tell, progress)
        except Failed as error:
            error.next = f"storekeeper verify {label.stack} {label.id}"
            raise
    write(_line({"end": digest.hexdigest()}))


class Incoming:
    """A stream that brings a set of this stack. Raises Refused for one that is none, another stack's, or of another format."""

    def __init__(self, stream: BinaryIO, stack: str) -> None:
        self._digest = hashlib.sha256()
        self._stream = stream
        self.label = _label(self._line())
        if self.label.stack != stack:
            raise Refused(f"what is sent is a set of {ascii(self.label.stack)[:60]}, not of {stack}")

    def receive(self, into: Path, progress: Progress) -> bytes:
        """Write the files into an empty private directory, all but the manifest, which is returned. They are durable then.

        Raises Failed for a stream that was cut off or altered, or that names a file where none of a set's can be.
        """
        progress.step(None, "receiving", self.label.bytes)
        manifest = None
        with Unsynced() as unsynced:
            for path, size in self._announced():
                if path == MANIFEST and manifest is None:
                    manifest = self._manifest(size)
                else:
                    self._write(into, path, size, unsynced, progress)
        if manifest is None:
            raise Failed("the set that was sent has no manifest")
        for root, _, _ in os.walk(into):
            durable.sync_directory(Path(root))
        return manifest

    def _announced(self) -> Iterator[tuple[str, int]]:
        """Each file that comes next, up to the end, which must be that of what was read."""
        while True:
            digest = self._digest.hexdigest()
            line = self._line()
            if "end" in line:
                if line["end"] != digest:
                    raise Failed("the set was altered on its way: nothing of it is kept")
                return
            yield _file(line)

    def _line(self) -> dict[str, Any]:
        data = self._stream.readline(_LONGEST_LINE)
        if not data.endswith(b"\n"):
            raise Failed("the set was cut off on its way: nothing of it is kept")
        self._digest.update(data)
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused("what is sent is no set")
        return found

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._stream.read(min(size, CHUNK))
            if not data:
                raise Failed("the set was cut off on its way: nothing of it is kept")
            self._digest.update(data)
            size -= len(data)
            yield data

    def _manifest(self, size: int) -> bytes:
        if size > LARGEST:
            raise Failed(f"the manifest that was sent has {size} bytes, more than the {LARGEST} that are read")
        return b"".join(self._pieces(size))

    def _write(self, into: Path, path: str, size: int, unsynced: Unsynced, progress: Progress) -> None:
        target = into / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=durable.PRIVATE_DIRECTORY)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, durable.SEALED_FILE)
        except OSError as error:
            if not isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
                raise
            raise Failed(f"the set that was sent names {ascii(path)[1:-1]} twice") from None
        with open(descriptor, "wb", buffering=0) as file:
            for data in self._pieces(size):
                _write_all(file, data)
                progress.advance(len(data))
            unsynced.add(descriptor, path, size)


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files of a set, in an order that does not change."""
    for root, directories, names in os.walk(folder):
        directories.sort()
        for name in sorted(names):
            yield os.path.relpath(os.path.join(root, name), folder)


def _send_file(file: Path, path: str, tell: Callable[[bytes], None], progress: Progress) -> None:
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Failed(f"{ascii(path)[1:-1]} is no regular file: the set is not sent")
        tell(_line({"path": path, "size": status.st_size}))
        left = status.st_size
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                raise Failed(f"{ascii(path)[1:-1]} became shorter while it was sent")
            tell(data)
            left -= len(data)
            progress.advance(len(data))


def _label(line: dict[str, Any]) -> Label:
    if line.get("format") != FORMAT:
        raise Refused(
            f"what is sent has the format {ascii(line.get('format'))[:20]}, this program reads {FORMAT}: use one version on both hosts"
        )
    stack, set_id, count = line.get("stack"), line.get("id"), line.get("bytes")
    if not isinstance(stack, str) or not isinstance(set_id, str) or not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Refused("what is sent is no set")
    return Label(stack, set_id, count)


def _file(line: dict[str, Any]) -> tuple[str, int]:
    path, size = line.get("path"), line.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Refused("what is sent is no set")
    if not isinstance(path, str) or not is_below(path) or "\0" in path or path.startswith("."):
        raise Failed(f"the set that was sent names a file at {ascii(path)[:80]}, where none of a set's can be")
    return path, size


def _line(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=True) + "\n").encode("ascii")

"""A store's folder in a set that is being made: what is written here is hashed while it is written, fsynced, and sealed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from storekeeper.host import durable, load
from storekeeper.host.hashing import Hashers
from storekeeper.host.syncing import Unsynced
from storekeeper.stores.record import Artefact
from storekeeper.stores.sealing import Chunks, Progress, seal, seal_open, sha256_of, write_all
from storekeeper.stores.trees import TreeWriter, previous_tree


class StoreFolder:
    """Where one store's artefacts of one set are written. `previous` is the same store's folder in the last good set."""

    def __init__(self, path: Path, previous: Path | None, progress: Progress) -> None:
        self.path = path
        self._previous = previous
        self._progress = progress
        self._artefacts: list[Artefact] = []
        self._listed_bytes = 0

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        return tuple(self._artefacts)

    @property
    def bytes(self) -> int:
        return sum(artefact.size for artefact in self._artefacts) + self._listed_bytes

    def write(self, name: str, chunks: Chunks) -> Artefact:
        """Write a stream as one artefact."""
        with self.beside(name) as writing:
            writing.write(chunks, self._progress)
            return writing.keep()

    @contextmanager
    def beside(self, name: str) -> Iterator[Writing]:
        """The same for a stream that a thread stores while the caller does other things. The file is made at once, by the caller."""
        with open(self._inside(name), "xb", buffering=0) as file:
            yield Writing(name, file, self._record)

    def adopt(self, source: Path, name: str) -> Artefact:
        """Move a file of the same file system in as an artefact, without copying it."""
        target = self._inside(name)
        sha256, size = sha256_of(source)
        os.rename(source, target)
        seal(target)
        self._progress(size)
        return self._record(Artefact(name, size, sha256))

    @contextmanager
    def tree(self, listing: str, content: str) -> Iterator[TreeWriter]:
        """Write a listing and the files that it lists, in the folder `content`."""
        durable.make_directory(self.path / content)
        with (
            previous_tree(self._previous, listing, content) as previous,
            open(self.path / listing, "xb") as file,
            Hashers() as hashers,
            Unsynced() as unsynced,
        ):
            writer = TreeWriter(file, self.path / content, previous, self._progress, hashers, unsynced)
            yield writer
            writer.settle()
            file.flush()
            seal_open(file.fileno())
        writer.sync_directories()
        self._listed_bytes += writer.bytes
        self._record(Artefact(listing, writer.listing_bytes, writer.listing_sha256, lists=content))

    def advance(self, count: int) -> None:
        """Tell of bytes that a thread has written."""
        self._progress(count)

    def seal(self) -> None:
        """Make the folder itself durable. Called once, after the last artefact."""
        durable.sync_directory(self.path)

    def _inside(self, name: str) -> Path:
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"an artefact is named by one word, not {name!r}")
        return self.path / name

    def _record(self, artefact: Artefact) -> Artefact:
        self._artefacts.append(artefact)
        return artefact


class Writing:
    """One artefact on its way: `size` bytes of it are there."""

    def __init__(self, name: str, file: IO[bytes], record: Callable[[Artefact], Artefact]) -> None:
        self.size = 0
        self._name = name
        self._file = file
        self._digest = hashlib.sha256()
        self._record = record

    def write(self, chunks: Chunks, progress: Progress = lambda _: None) -> None:
        """Write the stream to its end, and make it durable."""
        for chunk in chunks:
            write_all(self._file, chunk)
            self._digest.update(chunk)
            self.size += len(chunk)
            progress(len(chunk))
            load.spend(len(chunk))
        seal_open(self._file.fileno())

    def keep(self) -> Artefact:
        """Record it as an artefact of the set. For the caller, once it is written."""
        return self._record(Artefact(self._name, self.size, self._digest.hexdigest()))

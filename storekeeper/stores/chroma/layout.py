"""A Chroma directory as files: one SQLite database, and one folder of HNSW files for each vector segment."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storekeeper.stores.databases import SUFFIXES
from storekeeper.stores.trees import is_settled, source_of

DATABASE = "chroma.sqlite3"
PICKLE = "index_metadata.pickle"
HEADER = "header.bin"
VECTORS = "data_level0.bin"
LENGTHS = "length.bin"
LINKS = "link_lists.bin"
INDEX_FILES = (VECTORS, HEADER, LENGTHS, LINKS, PICKLE)

OURS = ".storekeeper-"  # what a restore into a mount point leaves inside the directory while it works
_TEMPORARY = {DATABASE + suffix for suffix in SUFFIXES}


@dataclass(frozen=True)
class Found:
    """One entry of the directory; `path` is relative. `source` identifies an unchanged file, None for what is no file.

    `settled` is False while a later write might leave the same `source` behind.
    """

    path: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    source: dict[str, int] | None
    settled: bool

    @property
    def is_file(self) -> bool:
        return self.source is not None

    @property
    def size(self) -> int:
        return 0 if self.source is None else self.source["size"]


class NotRegular(Exception):
    """The directory holds something that is neither a file nor a directory; its path is the message."""


def scan(root: Path) -> dict[str, Found]:
    """Every entry by its path, without SQLite's own temporary files. What vanishes while it is looked at is left out.

    Raises NotRegular for links and special files, OSError when the directory cannot be read.
    """
    return {entry.path: entry for entry in _walk(root, "")}


def look(root: Path, path: str) -> Found | None:
    """One entry, None when there is none. Raises as `scan` does."""
    try:
        return _found(path, os.lstat(root / path))
    except FileNotFoundError:
        return None


def size_of(entries: dict[str, Found]) -> int:
    return sum(entry.size for entry in entries.values())


def _walk(root: Path, folder: str) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(root / folder))
    except FileNotFoundError:
        if not folder:
            raise
        return  # a segment was deleted a moment ago
    for name in names:
        if not folder and (name in _TEMPORARY or name.startswith(OURS)):
            continue
        path = f"{folder}/{name}" if folder else name
        entry = look(root, path)
        if entry is None:
            continue
        yield entry
        if not entry.is_file:
            yield from _walk(root, path)


def _found(path: str, status: os.stat_result) -> Found:
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise NotRegular(path)
    source = source_of(status) if stat.S_ISREG(status.st_mode) else None
    settled = is_settled(status, time.time_ns())
    return Found(path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, source, settled)

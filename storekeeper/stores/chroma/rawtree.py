"""A Chroma directory that cannot be read, as the files that it is: SQLite's own journal and log among them, nothing decoded."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma import layout
from storekeeper.stores.chroma.dumping import CONTENT, DIRECTORY, FILE, LISTING, root_of
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Facts
from storekeeper.stores.trees import source_of

OTHER = "other"  # the `type` of what is neither a file nor a directory: it is listed and not copied

_Found = dict[str, os.stat_result]


def bytes_of(live: Path) -> int:
    """Raises Failed when the directory cannot be looked at."""
    return sum(status.st_size for status in _scan(live).values() if stat.S_ISREG(status.st_mode))


def copy(live: Path, into: StoreFolder) -> Facts:
    """Copy every file. Raises Failed when one cannot be read or somebody writes meanwhile."""
    before = _scan(live)
    with into.tree(LISTING, CONTENT) as tree:
        for path, status in before.items():
            entry = _listed(path, status)
            if entry["type"] != FILE:
                tree.add(entry)
                continue
            try:
                with open(live / path, "rb", buffering=0) as source:
                    tree.add_file(entry, source)
            except OSError as error:
                raise Failed(f"not even the bytes of {live / path} can be copied: {error.strerror}") from error
    if _identities(_scan(live)) != _identities(before):
        raise Failed(f"{live} was written to while its files were copied: stop what uses it")
    return {"root": root_of(live)}


def _scan(live: Path) -> _Found:
    """Everything in the directory by its path, sorted as a listing is."""
    try:
        found = {path: os.lstat(live / path) for path in _walk(live, "")}
    except OSError as error:
        raise Failed(f"{live} cannot be looked at: {error.filename}: {error.strerror}") from error
    return dict(sorted(found.items(), key=lambda item: os.fsencode(item[0])))


def _walk(live: Path, folder: str) -> Iterator[str]:
    for name in os.listdir(live / folder):
        path = f"{folder}/{name}" if folder else name
        if not path.startswith(layout.OURS):
            yield path
            if (live / path).is_dir() and not (live / path).is_symlink():
                yield from _walk(live, path)


def _listed(path: str, status: os.stat_result) -> dict[str, Any]:
    kind = FILE if stat.S_ISREG(status.st_mode) else DIRECTORY if stat.S_ISDIR(status.st_mode) else OTHER
    mode = stat.S_IMODE(status.st_mode)
    return {"path": path, "type": kind, "mode": mode, "uid": status.st_uid, "gid": status.st_gid, "mtime_ns": status.st_mtime_ns}


def _identities(found: _Found) -> dict[str, dict[str, int]]:
    return {path: source_of(status) for path, status in found.items()}

"""A look at a tree of files: how many and how large, and what of it cannot be read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from storekeeper.host.tree import Tree, opened
from storekeeper.stores.examination import Examination
from storekeeper.stores.files.listing import is_gone, shown, walk
from storekeeper.stores.files.scope import Scope

_FIRST = 4096  # bytes of each file that are read


def examine(root: Path, scope: Scope) -> Examination:
    """Each file is opened and its beginning read; that all of it can be read, a backup finds."""
    found = Examination()
    files, size = 0, 0
    with opened({"": root}) as tree:
        for path, status in walk(tree, scope, lambda path: found.add("unreadable", f"{shown(path)} cannot be read", shown(path))):
            if status is None:
                found.notes.append(f"{shown(path)} is declared in `include` and does not exist")
            elif stat.S_ISREG(status.st_mode):
                files += 1
                size += status.st_size
                _read(tree, path, found)
    found.counts = {"files": files, "bytes": size}
    found.figures["bytes"] = size
    return found


def _read(tree: Tree, path: str, found: Examination) -> None:
    try:
        descriptor = tree.open_file(path)
        try:
            os.read(descriptor, _FIRST)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_gone(error):
            found.add("unreadable", f"{shown(path)} cannot be read: {error.strerror}", shown(path))

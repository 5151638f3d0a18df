"""The declared entries of a tree that are directories, as they are and with nothing below; of a whole root nothing but itself."""

from __future__ import annotations

import os
import stat

from storekeeper.host.tree import Tree
from storekeeper.outcomes import Failed
from storekeeper.stores.files.checking import CONTENT, LISTING
from storekeeper.stores.files.entries import Entry, Tally, describe
from storekeeper.stores.files.listing import is_gone, shown
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Content


def empty(tree: Tree, scope: Scope, into: StoreFolder) -> Content:
    """Write the listing. Raises Failed for an entry that cannot be looked at."""
    tally = Tally()
    with into.tree(LISTING, CONTENT) as writer:
        for path in scope.include:
            entry = _emptied(tree, path)
            writer.add(entry)
            tally.add(entry)
    return tally.content()


def _emptied(tree: Tree, path: str) -> Entry:
    """A directory as it is, with nothing in it; `absent` for anything else, and for nothing. Raises Failed where that cannot be seen."""
    try:
        status = tree.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return {"path": path, "type": "absent"}
        descriptor = tree.directory(path)
        return describe(tree, path, os.fstat(descriptor), descriptor)
    except OSError as error:
        if is_gone(error):
            return {"path": path, "type": "absent"}
        raise Failed(f"{shown(path)} cannot be looked at: {error.strerror}") from error

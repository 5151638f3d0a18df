"""How big a tree is, by its entries alone: no file is opened."""

from __future__ import annotations

import stat

from storekeeper.host.tree import Tree
from storekeeper.stores.files.listing import walk
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.trees import PreviousTree


def measured(tree: Tree, scope: Scope, previous: PreviousTree | None = None) -> tuple[dict[str, int], int]:
    """Files and their bytes, those of hard links once, and how many of these the previous tree does not hold already."""
    files, size, adds, linked = 0, 0, 0, set()
    for path, status in walk(tree, scope):
        if status is None or not stat.S_ISREG(status.st_mode):
            continue
        files += 1
        if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in linked:
            size += status.st_size
        if status.st_nlink > 1:
            linked.add((status.st_dev, status.st_ino))
        if previous is None or not previous.holds(path, status):
            adds += status.st_size
    return {"files": files, "bytes": size}, adds

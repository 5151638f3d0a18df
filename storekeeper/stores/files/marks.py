"""The mark of a pattern's place: the directories whose names it looks at.

Which names a directory holds cannot change without its ctime, and nothing but names counts of files. So only directories are looked at;
where there are very many, all names are read as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from storekeeper.host import stamps
from storekeeper.host.tree import Tree, joined, opened
from storekeeper.stores.files.listing import is_gone
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.marks import mark

_MOST = 5_000  # directories
_WILD = re.compile(r"[{*?]")


def of_pattern(root: Path, scope: Scope, pattern: Pattern) -> str | None:
    """None where there are too many directories, one was just changed or cannot be looked at, or its times cannot be believed."""
    try:
        found: dict[str, os.stat_result] = {}
        with opened({"": root}) as tree:
            for path, status in _looked_at(tree, pattern.names, ""):
                found[path] = status
                if len(found) > _MOST:
                    return None
        devices = {status.st_dev: path for path, status in found.items()}
        if not all(stamps.is_known(root / path) for path in devices.values()) or not stamps.are_settled(found.values()):
            return None
    except OSError:
        return None
    named = sorted((path, stamps.stamp_of(status)) for path, status in found.items())
    return mark(os.fspath(root), scope.include, scope.exclude, pattern.text, named)


def _looked_at(tree: Tree, names: tuple[str, ...], directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every directory in which the pattern looks for names; one that is not there is seen by the one above."""
    try:
        descriptor = tree.directory(directory)
        yield directory, os.fstat(descriptor)
    except OSError as error:
        if directory and is_gone(error):
            return
        raise
    if len(names) == 1:
        return
    name = names[0]
    below = [name]
    if _WILD.search(name):
        with os.scandir(tree.directory(directory)) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for each in below:
        yield from _looked_at(tree, names[1:], joined(directory, each))

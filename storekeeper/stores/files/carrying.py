"""Moving what is excluded, and so in no set, from the tree that is live into the one that will be: the same files, not copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from storekeeper.host.tree import Tree, joined, name_of, opened, parent_of
from storekeeper.outcomes import Failed
from storekeeper.stores.files.attributes import copy_directory
from storekeeper.stores.files.listing import is_gone, kind_of, shown, unreadable
from storekeeper.stores.files.scope import Scope


def carry(scope: Scope, path: str, source: Path, target: Path) -> None:
    """Move every excluded entry below `path` from the tree at `source` to the one at `target`.

    Directories on its way that `target` lacks are made as they were. What has no place there (a file is in its way) stays.
    Safe to repeat. Raises Failed.
    """
    if not scope.exclude:
        return
    with ExitStack() as trees:
        from_tree = trees.enter_context(opened({parent_of(path): source.parent}))
        to_tree = trees.enter_context(opened({parent_of(path): target.parent}))
        for excluded in list(excluded_below(from_tree, scope, path)):
            try:
                _move(from_tree, to_tree, excluded)
            except OSError as error:
                raise Failed(f"{shown(excluded)}, which is excluded, could not be kept live: {error.strerror}") from error


def excluded_below(tree: Tree, scope: Scope, path: str) -> Iterator[str]:
    """The excluded entries below a covered one, without what is below them."""
    pending = [path]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(tree.directory(directory)) as found:
                entries = [(joined(directory, entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
        except OSError as error:
            if is_gone(error):
                continue
            raise unreadable(directory, error) from error
        for each, is_directory in entries:
            if scope.leaves_out(each):
                yield each
            elif is_directory:
                pending.append(each)


def _move(source: Tree, target: Tree, path: str) -> None:
    parent, name = parent_of(path), name_of(path)
    if not _make_way(source, target, parent):
        return
    from_directory, to_directory = source.directory(parent), target.directory(parent)
    if _exists(name, to_directory):
        return
    times = [(each, os.fstat(each)) for each in (from_directory, to_directory)]
    os.rename(name, name, src_dir_fd=from_directory, dst_dir_fd=to_directory)
    for directory, before in times:
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.fsync(directory)


def _make_way(source: Tree, target: Tree, directory: str) -> bool:
    """Make a directory of the target, and those above it, like that of the source. False where something else has its name."""
    missing = []
    while directory not in target.places:
        try:
            if kind_of(target.lstat(directory)) != "directory":
                return False
            break
        except OSError as error:
            if not is_gone(error):
                raise
        missing.append(directory)
        directory = parent_of(directory)
    for each in reversed(missing):
        copy_directory(source.directory(each), name_of(each), target.directory(parent_of(each)))
    return True


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True

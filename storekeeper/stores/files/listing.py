"""Walking a tree in the order of a listing, and the listing that pins a moment: on disk, so that memory stays flat.

Sorted are whole paths as bytes, so `a-b` and `a.b` come between `a` and `a/b`. What memory is needed grows with the largest
single directory, never with the tree.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from storekeeper.host.tree import Tree, joined
from storekeeper.outcomes import Failed
from storekeeper.stores.files.scope import Scope, order_of

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
# What a name answers that is gone, or is no longer a directory or a file.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)

Found = tuple[str, os.stat_result | None]


class Seen(NamedTuple):
    """One line of the pinned listing. `kind` is `absent` for an entry of `include` that is not there."""

    path: str
    kind: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    links: int = 0

    @classmethod
    def of(cls, path: str, status: os.stat_result | None) -> Seen:
        if status is None:
            return cls(path, "absent")
        return cls(path, kind_of(status), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_nlink)

    def is_still(self, status: os.stat_result) -> bool:
        """Whether neither contents nor attributes have changed since; ctime tells of both."""
        return self[1:6] == (kind_of(status), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def kind_of(status: os.stat_result) -> str:
    return _KINDS[stat.S_IFMT(status.st_mode)]


def is_gone(error: OSError) -> bool:
    """Whether an error only says that a path leads nowhere now."""
    return error.errno in _GONE


def shown(path: str) -> str:
    """A path as people may safely be shown it: no control characters, no bytes that are no text."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def walk(tree: Tree, scope: Scope, passed_over: Callable[[str], None] | None = None) -> Iterator[Found]:
    """All covered paths in order, with what lstat says of them; None for an entry of `include` that is missing.

    Raises Failed for a directory that cannot be read, and for a link in place of a directory above an entry of `include`; where
    `passed_over` is given, only for the root: it is told of the others.
    """
    frames = [("", _keys(tree, scope, ""))]
    while frames:
        directory, keys = frames[-1]
        key = next(keys, None)
        if key is None:
            frames.pop()
            continue
        path = joined(directory, key.removesuffix("/"))
        try:
            if key.endswith("/"):
                frames.append((path, _keys(tree, scope, path)))
            else:
                yield from _one(tree, scope, path)
        except Failed:
            if passed_over is None:
                raise
            passed_over(path)


def spool(found: Iterable[Found], path: Path) -> None:
    """Write a walk down."""
    with open(path, "xb") as file:
        file.writelines(json.dumps(Seen.of(name, status)).encode("ascii") + b"\n" for name, status in found)


def spooled(path: Path) -> Iterator[Seen]:
    """Read a walk back."""
    with open(path, encoding="ascii") as file:
        for line in file:
            yield Seen(*json.loads(line))


def _one(tree: Tree, scope: Scope, path: str) -> Iterator[Found]:
    try:
        yield path, tree.lstat(path)
    except OSError as error:
        if not is_gone(error):
            raise unreadable(path, error) from error
        if path in scope.include:
            yield path, None


def _keys(tree: Tree, scope: Scope, directory: str) -> Iterator[str]:
    """The names of a directory in order; one that is to be entered comes again with a `/`, where its contents belong."""
    steps = scope.steps(directory)
    keys = _keys_above(tree, scope, directory, steps) if steps is not None else _keys_of(tree, scope, directory)
    return map(os.fsdecode, sorted(map(order_of, keys)))  # as bytes, which sort as they are: these are all that is held of a directory


def _keys_of(tree: Tree, scope: Scope, directory: str) -> Iterator[str]:
    try:
        with os.scandir(tree.directory(directory)) as entries:
            for entry in entries:
                if scope.leaves_out(joined(directory, entry.name)):
                    continue
                yield entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name + "/"
    except OSError as error:
        if not directory or not is_gone(error):
            raise unreadable(directory, error) from error


def _keys_above(tree: Tree, scope: Scope, directory: str, steps: Iterable[str]) -> Iterator[str]:
    """Only the declared names; nothing else of a directory above the covered entries is looked at."""
    for name in steps:
        path = joined(directory, name)
        if scope.leaves_out(path):
            continue
        covered, kind = path in scope.include, _kind_now(tree, path)
        if covered:
            yield name
        elif kind not in ("directory", "absent"):
            raise Failed(f"{shown(path)} is a {kind}, not a directory, and what is declared below it is not looked for there")
        if not covered or kind == "directory":
            yield name + "/"


def _kind_now(tree: Tree, path: str) -> str:
    try:
        return kind_of(tree.lstat(path))
    except OSError as error:
        if is_gone(error):
            return "absent"
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> Failed:
    return Failed(f"{shown(path) or 'its root'} cannot be read: {error.strerror}")

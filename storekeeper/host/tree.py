"""Paths below a root, reached only through directories that were opened one by one and are no symbolic links.

So no path can lead out of its root, whatever an application, or a listing that somebody has edited, puts in its way; and paths
may be longer than PATH_MAX and deeper than there are descriptors (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_AT_ONCE = 10_000  # names that are held while a directory is emptied
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_below(path: str) -> bool:
    """Whether a relative path names something below its root, in one way only: no part is empty, or leads elsewhere."""
    return "\0" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def parent_of(path: str) -> str:
    """`a/b` of `a/b/c`; the empty path is the root."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def parents_of(path: str) -> Iterator[str]:
    """`a/b`, then `a`, of `a/b/c`; not the root."""
    while path := parent_of(path):
        yield path


def joined(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


class Tree:
    """Where the entries of each directory are kept: `{"": ROOT}` for a live tree, one directory for each parent of a staged one.

    Every method raises OSError as the call behind it does; a link in place of a directory is ENOTDIR or ELOOP.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self.places = dict(places)
        self._cached: tuple[str, int] | None = None

    def close(self) -> None:
        """Let go of the directory that was used last. Safe to repeat."""
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None

    def directory(self, path: str) -> int:
        """A descriptor of a directory, which stays open until the next directory is asked for."""
        if self._cached is None or self._cached[0] != path:
            descriptor = self._open(path)
            self.close()
            self._cached = (path, descriptor)
        return self._cached[1]

    def lstat(self, path: str) -> os.stat_result:
        return os.stat(name_of(path), dir_fd=self.directory(parent_of(path)), follow_symlinks=False)

    def open_file(self, path: str) -> int:
        """Open what should be a regular file for reading: never follows a link, never waits for a pipe's other end."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(name_of(path), flags, dir_fd=self.directory(parent_of(path)))

    def readlink(self, path: str) -> str:
        return os.readlink(name_of(path), dir_fd=self.directory(parent_of(path)))

    def handle(self, path: str) -> str:
        """A path for calls that take no directory descriptor; good until the next directory is asked for."""
        return f"/proc/self/fd/{self.directory(parent_of(path))}/{name_of(path)}"

    def _open(self, path: str) -> int:
        start, descriptor = self._start(path)
        for name in path[len(start) :].strip("/").split("/") if path != start else ():
            try:
                below = os.open(name, _DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _start(self, path: str) -> tuple[str, int]:
        """The nearest directory at or above a path that is open or known, opened once more."""
        start = path
        while start not in self.places:
            if self._cached is not None and self._cached[0] == start:
                return start, os.dup(self._cached[1])
            if not start:
                raise FileNotFoundError(f"no directory is known for {path!r}")
            start = parent_of(start)
        return start, os.open(self.places[start], _DIRECTORY)


@contextmanager
def opened(places: Mapping[str, Path]) -> Iterator[Tree]:
    tree = Tree(places)
    try:
        yield tree
    finally:
        tree.close()


def remove(path: Path) -> None:
    """Remove a tree of any depth, also where its directories forbid writing; a missing one is fine.

    Follows no link. Raises OSError (EXDEV) at a mount point, whose contents are somebody else's.
    """
    if not os.path.lexists(path):
        return
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
        return
    with opened({"": path}) as tree:
        _empty(tree, status.st_dev)
    os.rmdir(path)


def _empty(tree: Tree, device: int) -> None:
    pending = [""]
    while pending:
        directory = pending[-1]
        below = _remove_names(tree, directory, device)
        if below:
            pending.extend(below)
            continue
        pending.pop()
        if directory:
            os.rmdir(name_of(directory), dir_fd=tree.directory(parent_of(directory)))


def _remove_names(tree: Tree, directory: str, device: int) -> list[str]:
    """Remove all names of a directory but those of directories, which are returned."""
    descriptor = tree.directory(directory)
    status = os.fstat(descriptor)
    if status.st_dev != device:
        raise OSError(errno.EXDEV, "something is mounted here", directory)
    if status.st_mode & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    while True:
        files, directories = _some_names(descriptor)
        for name in files:
            os.unlink(name, dir_fd=descriptor)
        if len(files) < _AT_ONCE:
            break
    if os.geteuid() != 0:
        for name in directories:
            os.chmod(name, 0o700, dir_fd=descriptor)  # else its own owner could not open it
    return [joined(directory, name) for name in directories]


def _some_names(descriptor: int) -> tuple[list[str], list[str]]:
    """Names of files, at most so many that memory stays flat; and of all directories, where these were all files."""
    files: list[str] = []
    directories: list[str] = []
    with os.scandir(descriptor) as names:
        for entry in names:
            (directories if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
            if len(files) == _AT_ONCE:
                break
    return files, directories

"""Files and directories that survive a power cut once a function here has returned.

A name that appears through this module appears whole: contents are fsynced before the rename, the directory after it
(fsync(2), rename(2), renameat2(2)).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storekeeper.host import tree

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
SEALED_FILE = 0o400

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's contents and size durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = PRIVATE_DIRECTORY) -> None:
    """Make one directory with exactly this mode (whatever the umask), durable. Raises FileExistsError."""
    os.mkdir(path, mode)
    os.chmod(path, mode)
    sync_directory(path.parent)


def ensure_directory(path: Path, mode: int = PRIVATE_DIRECTORY) -> None:
    """Make a directory and its parents where they are missing; what exists is left as it is."""
    if path.is_dir():
        return
    if path.parent != path:
        ensure_directory(path.parent, mode)
    try:
        make_directory(path, mode)
    except FileExistsError:
        if not path.is_dir():
            raise


def write_file(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace or make a file in one step: readers see the old contents or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = _make_new(temporary, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is told by write(2), which knows no names
        raise
    sync_directory(path.parent)


def _make_new(path: Path, mode: int) -> int:
    """Open a file that is ours from its first byte: what already has the name (of a killed run, or put there by somebody else) goes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def write_json(path: Path, document: Any, mode: int = PRIVATE_FILE) -> None:
    """`write_file` of a JSON document for people and programs: sorted keys, two spaces, a newline at the end."""
    write_file(path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode(), mode)


def rename(source: Path, destination: Path) -> None:
    """Rename and make both directories durable. The destination must not exist."""
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    os.rename(source, destination)
    sync_directory(destination.parent)
    if source.parent != destination.parent:
        sync_directory(source.parent)


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step (renameat2 with RENAME_EXCHANGE); the caller makes their directories durable (`sync_directory`).

    Raises OSError; EINVAL, ENOSYS, EXDEV and EBUSY mean that this file system or mount point cannot do it.
    """
    result = _libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first), None, str(second))


def remove_tree(path: Path) -> None:
    """Remove a tree durably, as `tree.remove` does; a missing one is fine."""
    if os.path.lexists(path):
        tree.remove(path)
        sync_directory(path.parent)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Run a block under a umask, whatever the caller's shell or cron had set."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)

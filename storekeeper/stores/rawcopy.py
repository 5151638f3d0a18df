"""Copies of files as fast as the kernel can make them: shared blocks where the file system has them, else a copy inside the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from storekeeper.host import durable, load

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_CHUNK = 1 << 30
_CANNOT = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.ETXTBSY}


def copy_file(source: Path, target: Path, mode: int = durable.PRIVATE_FILE) -> int:
    """Copy a regular file over `target` (made when missing) and return its size; the caller makes it durable. Raises OSError."""
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        destination = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(destination, mode)
            if not _share(origin, destination):
                _copy(origin, destination)
            return os.fstat(destination).st_size
        finally:
            os.close(destination)
    finally:
        os.close(origin)


def _share(origin: int, destination: int) -> bool:
    try:
        fcntl.ioctl(destination, _FICLONE, origin)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _copy(origin: int, destination: int) -> None:
    """copy_file_range(2), and sendfile(2) where the two files' file systems cannot do it."""
    step = _in_kernel
    while True:
        try:
            copied = step(origin, destination)
        except OSError as error:
            if step is _through_pipe or error.errno not in _CANNOT:
                raise
            step = _through_pipe
            continue
        if copied == 0:
            return
        load.spend(copied)


def _in_kernel(origin: int, destination: int) -> int:
    return os.copy_file_range(origin, destination, load.piece(_CHUNK))


def _through_pipe(origin: int, destination: int) -> int:
    return os.sendfile(destination, origin, None, load.piece(_CHUNK))

"""Being another user for a moment, in one thread only."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storekeeper.host.processes import User

# The kernel keeps the ids of each thread; it is the C library that changes all of them together (setresuid(2), "C library/kernel
# differences"), and other threads would open files as that user meanwhile. So its call is left out.
_SETRESUID_SETRESGID = {
    "x86_64": (117, 119),
    "aarch64": (147, 149),
    "riscv64": (147, 149),
    "ppc64le": (164, 169),
    "s390x": (208, 210),
    "armv7l": (208, 210),
    "i686": (208, 210),
}
_SAME = -1
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """The calling thread has this user's effective ids while the block runs; its own again afterwards. None changes nothing.

    Raises PermissionError without the right to. Threads and programs that the block starts have them too.
    """
    if user is None:
        yield
        return
    uid, gid = os.geteuid(), os.getegid()
    _set_group(user.gid)
    try:
        _set_user(user.uid)
        try:
            yield
        finally:
            _set_user(uid)
    finally:
        _set_group(gid)


def _set_user(uid: int) -> None:
    numbers = _SETRESUID_SETRESGID.get(os.uname().machine)
    if numbers is None:
        os.seteuid(uid)  # of all threads
    else:
        _call(numbers[0], uid)


def _set_group(gid: int) -> None:
    numbers = _SETRESUID_SETRESGID.get(os.uname().machine)
    if numbers is None:
        os.setegid(gid)
    else:
        _call(numbers[1], gid)


def _call(number: int, effective: int) -> None:
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(_SAME), ctypes.c_long(effective), ctypes.c_long(_SAME)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

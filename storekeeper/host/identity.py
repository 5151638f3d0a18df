"""Being another user for a moment, in one thread only."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storekeeper.host.processes import User

# The kernel keeps the ids of each thread; it is the C library that changes all of them together (setresuid(2), "C library/kernel
# differences"), and other threads would open files as that user meanwhile. So its call is left out.
_SETRESUID_SETRESGID = {"x86_64": (117, 119), "aarch64": (147, 149), "riscv64": (147, 149)}
_IS_64_BIT = sys.maxsize > 1 << 32  # a 32-bit program on such a kernel has other numbers
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
    try:  # from here on a signal finds the way back
        _set_group(user.gid)
        _set_user(user.uid)
        yield
    finally:
        _set_user(uid)
        _set_group(gid)


def _set_user(uid: int) -> None:
    numbers = _numbers()
    if numbers is None:
        os.seteuid(uid)  # of all threads: the library's way is the only one that is known here
    else:
        _call(numbers[0], uid)


def _set_group(gid: int) -> None:
    numbers = _numbers()
    if numbers is None:
        os.setegid(gid)
    else:
        _call(numbers[1], gid)


def _numbers() -> tuple[int, int] | None:
    return _SETRESUID_SETRESGID.get(os.uname().machine) if _IS_64_BIT else None


def _call(number: int, effective: int) -> None:
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(_SAME), ctypes.c_long(effective), ctypes.c_long(_SAME)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

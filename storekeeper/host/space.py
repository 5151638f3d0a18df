"""Free space by file system: what several directories need together, and what a user without privileges may still write there."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storekeeper.outcomes import Refused

_KEEP_SIZE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SAID_FOR_NO_ROOM = (*map(os.strerror, _NO_ROOM), "database or disk is full")  # the system's words, and SQLite's
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class FileSystem:
    """One mounted file system with all that is asked of it, in bytes. `free` leaves out the blocks reserved for root."""

    mount: Path
    needed: int
    free: int

    @property
    def is_short(self) -> bool:
        return self.needed > self.free


def by_file_system(needs: Mapping[Path, int]) -> list[FileSystem]:
    """The needs of directories (existing or still to be made), added up for each file system (st_dev)."""
    places: dict[int, Path] = {}
    sums: dict[int, int] = {}
    for directory, needed in needs.items():
        existing = _nearest_existing(directory)
        device = os.stat(existing).st_dev
        places.setdefault(device, existing)
        sums[device] = sums.get(device, 0) + needed
    return [FileSystem(_mount_of(place), sums[device], free_bytes(place)) for device, place in places.items()]


def check(needs: Mapping[Path, int], *, purpose: str, next: str | None = None) -> list[FileSystem]:
    """The same, or Refused with what each short file system lacks; `purpose` is the subject, such as `restore`."""
    found = by_file_system(needs)
    short = [each for each in found if each.is_short]
    if short:
        said = ", ".join(f"{spoken_size(each.needed)} on {each.mount}, which has {spoken_size(each.free)}" for each in short)
        raise Refused(f"{purpose} needs {said}", next=next)
    return found


def free_bytes(path: Path) -> int:
    """What can still be written on the file system that holds `path` (statvfs(3), f_bavail)."""
    found = os.statvfs(_nearest_existing(path))
    return found.f_bavail * found.f_frsize


def is_for_want_of_room(error: Exception) -> bool:
    """Whether something failed because a disk was full, as this program was told, or as a program that it ran has said."""
    return (isinstance(error, OSError) and error.errno in _NO_ROOM) or any(words in str(error) for words in _SAID_FOR_NO_ROOM)


def reserve(descriptor: int, size: int) -> None:
    """Keep blocks for the first `size` bytes of an open file without making it longer (fallocate(2), FALLOC_FL_KEEP_SIZE).

    Best effort: a file system that cannot do it writes as it always does. Raises OSError when there is no room.
    """
    if _libc.fallocate(descriptor, _KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(size)) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))


def spoken_size(count: int) -> str:
    """`3.1 GB`: decimal units, one digit after the point from kB on."""
    amount, unit = float(count), 0
    while amount >= 999.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{count} {_UNITS[0]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path.parent != path:
        path = path.parent
    return path


def _mount_of(path: Path) -> Path:
    path = path.resolve()
    while not os.path.ismount(path) and path.parent != path:
        path = path.parent
    return path

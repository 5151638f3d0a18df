"""Which byte ranges of files are locked, by which process, as the kernel tells it (proc_locks(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOCKS = Path("/proc/locks")
_LINE = re.compile(r"[0-9]+: (-> )?(POSIX|OFDLCK) +\S+ +(READ|WRITE) +(-?[0-9]+) ([0-9a-f]+):([0-9a-f]+):([0-9]+) ([0-9]+) ([0-9]+|EOF)")


@dataclass(frozen=True)
class RangeLock:
    """A lock on the bytes from `start` to `end`; `waits` where it is only asked for. The pid of a lock of an open file is -1."""

    pid: int
    device: int
    inode: int
    start: int
    end: int
    is_write: bool
    waits: bool

    def touches(self, start: int, end: int) -> bool:
        return self.start <= end and start <= self.end


def locks_on(path: Path) -> Iterator[RangeLock]:
    """The locks on one file, those of this process too. None for a file that is not there. Raises OSError.

    Compared are inodes: some file systems have another device number in this list than stat(2) gives, so whoever is found here counts only
    where it has that file open too.
    """
    try:
        inode = os.stat(path).st_ino
    except FileNotFoundError:
        return
    for line in _LOCKS.read_text(encoding="ascii", errors="replace").splitlines():
        found = _LINE.match(line)
        if found and int(found[7]) == inode:
            end = (1 << 63) - 1 if found[9] == "EOF" else int(found[9])
            device = os.makedev(int(found[5], 16), int(found[6], 16))
            yield RangeLock(int(found[4]), device, inode, int(found[8]), end, found[3] == "WRITE", bool(found[1]))

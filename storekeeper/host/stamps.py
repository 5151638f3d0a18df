"""Whether files are still what they were: what the kernel says of them, and when that can be believed.

Whatever is written to a file, and whatever name comes into a directory or goes from it, sets its ctime, which no program can set
otherwise. It can stay the same only where two changes came within one tick of the kernel's clock, or where that clock was set back. So a
stamp is taken only of what was left alone for longer than that, and is compared only while the clock has gone on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.host import locks

Stamp = tuple[int, ...]
SETTLED_S = 2.0  # since the last change: hundreds of ticks
_SET_BACK_S = 1.0  # less than that, so that no later change can have an earlier one's ctime
_KNOWN = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "zfs"}  # the kernel itself keeps ctime there, for everybody who writes
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def stamp_of(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def are_settled(statuses: Iterable[os.stat_result]) -> bool:
    """Whether none was changed in the last two seconds, or by a clock that was ahead."""
    latest = int((time.time() - SETTLED_S) * 1e9)
    return all(status.st_ctime_ns < latest for status in statuses)


def is_known(path: Path) -> bool:
    """Whether the file system of a path is one whose times can be believed. Raises OSError."""
    return locks.file_system_type(path) in _KNOWN


@dataclass(frozen=True)
class Clock:
    """The clock by which stamps were taken: of which boot, and how far ahead of the seconds since then."""

    boot: str
    ahead: float

    @classmethod
    def now(cls) -> Clock:
        return cls(_BOOT.read_text(encoding="ascii").strip(), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))

    def goes_on(self, now: Clock) -> bool:
        """Whether it was not set back since: what changed has a later time than all that was settled."""
        return self.boot == now.boot and now.ahead > self.ahead - _SET_BACK_S

    def to_json(self) -> dict[str, Any]:
        return {"boot": self.boot, "ahead": self.ahead}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Clock:
        return cls(str(document["boot"]), float(document["ahead"]))

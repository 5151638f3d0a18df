"""How much of the machine a run takes from others: its rank for processor and disk, and the bytes a second of its own loops.

A verb that others do not wait for is carried out under declared `Limits`. On Linux a thread's rank is its own, is inherited by
the threads and programs that it starts, and is never raised again without a privilege (setpriority(2), ioprio_set(2)). So a
thread lowers itself when writers no longer wait for it, and loops take their bytes from one bucket except in a `hurry`.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from storekeeper.host.giving_up import heed

_BURST_S = 0.25  # so much of a second's bytes may be taken at once after a pause
_LEAST = 1 << 16
# The system call has no wrapper in the C library. Elsewhere the kernel takes the disk's rank from the niceness, nearly as low.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282, "armv7l": 314, "i686": 289}
_THIS_THREAD = 1, 0  # IOPRIO_WHO_PROCESS, the caller
_LOWEST = 2 << 13 | 7  # IOPRIO_CLASS_BE: it still comes to its turn when the disk is never idle, as the idle class may not
_libc = ctypes.CDLL(None, use_errno=True)
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Limits:
    """What a run may take: its niceness (0 leaves its rank as it is), and bytes a second (None: as many as there are)."""

    nice: int = 0
    max_rate: int | None = None


class Bucket:
    """Bytes that flow in at a rate, and are waited for by whoever has taken more. Any number of threads."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = clock() - _BURST_S

    def take(self, count: int) -> None:
        """Take bytes that were just moved; returns once they have flowed in."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _BURST_S) + count / self.rate
            wait = self._paid_until - now
        if wait > 0:
            self._sleep(wait)


@dataclass
class _Run:
    nice: int
    bucket: Bucket | None
    hurries: int = 0


_runs: list[_Run] = []  # one a process: a list, so that a test may put one inside another


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """This process works under these limits while the block runs. A thread that was lowered stays so."""
    _runs.append(_Run(limits.nice, None if limits.max_rate is None else Bucket(limits.max_rate)))
    try:
        yield
    finally:
        _runs.pop()


def lower() -> None:
    """Lower the calling thread, and what it starts from now on, to the run's rank. It is never raised, nor ever raised again."""
    if not _runs or _runs[-1].nice == 0:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, max(_runs[-1].nice, os.getpriority(os.PRIO_PROCESS, 0)))
    except PermissionError:
        pass  # a sandbox that leaves no choice: the run is as good without
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        _libc.syscall(number, *_THIS_THREAD, _LOWEST)  # refused it is the same: the niceness ranks it


def lowered_threads(count: int) -> ThreadPoolExecutor:
    """Threads that work at the run's rank, whatever that of the caller is."""
    return ThreadPoolExecutor(count, initializer=lower)


def spend(count: int) -> None:
    """Say that so many bytes were read or written; returns when the run may go on to the next."""
    heed()
    run = _paced()
    if run is not None:
        run.take(count)


def piece(size: int) -> int:
    """The most bytes, of at most `size`, to move before the next `spend`: no wait is then longer than about a second."""
    run = _paced()
    return size if run is None else max(_LEAST, min(size, run.rate // 4))


@contextmanager
def hurry() -> Iterator[None]:
    """Nothing is slowed while the block runs: others wait for it."""
    run = _runs[-1] if _runs else _Run(0, None)
    run.hurries += 1
    try:
        yield
    finally:
        run.hurries -= 1


def _paced() -> Bucket | None:
    return _runs[-1].bucket if _runs and not _runs[-1].hurries else None

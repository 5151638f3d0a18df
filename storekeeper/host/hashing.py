"""The sha256 of large files, by threads beside the caller: neither hashlib nor the kernel makes other threads wait."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from storekeeper.host import load
from storekeeper.host.waiting import result_of

_CHUNK = 1 << 22  # long enough that a thread seldom asks for Python's lock
_OPEN = 64  # descriptors at once: whoever brings more waits

Sum = tuple[str, int]  # sha256 and size
Then = Callable[[int], None]
Progress = Callable[[int], None]  # told the bytes read since it was last told


class Hashers:
    """A few threads that hash open files, in the order in which they were given. A context manager: when its block ends
    early, what they are at is given up, and every descriptor is closed."""

    def __init__(self, threads: int = 2) -> None:
        self._count = threads
        self._threads: ThreadPoolExecutor | None = None
        self._stopped = False
        self._room = threading.Semaphore(_OPEN)

    def start(self, descriptor: int, then: Then | None = None, known: Sum | None = None) -> Hashing:
        """Hash what the descriptor reads from here on, then do `then` with it, then close it; it belongs to a thread now.

        Where the sum is `known` already, nothing is read.
        """
        if self._threads is None:
            self._threads = load.lowered_threads(self._count)
        self._room.acquire()
        hashing = Hashing(known)
        hashing.future = self._threads.submit(self._run, hashing, descriptor, then)
        hashing.future.add_done_callback(lambda _: self._close(descriptor))
        return hashing

    def __enter__(self) -> Hashers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped = True
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _close(self, descriptor: int) -> None:
        os.close(descriptor)
        self._room.release()

    def _run(self, hashing: Hashing, descriptor: int, then: Then | None) -> str:
        sha256 = hashing.known or self._hash(hashing, descriptor)
        if then is not None and not self._stopped:
            then(descriptor)
        return sha256

    def _hash(self, hashing: Hashing, descriptor: int) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(max(1, min(load.piece(_CHUNK), os.fstat(descriptor).st_size))))
        while not self._stopped and (count := os.readv(descriptor, [buffer])):
            digest.update(buffer[:count])
            hashing.size += count
            load.spend(count)
        return digest.hexdigest()


class Hashing:
    """One file on its way."""

    future: Future[str]

    def __init__(self, known: Sum | None) -> None:
        self.known = known[0] if known is not None else None
        self.size = known[1] if known is not None else 0

    def result(self, progress: Progress) -> Sum:
        """The sha256 and the size, once they are there. Raises what reading raised, or what came after it."""
        return result_of(self.future, lambda: self.size, progress), self.size

"""Many files made durable together: a journal is written once for all of them, where one fsync after the other writes it each time.

Nothing is promised of a file before `finish` has returned; every one of them was then fsynced through a descriptor that was open
since it was written, so that an error of writing it out cannot have been told to somebody else (fsync(2)).
"""

from __future__ import annotations

import ctypes
import os
from types import TracebackType

from storekeeper.outcomes import Failed

_MOST_FILES = 256  # descriptors held, of the 1,024 that a process may have
_MOST_BYTES = 64 << 20  # so that writing out begins while there is still something to copy
_BEGIN_WRITING = 2  # SYNC_FILE_RANGE_WRITE
_libc = ctypes.CDLL(None, use_errno=True)


class Unsynced:
    """Files that were written and are not durable yet. A context manager: what is left when its block fails is only closed."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, str]] = []
        self._bytes = 0

    def add(self, descriptor: int, name: str, size: int) -> None:
        """Take one more, through a descriptor of its own; the caller closes his. Raises as `finish` does, when there are enough."""
        self._waiting.append((os.dup(descriptor), name))
        self._bytes += size
        if len(self._waiting) >= _MOST_FILES or self._bytes >= _MOST_BYTES:
            self.finish()

    def finish(self) -> None:
        """Make all of them durable. Raises Failed, which names the file: seldom the one that was added last."""
        for descriptor, _ in self._waiting:
            _begin_writing(descriptor)
        for descriptor, name in self._waiting:
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise Failed(f"{ascii(name)[1:-1]} could not be written to the disk: {error.strerror}") from error
        self._close()

    def __enter__(self) -> Unsynced:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._close()

    def _close(self) -> None:
        for descriptor, _ in self._waiting:
            os.close(descriptor)
        self._waiting.clear()
        self._bytes = 0


def _begin_writing(descriptor: int) -> None:
    """Ask for the contents to be on their way to disk, and for their place there to be in the journal that the first fsync writes.

    Where a file system cannot (sync_file_range(2)), fsync does all of it.
    """
    _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _BEGIN_WRITING)

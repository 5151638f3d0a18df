"""Signals that ask for the end become an exception, so that every block unwinds: children ended, stores released, locks freed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody asked the program to end. No `except Exception` on the way catches it."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


class Ears:
    """Raises Stopped for the first signal; later ones, and all after `close`, are not heard: what unwinds is not disturbed."""

    def __init__(self) -> None:
        self._open = True
        self.heard: Stopped | None = None  # also where it came out as another error: raised inside a lock's own code, it can

    def close(self) -> None:
        """From here on the end is near anyway: the record is written and the answer printed."""
        self._open = False

    def hear(self, number: int, _frame: FrameType | None) -> None:
        if self._open:
            self._open = False
            self.heard = Stopped(number)
            raise self.heard


@contextmanager
def listening() -> Iterator[Ears]:
    """Turn signals into Stopped while the block runs. A signal that the caller had ignored (nohup) stays ignored."""
    ears = Ears()
    before = {number: signal.getsignal(number) for number in _ASKED_TO_END}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, ears.hear)
    try:
        yield ears
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

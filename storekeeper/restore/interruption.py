"""SIGTERM, SIGINT and SIGHUP while stores are switched: remembered until the next point from which there is a way back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from storekeeper.outcomes import Failed

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interruption:
    """Holds signals back. Outside of `later()` they do what the program's entry has decided for them."""

    def __init__(self) -> None:
        self._told: str | None = None

    @contextmanager
    def later(self) -> Iterator[None]:
        """No signal breaks into the block; what was ignored (nohup) stays ignored. Python lets the main thread alone do this."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.getsignal(each) for each in _SIGNALS}
        for each, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(each, self._remember)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler if handler is not None else signal.SIG_DFL)

    def check(self) -> None:
        """Raises Failed when a signal came, once: the way back is not interrupted by the signal that caused it."""
        told, self._told = self._told, None
        if told is not None:
            raise Failed(f"it was told to stop ({told})")

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._told = signal.Signals(number).name

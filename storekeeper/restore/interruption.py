"""SIGTERM, SIGINT and SIGHUP during a walk: a failure at the next point from which there is a way back, never a sudden end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from storekeeper.outcomes import Failed

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interruption:
    """While the block runs, a signal raises Failed at once; inside `later()` it is only remembered, until `check()`.

    Outside the main thread nothing is changed: Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self._told: signal.Signals | None = None
        self._later = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._receive) for each in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler if callable(handler) or isinstance(handler, int) else signal.SIG_DFL)

    @contextmanager
    def later(self) -> Iterator[None]:
        """The block is not broken into; what it does has to be whole."""
        before, self._later = self._later, True
        try:
            yield
        finally:
            self._later = before

    def check(self) -> None:
        """Raises Failed when a signal came, once: the way back is not interrupted by the signal that caused it."""
        told, self._told = self._told, None
        if told is not None:
            raise Failed(f"it was told to stop ({told.name})")

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._told = signal.Signals(number)
        if not self._later:
            self.check()

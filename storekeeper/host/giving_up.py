"""How a thread is told that nobody waits any more for what it is at: it asks in its loops, and the programs that it waits for are ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_mine = threading.local()


class GivenUp(Exception):
    """Nobody waits any more for what a thread is at."""


class Flag:
    """One for each thread that may be given up. Any thread may call `give_up`, any number of times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = False
        self._stops: list[Callable[[], None]] = []

    def carry(self) -> None:
        """The calling thread heeds this flag from now on."""
        _mine.flag = self

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            stops = list(self._stops)
        for stop in stops:
            stop()

    def heed(self) -> None:
        if self._given_up:
            raise GivenUp

    def add(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self.heed()
            self._stops.append(stop)

    def remove(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stops.remove(stop)


def heed() -> None:
    """Raises GivenUp in a thread that nobody waits for any more."""
    flag = _flag()
    if flag is not None:
        flag.heed()


@contextmanager
def ending(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `stop` is called by whoever gives up this thread: it must let the block come to its end."""
    flag = _flag()
    if flag is None:
        yield
        return
    flag.add(stop)
    try:
        yield
    finally:
        flag.remove(stop)


def _flag() -> Flag | None:
    found: Flag | None = getattr(_mine, "flag", None)
    return found

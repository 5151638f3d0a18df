"""A thread beside its caller, which may give it up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import ParamSpec, TypeVar

from storekeeper.host.giving_up import Flag
from storekeeper.host.load import lowered_threads

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


class Aside:
    """A thread at the run's rank that does one thing after the other for a caller who keeps the usual one, or has other things to do.
    A context manager: when its block fails, what the thread is at is given up the next time that it spends, or by the end of the
    program that it waits for."""

    def __init__(self) -> None:
        self._thread = lowered_threads(1)
        self._flag = Flag()

    def do(self, function: Callable[_Given, _Found], *given: _Given.args, **named: _Given.kwargs) -> _Found:
        """What the function returns or raises, waited for."""
        return self.begin(function, *given, **named).result()

    def begin(self, function: Callable[_Given, _Found], *given: _Given.args, **named: _Given.kwargs) -> Future[_Found]:
        """The same, when what was begun before is done; the caller goes on."""

        def carry_out() -> _Found:
            self._flag.carry()
            return function(*given, **named)

        return self._thread.submit(carry_out)

    def give_up(self) -> None:
        """Nobody waits any more for what was begun. Safe to repeat."""
        self._flag.give_up()

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.give_up()
        self._thread.shutdown(cancel_futures=error is not None)

"""Waiting for a thread that counts what it does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from storekeeper.host.giving_up import heed

_INTERVAL_S = 0.2
_Found = TypeVar("_Found")


def result_of(future: Future[_Found], done: Callable[[], int], progress: Callable[[int], None]) -> _Found:
    """What the future holds, or raises; `progress` is told meanwhile what is new of the bytes `done`."""
    told, ended = 0, False
    while not ended:
        heed()
        ended = bool(wait([future], _INTERVAL_S).done)
        new = done() - told
        told += new
        progress(new)
    return future.result()

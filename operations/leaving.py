"""Ctrl-C while jobs are followed: the jobs go on, and who leaves is told how to come back to them, or to end them."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pyinfra import logger
from pyinfra.api import Host

LEFT = 130  # as shells say it of a program that Ctrl-C has ended; pyinfra itself says that all went well
_followed: dict[str, str] = {}  # name of a host -> what is followed there


@contextmanager
def followed(target: Host, what: str) -> Iterator[None]:
    """While the block runs, who leaves is told that `what` goes on."""
    _followed[target.name] = what
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        _followed.pop(target.name, None)


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 as signal calls it
    for name, what in _followed.items():
        logger.warning(f"{what} goes on at {name}")
    if _followed:
        inventory = next((word for word in sys.argv[1:] if not word.startswith("-")), "INVENTORY")
        logger.warning(f"  follow it: {shlex.join(['pyinfra', *sys.argv[1:]])}")
        logger.warning(f"  see or end it: pyinfra {shlex.quote(inventory)} deploys/jobs.py [--data stop=JOB]")
    raise SystemExit(LEFT)

"""Holds the write lock of one SQLite file for the program that started it, and never longer than it was told.

Started by its path (`lockholder.py`), with the file's URI and the cap in seconds. It reads `take MILLISECONDS` and `release`,
and answers one line each: `ready`, `taken EPOCH_NANOSECONDS`, `busy`, `released MILLISECONDS`, `lost`, `failed WORDS`.
It touches the file only through SQLite: closing the file any other way would drop the lock (fcntl(2), POSIX locks).
It ends when its standard input ends (the program was killed), and lets go at the cap on its own clock (the program was stopped).
"""

from __future__ import annotations

import os
import select
import sqlite3
import sys
import time
from contextlib import suppress

_INPUT, _OUTPUT = 0, 1
_INTERVAL_S = 0.002


def main(uri: str, cap_s: float) -> None:
    with suppress(PermissionError):  # it leads a group of its own already
        os.setsid()  # a stop or an interrupt typed at the program's terminal must not freeze the lock as well
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)
        connection.execute("pragma wal_autocheckpoint=0")
        _answer("ready")
        _serve(connection, cap_s)
    except sqlite3.Error as error:
        _answer(f"failed {error}")
    # Without closing the connection: the last one to close a database in WAL mode would checkpoint it.
    os._exit(0)


def _serve(connection: sqlite3.Connection, cap_s: float) -> None:
    while (words := _command(None)) and words[0] == "take":
        taken = _take(connection, int(words[1]))
        if taken is None:
            continue
        words = _command(taken + cap_s - time.monotonic())
        connection.execute("rollback")
        if words != ["release"]:
            _answer("lost")
            return
        _answer(f"released {(time.monotonic() - taken) * 1000:.3f}")


def _take(connection: sqlite3.Connection, wait_ms: int) -> float | None:
    """Ask again and again at short intervals: SQLite's own waiting asks ever less often, and a busy writer would starve it."""
    deadline = time.monotonic() + wait_ms / 1000
    while not _begin(connection):
        if time.monotonic() > deadline:
            _answer("busy")
            return None
        time.sleep(_INTERVAL_S)
    taken = time.monotonic()
    _answer(f"taken {time.time_ns()}")
    return taken


def _begin(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("begin immediate")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _command(timeout_s: float | None) -> list[str]:
    """The words of the next line; none when the input ended or the time is over."""
    line = b""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([_INPUT], [], [], left)[0]:
            return []
        byte = os.read(_INPUT, 1)
        if not byte:
            return []
        line += byte
    return line.decode("ascii").split()


def _answer(text: str) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more: the next read says so too
        os.write(_OUTPUT, (" ".join(text.split()) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

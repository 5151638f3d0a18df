"""SQLite files: how they are named to SQLite and opened, without ever changing one that is only looked at."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

MAIN_SUFFIXES = ("-journal", "-wal", "-shm")


def uri(path: Path, **parameters: str) -> str:
    """The URI of a file for SQLite (sqlite.org/uri.html), whatever bytes its name holds."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"file:{quote(os.fsencode(path))}?{query}"


def open_read_only(path: Path, *, wait_s: float = 5.0) -> sqlite3.Connection:
    """A connection that never writes and never checkpoints; waits at most `wait_s` for a lock. Raises sqlite3.Error."""
    return sqlite3.connect(uri(path, mode="ro"), uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)


def beside(path: Path, suffix: str) -> Path:
    """The journal, log or index that SQLite keeps beside a database."""
    return path.with_name(path.name + suffix)

"""SQLite files: how they are named to SQLite and opened, without ever changing one that is only looked at."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from storekeeper.host import load
from storekeeper.outcomes import Failed, StorekeeperError

SUFFIXES = ("-journal", "-wal", "-shm")
PATIENCE_S = 5.0
_STEP_BYTES = 16 << 20


def uri(path: Path, **parameters: str) -> str:
    """The URI of a file for SQLite (sqlite.org/uri.html), whatever bytes its name holds."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"file:{quote(os.fsencode(path))}?{query}"


def quoted(name: str) -> str:
    """A name in a query, whatever characters it has (sqlite.org/lang_keywords.html)."""
    return '"' + name.replace('"', '""') + '"'


def open_read_only(path: Path, *, wait_s: float = PATIENCE_S) -> sqlite3.Connection:
    """A connection that changes no row; waits at most `wait_s` for a lock. Raises sqlite3.Error.

    Where there is a log, with `mode=ro`, so that closing it never checkpoints. Where there is none, as any program that may write:
    what a crash left half done is rolled back, and a log and index made for reading are removed again.
    """
    if os.path.lexists(beside(path, "-wal")) or not os.access(path, os.W_OK):
        return _open(uri(path, mode="ro"), wait_s)
    connection = _open(uri(path, mode="rw"), wait_s)
    connection.execute("pragma query_only=1")
    connection.execute("pragma wal_autocheckpoint=0")
    return connection


def open_sealed(path: Path) -> sqlite3.Connection:
    """A connection to a file that nobody changes, such as an artefact: no lock, no journal, nothing made beside it."""
    return _open(uri(path, mode="ro", immutable="1"), PATIENCE_S)


def open_writable(path: Path, *, wait_s: float = PATIENCE_S) -> sqlite3.Connection:
    """A connection to an existing file that rolls an unfinished transaction back first and leaves checkpoints to others.

    What it commits is on disk (`synchronous=extra`, for a rollback journal too). Raises sqlite3.Error.
    """
    connection = _open(uri(path, mode="rw"), wait_s)
    connection.execute("pragma wal_autocheckpoint=0")
    connection.execute("pragma synchronous=3")
    return connection


def make(path: Path) -> sqlite3.Connection:
    """A connection to a file that is made when missing; its contents are fsynced by the caller, once they are whole."""
    connection = _open(uri(path, mode="rwc"), PATIENCE_S)
    connection.execute("pragma synchronous=0")
    return connection


def copy_pages(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy what a read transaction of `source` sees, no faster than this run may."""
    page = int(source.execute("pragma page_size").fetchone()[0])
    left: int | None = None

    def told(_: int, remaining: int, total: int) -> None:
        nonlocal left
        load.spend(((total if left is None else left) - remaining) * page)
        left = remaining

    source.backup(target, pages=max(1, load.piece(_STEP_BYTES) // page), progress=told, sleep=0)


@contextmanager
def explained(path: Path, kind: type[StorekeeperError] = Failed) -> Iterator[None]:
    """What SQLite says, as a sentence about the file: Failed when it is damaged, else the error of this kind."""
    try:
        yield
    except sqlite3.Error as error:
        if _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Failed(f"{path} is damaged: {error}") from error
        raise kind(f"{path} cannot be read or written: {error}") from error
    except UnicodeError as error:
        raise kind(f"{path} has a name in its schema that is no UTF-8") from error


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else's lock was in the way; the extended codes count too (sqlite.org/rescode.html)."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def beside(path: Path, suffix: str) -> Path:
    """The journal, log or index that SQLite keeps beside a database."""
    return path.with_name(path.name + suffix)


def _open(address: str, wait_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    return connection


def _primary(error: sqlite3.Error) -> int:
    """The code without its extension; 0 for an error of the module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")

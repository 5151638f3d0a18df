"""A mark of a place: a word that is another whenever what the place holds may be another. None where nobody can promise that."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from storekeeper.host import processes, stamps
from storekeeper.host.processes import Command
from storekeeper.outcomes import StorekeeperError
from storekeeper.stores import databases

_HEADER = 48  # bytes of the log's index that say which transaction was the last; they stand there twice
_PATIENCE_S = 10.0


def mark(*words: Any) -> str:
    """One word of many; the same for the same, of this version of SQLite."""
    return hashlib.sha256(json.dumps([sqlite3.sqlite_version, *words], default=str).encode()).hexdigest()


def of_database(path: Path, *words: Any) -> str | None:
    """The mark of a SQLite file, by whichever connection it is written.

    Without a log a transaction is written into the file before anybody can read it, which sets the ctime. What is in a log can be read
    from when its index says so, which is memory of all users and has no times: the sums in it stand for all of the log. It is read by
    another process: closing a file that SQLite has locked in this one would let go of its locks.
    """
    try:
        found = {suffix: _status(databases.beside(path, suffix)) for suffix in ("-journal", "-wal")}
        there = [os.stat(path), *(status for status in [found["-journal"]] if status is not None)]
        if not stamps.is_known(path) or not stamps.are_settled(there):
            return None
        log = found["-wal"]
        read = None if log is None or log.st_size == 0 else _of_log(path, log)
        return mark(str(path), [stamps.stamp_of(status) for status in there], read, *words)
    except (OSError, StorekeeperError):
        return None


def _of_log(path: Path, log: os.stat_result) -> tuple[int | str, ...]:
    """Its ctime says nothing: SQLite sets the owner whenever root opens it. Raises OSError while the index is being written."""
    command = Command(["head", "-c", str(2 * _HEADER), "--", databases.beside(path, "-shm")])
    index = processes.run(command, timeout=_PATIENCE_S).stdout
    if len(index) != 2 * _HEADER or index[:_HEADER] != index[_HEADER:]:
        raise OSError("the index of the log is being written")
    return (log.st_dev, log.st_ino, log.st_size, log.st_mtime_ns, index.hex())


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


# Functions of SQLite that say the same of the same, whenever and by whomever they are asked (sqlite.org/lang_corefunc.html).
_NUMBERS = {"abs", "avg", "count", "max", "min", "round", "sign", "sum", "total"}
_TEXTS = {
    "char",
    "concat",
    "concat_ws",
    "format",
    "glob",
    "group_concat",
    "hex",
    "instr",
    "length",
    "like",
    "lower",
    "ltrim",
    "octet_length",
}
_TEXTS |= {"printf", "quote", "replace", "rtrim", "string_agg", "substr", "substring", "trim", "unhex", "unicode", "upper"}
_JSON = {"->", "->>", "json", "json_array", "json_array_length", "json_each", "json_extract", "json_group_array", "json_group_object"}
_JSON |= {"json_object", "json_quote", "json_tree", "json_type", "json_valid"}
_PURE = _NUMBERS | _TEXTS | _JSON | {"coalesce", "ifnull", "iif", "nullif", "typeof"}


def says_the_same(path: Path, query: str) -> bool:
    """Whether the rows of a query follow from the database alone: it asks for no time, no chance, and nothing of the connection."""
    asked: list[str] = []

    def note(action: int, _first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            asked.append(str(second).lower())
        return sqlite3.SQLITE_OK

    try:
        with closing(databases.open_read_only(path)) as connection:
            connection.set_authorizer(note)
            connection.execute(f"explain {query}").fetchone()  # of a declared query, which is one select
    except sqlite3.Error:
        return False
    return _PURE.issuperset(asked)

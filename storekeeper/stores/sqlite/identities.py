"""Which documents a SQLite database says there are, read by a declared query that can do nothing but read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from storekeeper.outcomes import Refused, Unknown
from storekeeper.stores import databases
from storekeeper.stores.databases import quoted
from storekeeper.stores.identities import Identity, Remarks, RowsSource, SqlSource, identities
from storekeeper.stores.sqlite.contents import column_of

# What a query may ask SQLite for; it may change nothing, attach nothing and set nothing (sqlite.org/c3ref/c_alter_table.html).
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def live(path: Path, source: SqlSource | RowsSource, remarks: Remarks) -> Iterator[Identity]:
    """Of the live file, in no order, in one read transaction that lasts as long as it is read: read it to its end at once.

    Raises Refused for a query that does not run or has other columns than declared, Unknown where the file cannot be read.
    """
    with databases.explained(path, Unknown), closing(databases.open_read_only(path)) as connection:
        yield from read(connection, source, remarks)


def sealed(path: Path, source: SqlSource | RowsSource, remarks: Remarks) -> Iterator[Identity]:
    """The same of a copy that nobody changes."""
    with databases.explained(path), closing(databases.open_sealed(path)) as connection:
        yield from read(connection, source, remarks)


def read(connection: sqlite3.Connection, source: SqlSource | RowsSource, remarks: Remarks) -> Iterator[Identity]:
    """The same of an open database, which this connection can only read from here on."""
    connection.set_authorizer(only_reads)
    query, columns = _asked(source)
    try:
        cursor = connection.execute(query)
    except sqlite3.OperationalError as error:
        if databases.is_busy(error):
            raise
        raise Refused(f"the query does not run: {error}") from error
    except sqlite3.DatabaseError as error:
        if "not authorized" not in str(error) and "prohibited" not in str(error):
            raise
        raise Refused(f"the query does more than read: {error}") from error
    found = [each[0] for each in cursor.description]
    if isinstance(source, SqlSource):
        source.refuse_other_columns(found)
    yield from identities(columns[: len(found)], cursor, remarks)


def only_reads(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:  # noqa: ARG001 - SQLite's
    """An authorizer under which a statement can do nothing but read, and loads no code."""
    if action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _asked(source: SqlSource | RowsSource) -> tuple[str, tuple[str, ...]]:
    if isinstance(source, SqlSource):
        return source.query, source.columns
    column = column_of(source.table, source.column)
    return f"select {column}, count(*) from {quoted(source.table)} group by {column}", ("id", "chunks")  # noqa: S608 - quoted

"""What a SQLite database holds: tables with counts and digests, the numbers in its header, and what is wrong with it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from storekeeper.outcomes import Failed
from storekeeper.stores.databases import quoted
from storekeeper.stores.protocol import Content, Facts
from storekeeper.stores.rows import digest_rows

SCHEMA = "sqlite_schema"  # names the digest of everything that is no row; no table of an application can be called so
MARKER = "_storekeeper_switch_"  # begins the name of a table that stands in a database for the instant of a switch
# Virtual tables have no pages of their own (their shadow tables do); statistics are the planner's, not the application's.
_TABLES = """
    select name from sqlite_master
    where type = 'table' and rootpage > 0 and name not glob 'sqlite_stat[0-9]' and name not glob '_storekeeper_switch_*'
    order by name
"""
_SCHEMA = """
    select type, name, tbl_name, sql from sqlite_master
    where tbl_name not glob 'sqlite_stat[0-9]' and tbl_name not glob '_storekeeper_switch_*'
    union all
    select 'header', encoding, application_id, user_version from pragma_encoding, pragma_application_id, pragma_user_version
    order by 1, 2, 3
"""
_SHAPE = ("page_size", "auto_vacuum", "encoding")
_DAMAGES_SHOWN = 3


@dataclass(frozen=True)
class Shape:
    """What every connection to a database keeps in memory from its first look: it cannot change under an open one."""

    page_size: int
    auto_vacuum: int
    encoding: str

    @classmethod
    def of(cls, facts: Facts) -> Shape:
        """Raises KeyError, TypeError or ValueError for facts that `header` did not write."""
        return cls(int(facts["page_size"]), int(facts["auto_vacuum"]), str(facts["encoding"]))

    def difference(self, other: Shape) -> str | None:
        """`page_size 4096, not 1024`, of the first that differs; None when none does."""
        for name in _SHAPE:
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                return f"{name} {mine}, not {others}"
        return None


def tables(connection: sqlite3.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TABLES).fetchall()]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows by table."""
    return {name: _count(connection, name) for name in tables(connection)}


def read(connection: sqlite3.Connection) -> Content:
    """Counts and digests of all tables, in one pass. A table is read in the order of its rowid, or, WITHOUT ROWID, sorted by the
    columns of its primary key.

    The digest `sqlite_schema` is that of the rows (type, name, tbl_name, sql) of the schema in this order, and before them of
    ('header', encoding, application_id, user_version).
    """
    found: dict[str, int] = {}
    digests = {SCHEMA: schema_digest(connection)}
    for name in tables(connection):
        found[name], digests[name] = digest_rows(connection, _rows_of(connection, name))
    return Content(found, digests)


def schema_digest(connection: sqlite3.Connection) -> str:
    return digest_rows(connection, _SCHEMA)[1]


def header(connection: sqlite3.Connection) -> Facts:
    """What the file's header says of it (sqlite.org/pragma.html)."""
    names = (*_SHAPE, "application_id", "user_version")
    return {name: connection.execute(f"pragma {name}").fetchone()[0] for name in names}


def shape(connection: sqlite3.Connection) -> Shape:
    return Shape.of(header(connection))


def journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("pragma journal_mode").fetchone()[0])


def refuse_damage(connection: sqlite3.Connection, what: str) -> None:
    """Check every page, row, index and constraint (`integrity_check`; `quick_check` misses indexes). Raises Failed."""
    try:
        found = [str(line) for (line,) in connection.execute(f"pragma integrity_check({_DAMAGES_SHOWN})")]
    except sqlite3.DatabaseError as error:
        raise Failed(f"{what} is damaged: {error}") from error
    if found != ["ok"]:
        raise Failed(f"{what} is damaged: {'; '.join(' '.join(line.split()) for line in found)}")


def dangling(connection: sqlite3.Connection) -> dict[str, int | str]:
    """By table, how many rows refer to a row that is not there, which integrity_check does not look at.

    A sentence stands instead of a number where SQLite cannot tell, as for a key that refers to columns that are not unique.
    """
    found: dict[str, int | str] = {}
    for name in tables(connection):
        try:
            count = sum(1 for _ in connection.execute(f"pragma foreign_key_check({quoted(name)})"))
        except sqlite3.OperationalError as error:
            if "mismatch" not in str(error):
                raise
            found[name] = str(error)
            continue
        if count:
            found[name] = count
    return found


def column_of(table: str, name: str) -> str:
    """A column in a query. Without its table, a quoted name that is no column is a text to SQLite (sqlite.org/quirks.html)."""
    return f"{quoted(table)}.{quoted(name)}"


def _rows_of(connection: sqlite3.Connection, table: str) -> str:
    """`not indexed` keeps SQLite from reading a covering index in that one's order; for a table without rowid it does not."""
    query = f"select * from {quoted(table)} not indexed"  # noqa: S608 - quoted
    kept = "select name from pragma_table_info(?) where pk > 0 and (select wr from pragma_table_list(?) where schema = 'main') order by pk"
    key = [quoted(str(name)) for (name,) in connection.execute(kept, (table, table))]
    return f"{query} order by {', '.join(key)}" if key else query


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"select count(*) from {quoted(table)}").fetchone()[0])  # noqa: S608 - quoted

"""A database with the schema of another one and none of its rows, but those of tables that are to be kept.

It is made from the schema's own statements, as `.dump` does: no page of the source is copied, so nothing that was deleted travels along,
and what a virtual table keeps in other tables is made by its module, empty and working.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores import databases

_SHAPE = ("page_size", "encoding", "auto_vacuum")  # in this order, and before the first table
_HEADER = ("application_id", "user_version")
_SEQUENCE = "sqlite_sequence"
_OURS = "_storekeeper_switch_"  # begins the name of a table that stands in a database for the instant of a switch
# What stands in the file for nobody but SQLite: statistics, and what it makes itself.
_SCHEMA = """
    select type, name, tbl_name, sql from sqlite_master
    where tbl_name not glob 'sqlite_stat[0-9]' and tbl_name not glob '_storekeeper_switch_*' order by {}"""
CONTENT_ELSEWHERE = re.compile(r"""\bcontent\s*=\s*['"]?[A-Za-z_]""", re.IGNORECASE)
_ROWIDS = ("rowid", "_rowid_", "oid")
_AT_ONCE = 1000

Line = tuple[str, str, str, str | None]  # of the schema: type, name, table, statement
Statements = dict[str, list[tuple[str, str]]]  # name and statement, by kind


def make(source: sqlite3.Connection, target: Path, keep: Collection[str]) -> None:
    """Make the file `target`, with a rollback journal, from what a read transaction of `source` sees. It is fsynced by the caller.

    Raises Refused for a table in `keep` that is not there or has no rows of its own, and where a module of a virtual table is missing;
    Failed where what was made has another schema.
    """
    source.execute("begin")
    try:
        wanted = _schema(source)
        _refuse_unkept(wanted, keep)
        with closing(databases.make(target)) as made:
            take_shape(made, source)
            made.execute("begin")
            _make_schema(made, source, wanted, keep)
            take_header(made, source)
            made.execute("commit")
            _refuse_difference(wanted, _schema(made))
    finally:
        source.execute("rollback")


def make_bare(source: sqlite3.Connection, target: Path) -> None:
    """Make the file `target` with the shape of what `source` reads and no table. The numbers in its header are 0: they are the
    application's, as the tables are.
    """
    with closing(databases.make(target)) as made:
        take_shape(made, source)
        made.execute("begin")
        _make_and_drop(made)  # the encoding is written with the first table, and stays
        made.execute("commit")


def take_shape(made: sqlite3.Connection, source: sqlite3.Connection) -> None:
    """What has to be said of a file before its first table is made."""
    for name in _SHAPE:
        made.execute(f"pragma {name}={_text(source.execute(f'pragma {name}').fetchone()[0])}")


def take_header(made: sqlite3.Connection, source: sqlite3.Connection) -> None:
    """The numbers that an application keeps in the header."""
    for name in _HEADER:
        made.execute(f"pragma {name}={int(source.execute(f'pragma {name}').fetchone()[0])}")


def _schema(connection: sqlite3.Connection) -> list[Line]:
    return connection.execute(_SCHEMA.format("type, name, tbl_name")).fetchall()


def _make_schema(made: sqlite3.Connection, source: sqlite3.Connection, wanted: list[Line], keep: Collection[str]) -> None:
    """Rows come before indexes and triggers: the first are quicker so, the second must not fire."""
    found = statements(source)
    make_tables(made, found, has_sequence=any(name == _SEQUENCE for _, name, _, _ in wanted))
    for table in keep:
        _copy_rows(made, source, table)
    for name, statement in found["virtual"]:
        if keep and CONTENT_ELSEWHERE.search(statement):  # what it indexes may have been kept
            made.execute(f"insert into {databases.quoted(name)} ({databases.quoted(name)}) values ('rebuild')")  # noqa: S608 - quoted
    for kind in ("index", "view", "trigger"):
        for name, statement in found[kind]:
            execute(made, name, statement)


def make_tables(made: sqlite3.Connection, found: Statements, *, has_sequence: bool) -> None:
    """All tables, and nothing else. Raises Refused where a module of a virtual table is missing."""
    if has_sequence:  # it stays where the last table that needed it is gone
        _make_and_drop(made, "integer primary key autoincrement")
    for kind in ("virtual", "table"):  # modules make tables of their own, which then are there
        for name, statement in found[kind]:
            if not _is_there(made, name):
                execute(made, name, statement)


def _make_and_drop(made: sqlite3.Connection, kind: str = "") -> None:
    """What the first table of its kind leaves in a file."""
    made.execute(f"create table {_OURS}first (id {kind})")
    made.execute(f"drop table {_OURS}first")


def statements(source: sqlite3.Connection) -> Statements:
    """Name and statement of all that can be made, by kind, in the order in which it was made."""
    found: Statements = {kind: [] for kind in ("virtual", "table", "index", "view", "trigger")}
    for kind, name, _, statement in source.execute(_SCHEMA.format("rowid")):
        if statement is not None and name != _SEQUENCE:
            found["virtual" if _is_virtual(kind, statement) else kind].append((name, statement))
    return found


def _is_virtual(kind: str, statement: str) -> bool:
    return kind == "table" and statement.lstrip().lower().startswith("create virtual")


def _is_there(made: sqlite3.Connection, name: str) -> bool:
    return made.execute("select 1 from sqlite_master where name = ?", (name,)).fetchone() is not None


def execute(made: sqlite3.Connection, name: str, statement: str) -> None:
    """Run a statement of the schema. Raises Refused where a module of a virtual table is missing."""
    try:
        made.execute(statement)
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):
            raise Refused(f"{name} is a virtual table, and SQLite has no such module here ({error}): it cannot be made empty") from error
        raise


def _copy_rows(made: sqlite3.Connection, source: sqlite3.Connection, table: str) -> None:
    columns = [str(name) for (name,) in source.execute("select name from pragma_table_xinfo(?) where hidden = 0", (table,))]
    names = [*_rowid_of(source, table, columns), *map(databases.quoted, columns)]
    listed, marks = ", ".join(names), ", ".join("?" * len(names))
    rows = source.execute(f"select {listed} from {databases.quoted(table)} not indexed")  # noqa: S608 - quoted
    try:
        while some := rows.fetchmany(_AT_ONCE):
            made.executemany(f"insert into {databases.quoted(table)} ({listed}) values ({marks})", some)  # noqa: S608 - quoted
    except UnicodeEncodeError as error:
        raise Failed(f"the rows of {table} hold a text that is no UTF-8, and cannot be kept") from error
    if _is_there(source, _SEQUENCE):
        last = source.execute("select name, seq from sqlite_sequence where name = ?", (table,)).fetchall()
        made.execute("delete from sqlite_sequence where name = ?", (table,))
        made.executemany("insert into sqlite_sequence values (?, ?)", last)


def _rowid_of(source: sqlite3.Connection, table: str, columns: list[str]) -> list[str]:
    """The name by which a table's rowid can be read and written, which full-text indexes refer to; none for a table without."""
    (without,) = source.execute("select wr from pragma_table_list where schema = 'main' and name = ?", (table,)).fetchone()
    taken = {name.lower() for name in columns}
    return [] if without else [name for name in _ROWIDS if name not in taken][:1]


def _refuse_unkept(wanted: list[Line], keep: Collection[str]) -> None:
    tables = {name: statement or "" for kind, name, _, statement in wanted if kind == "table"}
    for name in keep:
        if name not in tables:
            raise Refused(f"the rows of {name} are to be kept, and there is no such table", next="correct `reset: {keep: ...}`")
        if name == _SEQUENCE or _is_virtual("table", tables[name]):
            raise Refused(f"{name} has no rows of its own that could be kept", next="correct `reset: {keep: ...}`")


def _refuse_difference(wanted: list[Line], found: list[Line]) -> None:
    if differing := set(wanted) ^ set(found):
        kind, name, _, _ = min(differing, key=str)
        raise Failed(f"the schema cannot be made anew here as it is: {kind} {name} came out otherwise")


def _text(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)

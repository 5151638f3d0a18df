"""How the rows of a table are stored, and how they are written into a table of the same schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from storekeeper.stores.databases import quoted
from storekeeper.stores.sqlite.decoding import Text, Value
from storekeeper.stores.sqlite.walking import Row

_AT_ONCE = 1000
_ROWIDS = ("rowid", "_rowid_", "oid")
_GENERATED = (2, 3)  # in table_xinfo: virtual, stored
_VIRTUAL = 2


@dataclass(frozen=True)
class Form:
    """A table that is to be filled. `stored` are the columns of a record in their order, `written` those that an insert names.

    `rowid` is the name under which the rowid is written; `alias` is the column that is the rowid itself, of which a record holds nothing.
    """

    table: str
    is_index: bool
    stored: tuple[str, ...]
    written: tuple[str, ...]
    needed: frozenset[str]
    defaults: dict[str, Value]
    rowid: str | None
    alias: str | None

    @classmethod
    def of(cls, connection: sqlite3.Connection, table: str) -> Form:
        columns = connection.execute('select name, type, "notnull", dflt_value, pk, hidden from pragma_table_xinfo(?)', (table,)).fetchall()
        (is_index,) = connection.execute("select wr from pragma_table_list where schema = 'main' and name = ?", (table,)).fetchone()
        key = connection.execute("select name from pragma_index_list(?) where origin = 'pk'", (table,)).fetchone()
        virtual = {name for name, *_, hidden in columns if hidden == _VIRTUAL}
        if is_index:
            order = connection.execute("select name from pragma_index_xinfo(?) order by seqno", (key[0],))
            stored = [name for (name,) in order if name not in virtual]
        else:
            stored = [name for name, *_ in columns if name not in virtual]
        numbers = [name for name, kind, _, _, pk, _ in columns if pk and str(kind).upper() == "INTEGER"]
        alias = numbers[0] if numbers and not is_index and key is None else None
        taken = {name.lower() for name, *_ in columns}
        free = next((name for name in _ROWIDS if name not in taken), None)
        return cls(
            table,
            bool(is_index),
            tuple(stored),
            tuple(name for name, *_, hidden in columns if hidden not in _GENERATED),
            frozenset(name for name, _, notnull, *_ in columns if notnull and name != alias),
            {name: _default(connection, text) for name, _, _, text, _, _ in columns if text is not None},
            None if is_index or alias is not None else free,
            alias,
        )

    @property
    def names(self) -> str:
        return ", ".join([*([self.rowid] if self.rowid else []), *map(quoted, self.written)])

    def given(self, row: Row) -> list[Value] | None:
        """What an insert is given; None for a row that has more columns than the table."""
        if len(row.values) > len(self.stored):
            return None
        held: dict[str, Value] = {**self.defaults, **dict(zip(self.stored, row.values, strict=False))}
        if self.alias is not None:
            held[self.alias] = row.rowid
        return [*([row.rowid] if self.rowid else []), *(held.get(name) for name in self.written)]

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether rows that nothing leads to can be of this table."""
        for row in rows:
            held = dict(zip(self.stored, row.values, strict=False))
            if len(row.values) > len(self.stored) or any(held.get(name, self.defaults.get(name)) is None for name in self.needed):
                return False
            if self.alias is not None and held.get(self.alias) is not None:
                return False
        return True

    def has_all_columns(self, rows: Sequence[Row]) -> bool:
        """Whether such rows have every column; those from before a column was added have fewer."""
        return all(len(row.values) == len(self.stored) for row in rows)


def write(connection: sqlite3.Connection, form: Form, rows: Iterable[Row]) -> int:
    """Insert the rows; returns how many the table itself has refused, by a key, a check or a column that must not be null."""
    refused = 0
    waiting: Iterator[Row] = iter(rows)
    while some := list(islice(waiting, _AT_ONCE)):
        given = [each for each in map(form.given, some) if each is not None]
        refused += len(some) - len(given)
        if not _all_are_written(connection, form, given):
            refused += sum(_is_refused(connection, form, each) for each in given)
    return refused


def _all_are_written(connection: sqlite3.Connection, form: Form, given: Sequence[Sequence[Value]]) -> bool:
    """False, with nothing written, where they have to be written one by one."""
    if any(isinstance(value, Text) for each in given for value in each):
        return False
    if not given:
        return True
    connection.execute("savepoint rows")
    try:
        connection.executemany(_insert(form, [False] * len(given[0])), given)
    except (sqlite3.IntegrityError, sqlite3.DataError):
        connection.execute("rollback to rows")
        return False
    finally:
        connection.execute("release rows")
    return True


def _is_refused(connection: sqlite3.Connection, form: Form, given: Sequence[Value]) -> bool:
    try:
        connection.execute(_insert(form, [isinstance(value, Text) for value in given]), given)
    except (sqlite3.IntegrityError, sqlite3.DataError):
        return True
    return False


def _insert(form: Form, is_cast: Sequence[bool]) -> str:
    marks = ", ".join("cast(? as text)" if each else "?" for each in is_cast)
    return f"insert into main.{quoted(form.table)} ({form.names}) values ({marks})"  # noqa: S608 - quoted


def _default(connection: sqlite3.Connection, text: str) -> Value:
    """What a column holds in rows that were written before it was added: only a constant can be (sqlite.org/lang_altertable.html)."""
    try:
        found: Value = connection.execute(f"select {text}").fetchone()[0]
    except sqlite3.Error:
        return None
    return found

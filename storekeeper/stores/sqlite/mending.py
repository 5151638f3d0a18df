"""Takes the rows of documents out of a SQLite database, and puts them back, each in one transaction."""

from __future__ import annotations

import base64
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from storekeeper.outcomes import Failed, Refused
from storekeeper.stack.rules import Rows
from storekeeper.stores import databases
from storekeeper.stores.databases import quoted
from storekeeper.stores.mending import Carried, Piece, Wanted, matched
from storekeeper.stores.sqlite.contents import column_of

PATIENCE_S = 30.0
_AT_ONCE = 500  # values in one statement


class SqliteMender(Carried):
    """The declared rows of one database."""

    at_once = 500

    def __init__(self, live: Path, rows: Sequence[Rows]) -> None:
        self._live = live
        self._rows = rows

    @contextmanager
    def grip(self, wanted: Sequence[Wanted]) -> Iterator[SqliteGrip]:
        """In one transaction that no other writer can come into. Raises Refused where undeclared rows refer to what is removed."""
        with self._transaction() as connection:
            grip = SqliteGrip(connection, self._rows, [each.document for each in wanted])
            yield grip
            grip.finish()

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        with self._transaction() as connection:
            tables: dict[str, Table] = {}
            for piece in pieces:
                name = str(piece["table"])
                table = tables.setdefault(name, Table.of(connection, name))
                if (sentence := table.put_back(connection, piece)) is not None:
                    yield sentence

    def told(self, piece: Piece) -> Piece:
        return _compared(piece)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with databases.explained(self._live), closing(databases.open_writable(self._live, wait_s=PATIENCE_S)) as connection:
            connection.execute("begin immediate")
            yield connection
            connection.execute("commit")


class Table:
    """A table as rows are read from it and written to it: `rowid` where it has one that is no column of its own."""

    def __init__(self, name: str, columns: Sequence[str], key: Sequence[str], rowid: str | None) -> None:
        self.name = name
        self.columns = columns
        self._key = key
        self.rowid = rowid

    @classmethod
    def of(cls, connection: sqlite3.Connection, name: str) -> Table:
        """Raises Refused where there is no such table."""
        found = connection.execute("select name, type, pk, hidden from pragma_table_xinfo(?)", (name,)).fetchall()
        kind = connection.execute("select type, wr from pragma_table_list(?) where schema = 'main'", (name,)).fetchone()
        if not found or kind is None or kind[0] != "table":
            raise Refused(f"there is no table {name}", next="look at `rows` in the stack file")
        columns = [str(column) for column, _, _, hidden in found if hidden == 0]
        key = [str(column) for column, _, number, _ in sorted(found, key=lambda each: each[2]) if number]
        is_alias = len(key) == 1 and any(column == key[0] and str(kind).upper() == "INTEGER" for column, kind, _, _ in found)
        taken = {column.lower() for column in columns}
        free = next((each for each in ("rowid", "oid", "_rowid_") if each not in taken), None)
        return cls(name, columns, key, None if kind[1] or is_alias else free)

    def select(self, where: str) -> str:
        words = [*([self.rowid] if self.rowid else []), *map(quoted, self.columns)]
        return f"select {', '.join(words)} from {quoted(self.name)} where {where}"  # noqa: S608 - quoted

    def piece(self, row: Sequence[object]) -> Piece:
        values = list(row[1:] if self.rowid else row)
        return {
            "table": self.name,
            "rowid": row[0] if self.rowid else None,
            "row": dict(zip(self.columns, map(_told, values), strict=True)),
        }

    def delete(self, connection: sqlite3.Connection, piece: Piece) -> None:
        where, values = self._same(piece)
        if connection.execute(f"delete from {quoted(self.name)} where {where}", values).rowcount != 1:  # noqa: S608 - quoted
            raise Failed(f"a row of {self.name} was not there any more when it was to be removed")

    def put_back(self, connection: sqlite3.Connection, piece: Piece) -> str | None:
        """Insert a row unless it is there. A sentence where another stands in its place."""
        row: Mapping[str, Any] = piece["row"]
        if sorted(row) != sorted(self.columns):
            return f"a row of {self.name} has other columns than the table has now: it was left out"
        where, values = self._same(piece)
        there = connection.execute(self.select(where), values).fetchone()
        if there is not None and self.piece(there)["row"] == row:
            return None
        words, given = list(map(quoted, self.columns)), [_read(row[column]) for column in self.columns]
        if self.rowid and there is None:
            words, given = [self.rowid, *words], [piece["rowid"], *given]
        marks = ", ".join("?" * len(given))
        try:
            connection.execute(f"insert into {quoted(self.name)} ({', '.join(words)}) values ({marks})", given)  # noqa: S608 - quoted
        except sqlite3.IntegrityError as error:
            return f"a row of {self.name} cannot be put back: {error}"
        return None

    def _same(self, piece: Piece) -> tuple[str, list[Any]]:
        """What finds this row and no other."""
        if self.rowid:
            return f"{self.rowid} = ?", [piece["rowid"]]
        return " and ".join(f"{quoted(column)} is ?" for column in self._key), [_read(piece["row"][column]) for column in self._key]


class SqliteGrip:
    """The rows of some documents, read in the transaction in which they are removed."""

    def __init__(self, connection: sqlite3.Connection, rows: Sequence[Rows], documents: Sequence[str]) -> None:
        self._connection = connection
        self._rows = rows
        self._tables = {each.table: Table.of(connection, each.table) for each in rows}
        self._found = {document: self._read(rows, document) for document in documents}
        self._removing: list[Piece] = []

    def pieces(self, document: str) -> Sequence[Piece]:
        return self._found[document]

    def remove(self, documents: Collection[str]) -> None:
        self._removing = [piece for document in documents for piece in self._found[document]]

    def finish(self) -> None:
        if not self._removing:
            return
        before = self._dangling()
        for piece in reversed(self._removing):  # children stand after what they refer to
            self._tables[piece["table"]].delete(self._connection, piece)
        for table, _ in self._dangling() - before:
            raise _referred(table)

    def exchange(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        before, found = self._dangling(), self._found[document]
        going = matched(found, away, _compared).both
        coming = matched(found, here, _compared).beyond
        for piece in reversed(going):
            self._tables[piece["table"]].delete(self._connection, piece)
        for piece in coming:
            if (sentence := self._tables[piece["table"]].put_back(self._connection, piece)) is not None:
                raise Refused(f"{sentence}: nothing was changed")
        self._found[document] = self._read(self._rows, document)
        for table, parent in self._dangling() - before:
            needed = (self._needed(piece, parent) for piece in coming if piece["table"] == table)
            raise next((each for each in needed if each is not None), _referred(table))

    def rehearse(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        self._connection.execute("savepoint rehearsal")
        try:
            self.exchange(document, away, here)
        finally:
            self._connection.execute("rollback to rehearsal")
            self._connection.execute("release rehearsal")
            self._found[document] = self._read(self._rows, document)

    def _needed(self, piece: Piece, parent: str) -> Refused | None:
        """What says which row of another table a row needs that is not there; None where it needs none."""
        keys = self._connection.execute(
            'select id, "from", "to" from pragma_foreign_key_list(?) where "table" = ?', (piece["table"], parent)
        )
        by_key: dict[int, list[tuple[str, str | None]]] = {}
        for number, column, to in keys.fetchall():
            by_key.setdefault(number, []).append((column, to))
        for columns in by_key.values():
            values = [_read(piece["row"][column]) for column, _ in columns]
            if None in values:
                continue
            names = [to for _, to in columns if to is not None] or self._key_of(parent)
            where = " and ".join(f"{quoted(name)} = ?" for name in names)
            if self._connection.execute(f"select 1 from {quoted(parent)} where {where}", values).fetchone() is None:  # noqa: S608 - quoted
                said = ", ".join(f"{name} {value!r:.80}" for name, value in zip(names, values, strict=True))
                return Refused(
                    f"a row of {piece['table']} needs the row of {parent} with {said}, which is not there: nothing was changed",
                    next=f"bring the row of {parent} back first",
                )
        return None

    def _key_of(self, table: str) -> list[str]:
        return [
            str(name) for (name,) in self._connection.execute("select name from pragma_table_info(?) where pk > 0 order by pk", (table,))
        ]

    def _read(self, rows: Sequence[Rows], document: str) -> list[Piece]:
        found: list[Piece] = []
        by_table: dict[str, list[Piece]] = {}
        for each in rows:
            table = self._tables[each.table]
            if each.of is None:
                values: list[Any] = _spellings(document)
            else:
                values = [_read(piece["row"][each.to]) for piece in by_table.get(each.of, ())]
            mine = [piece for piece in self._select(table, each.key, values) if piece not in by_table.get(each.table, ())]
            if each.of is None:
                mine = [piece for piece in mine if str(_read(piece["row"][each.key])) == document]
            by_table.setdefault(each.table, []).extend(mine)
            found += mine
        return found

    def _select(self, table: Table, key: str, values: Sequence[Any]) -> Iterator[Piece]:
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            query = table.select(f"{column_of(table.name, key)} in ({', '.join('?' * len(some))})")
            yield from map(table.piece, self._connection.execute(query, some))

    def _dangling(self) -> Counter[tuple[str, str]]:
        """By table and the table referred to, how many rows refer to a row that is not there."""
        counts: Counter[tuple[str, str]] = Counter()
        try:
            for table, _, parent, _ in self._connection.execute("pragma foreign_key_check"):
                counts[table, parent] += 1
        except sqlite3.OperationalError as error:
            if "mismatch" not in str(error):  # keys that SQLite cannot check were none before either
                raise
        return counts


def _compared(piece: Piece) -> Piece:
    """Without its rowid, which says nothing of a row's contents."""
    return {"name": piece["table"], "row": piece["row"]}


def _referred(table: str) -> Refused:
    return Refused(f"rows of {table} refer to what would be removed: nothing was removed", next=f"name {table} in the `rows` of the rule")


def _spellings(document: str) -> list[Any]:
    """An id as the text and as the number that it may be stored as."""
    is_number = document.lstrip("-").isdecimal() and len(document) < 19 and str(int(document)) == document
    return [document, int(document)] if is_number else [document]


def _told(value: object) -> Any:
    """A value as JSON keeps it exactly: numbers and text as they are, but for fractions and bytes."""
    if isinstance(value, float):
        return {"real": value.hex()}
    if isinstance(value, bytes):
        return {"blob": base64.b64encode(value).decode()}
    return value


def _read(told: Any) -> Any:
    if isinstance(told, dict):
        return float.fromhex(told["real"]) if "real" in told else base64.b64decode(told["blob"])
    return told

"""Takes the rows of documents out of a PostgreSQL database, and puts them back, each in one transaction.

Values travel as the text that the server itself writes and reads; the session's settings make it exact (`connection.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import psycopg
from psycopg import sql

from storekeeper.outcomes import Refused
from storekeeper.stack.rules import Rows
from storekeeper.stores.mending import Carried, Piece, Wanted, matched
from storekeeper.stores.postgresql.connection import Connection, asking, rows, sentence_of
from storekeeper.stores.postgresql.identities import table_of

_COLUMNS = """
select attname, attgenerated <> '' from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum"""
_KEY = """
select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = %s::regclass and i.indisprimary"""
_HOLDS_ALL_ITS_ROWS = """
select c.relkind = 'r' and not exists (select from pg_inherits i where i.inhparent = c.oid) from pg_class c where c.oid = %s::regclass"""
# Foreign keys that change other rows when one that they refer to is removed, or its key is changed.
_FOLLOWING = """
select c.conrelid::regclass::text, c.confdeltype in ('c', 'n', 'd'), c.confupdtype in ('c', 'n', 'd'),
    (select array_agg(a.attname::text order by k.place) from unnest(c.conkey) with ordinality k (number, place)
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.number),
    (select array_agg(a.attname::text order by k.place) from unnest(c.confkey) with ordinality k (number, place)
        join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.number)
from pg_constraint c where c.contype = 'f' and c.confrelid = %s::regclass"""
_LOCK = "60s"


class PostgresqlMender(Carried):
    """The declared rows of one database; `session` opens a connection to it."""

    at_once = 500

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]], declared: Sequence[Rows]) -> None:
        self._session = session
        self._rows = declared

    @contextmanager
    def grip(self, wanted: Sequence[Wanted]) -> Iterator[PostgresqlGrip]:
        """In one transaction that has locked the rows. Raises Refused where undeclared rows refer to what is removed."""
        with self._session() as connection, _waiting(connection), connection.transaction():
            grip = PostgresqlGrip(connection, self._rows, [each.document for each in wanted])
            yield grip
            grip.finish()

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        with self._session() as connection, _waiting(connection), connection.transaction():
            tables: dict[str, Table] = {}
            counted = Counter((str(each["table"]), tuple(each["row"].items())) for each in pieces)  # one document's, in order
            for (name, row), count in counted.items():
                table = tables.setdefault(name, Table(connection, name))
                if (sentence := table.put_back(dict(row), count)) is not None:
                    yield sentence

    def told(self, piece: Piece) -> Piece:
        return _compared(piece)


@contextmanager
def _waiting(connection: Connection) -> Iterator[None]:
    with asking("rows could not be mended"):
        connection.execute(f"set lock_timeout = '{_LOCK}'")
        yield


class Table:
    """A table with the columns that can be written. Raises Refused for one whose rows are elsewhere: in partitions, in tables that
    inherit from it, or behind a view. They would be taken for none, since a row is found again by its place in its own table.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.identifier = table_of(name)
        self._connection = connection
        try:
            found = rows(connection, _COLUMNS, (self.identifier.as_string(connection),))
            ((is_whole,),) = rows(connection, _HOLDS_ALL_ITS_ROWS, (self.identifier.as_string(connection),))
        except psycopg.errors.UndefinedTable:
            raise Refused(f"there is no table {name}", next="look at `rows` in the stack file") from None
        if not is_whole:
            raise Refused(
                f"{name} does not hold its rows itself: they are in its partitions, in tables that inherit from it, or behind a view",
                next=f"name those tables in `rows` of the stack file, and not {name}",
            )
        self.columns = [str(column) for column, is_made in found if not is_made]
        self._key = [str(column) for (column,) in rows(connection, _KEY, (self.identifier.as_string(connection),))]

    def select(self, key: str, values: Sequence[str]) -> list[tuple[str, Piece]]:
        """Rows whose key is one of these, locked, each with what finds it again in this transaction."""
        query = sql.SQL("select ctid::text, {} from only {} where {}::text = any(%s) for update").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in self.columns),
            self.identifier,
            sql.Identifier(key),
        )
        found = rows(self._connection, query, (list(values),))
        return [(place, {"table": self.name, "row": dict(zip(self.columns, row, strict=True))}) for place, *row in found]

    def key_of(self, row: dict[str, str | None]) -> tuple[str | None, ...] | None:
        """What the primary key of a row is; None where the table has none."""
        return tuple(row[column] for column in self._key) if self._key else None

    def delete(self, places: Sequence[str]) -> None:
        """Raises Refused where other rows refer to these, also where the server would change those without a word."""
        for child, follows_removal, _, columns, to in rows(self._connection, _FOLLOWING, (self.identifier.as_string(self._connection),)):
            if follows_removal and self._is_referred(child, columns, to, places):
                raise _referred(child.rpartition(".")[2])
        query = sql.SQL("delete from only {} where ctid = any(%s::tid[])").format(self.identifier)
        try:
            self._connection.execute(query, (list(places),))
        except psycopg.errors.ForeignKeyViolation as error:
            raise _referred(str(error.diag.table_name)) from None

    def update(self, place: str, before: dict[str, str | None], after: dict[str, str | None]) -> None:
        """Have a row hold other values under the same key, so that what refers to it goes on doing so."""
        changed = [column for column in self.columns if before[column] != after[column]]
        for child, _, follows_change, columns, to in rows(self._connection, _FOLLOWING, (self.identifier.as_string(self._connection),)):
            if follows_change and set(to) & set(changed) and self._is_referred(child, columns, to, [place]):
                raise _referred(child.rpartition(".")[2])
        words = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in changed)
        query = sql.SQL("update only {} set {} where ctid = %s::tid").format(self.identifier, words)
        self._connection.execute(query, [*(after[column] for column in changed), place])

    def insert(self, row: dict[str, str | None]) -> None:
        columns = [sql.Identifier(column) for column in row]
        query = sql.SQL("insert into {} ({}) overriding system value values ({})").format(
            self.identifier, sql.SQL(", ").join(columns), sql.SQL(", ").join([sql.SQL("%s")] * len(columns))
        )
        self._connection.execute(query, list(row.values()))

    def _is_referred(self, child: str, columns: Sequence[str], to: Sequence[str], places: Sequence[str]) -> bool:
        """Whether rows of another table, or others of this one, refer to these. `child` is as the server quotes it."""
        same = sql.SQL(" and ").join(
            sql.SQL("c.{} = p.{}").format(sql.Identifier(column), sql.Identifier(key)) for column, key in zip(columns, to, strict=True)
        )
        query = sql.SQL(
            "select exists (select from {} c join only {} p on {} where p.ctid = any(%s::tid[])"
            " and not (c.tableoid = p.tableoid and c.ctid = any(%s::tid[])))"
        ).format(sql.SQL(child), self.identifier, same)
        ((found,),) = rows(self._connection, query, (list(places), list(places)))
        return bool(found)

    def put_back(self, row: dict[str, str | None], count: int) -> str | None:
        """Have a row so many times. A sentence where another stands in its place."""
        if sorted(row) != sorted(self.columns):
            return f"a row of {self.name} has other columns than the table has now: it was left out"
        columns = [sql.Identifier(column) for column in row]
        same = sql.SQL(" and ").join(sql.SQL("{}::text is not distinct from %s").format(column) for column in columns)
        ((there,),) = rows(
            self._connection, sql.SQL("select count(*) from only {} where {}").format(self.identifier, same), list(row.values())
        )
        try:
            with self._connection.transaction():
                for _ in range(count - int(there)):
                    self.insert(row)
        except psycopg.errors.IntegrityError as error:
            return f"a row of {self.name} cannot be put back: {sentence_of(error)}"
        return None


class PostgresqlGrip:
    """The rows of some documents, locked in the transaction in which they are removed."""

    def __init__(self, connection: Connection, declared: Sequence[Rows], documents: Sequence[str]) -> None:
        self._connection = connection
        self._declared = declared
        self._tables = {each.table: Table(connection, each.table) for each in declared}
        self._found = {document: self._read(declared, document) for document in documents}
        self._removing: list[tuple[str, Piece]] = []

    def pieces(self, document: str) -> Sequence[Piece]:
        return [piece for _, piece in self._found[document]]

    def remove(self, documents: Collection[str]) -> None:
        self._removing = [found for document in documents for found in self._found[document]]

    def finish(self) -> None:
        for name in reversed(list(self._tables)):  # children stand after what they refer to
            places = [place for place, piece in self._removing if piece["table"] == name]
            if places:
                self._tables[name].delete(places)

    def exchange(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        """A row whose primary key stays is changed in its place: rows that refer to it may be nobody's of the rule."""
        places = {id(piece): place for place, piece in self._found[document]}
        found = self.pieces(document)
        going, coming = matched(found, away, _compared).both, matched(found, here, _compared).beyond
        for piece in coming:
            if sorted(piece["row"]) != sorted(self._tables[piece["table"]].columns):
                raise Refused(f"a row of {piece['table']} has other columns than the table has now: nothing was changed")
        try:
            self._write(places, going, coming)
        except psycopg.errors.ForeignKeyViolation as error:
            said = error.diag.message_detail or sentence_of(error)
            raise Refused(
                f"a row of {error.diag.table_name} cannot be put there: {said.rstrip('.')}: nothing was changed",
                next="bring back first what it needs",
            ) from None
        except psycopg.errors.IntegrityError as error:
            raise Refused(f"a row cannot be put there: {sentence_of(error)}: nothing was changed") from None
        self._found[document] = self._read(self._declared, document)

    def rehearse(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        with self._connection.transaction(force_rollback=True):
            self.exchange(document, away, here)
        self._found[document] = self._read(self._declared, document)

    def _write(self, places: dict[int, str], going: Sequence[Piece], coming: Sequence[Piece]) -> None:
        keyed = {(piece["table"], self._tables[piece["table"]].key_of(piece["row"])): piece for piece in going}
        changed = [
            (before, piece)
            for piece in coming
            if (key := self._tables[piece["table"]].key_of(piece["row"])) is not None
            and (before := keyed.get((piece["table"], key))) is not None
        ]
        kept, placed = {id(before) for before, _ in changed}, {id(piece) for _, piece in changed}
        for name in reversed(list(self._tables)):
            if gone := [places[id(piece)] for piece in going if piece["table"] == name and id(piece) not in kept]:
                self._tables[name].delete(gone)
        for before, piece in changed:
            self._tables[piece["table"]].update(places[id(before)], before["row"], piece["row"])
        for piece in coming:
            if id(piece) not in placed:
                self._tables[piece["table"]].insert(dict(piece["row"]))
        self._connection.execute("set constraints all immediate")

    def _read(self, declared: Sequence[Rows], document: str) -> list[tuple[str, Piece]]:
        found: list[tuple[str, Piece]] = []
        by_table: dict[str, dict[str, Piece]] = {}
        for each in declared:
            if each.of is None:
                values = [document]
            else:
                above = by_table.get(each.of, {}).values()
                values = [value for piece in above if (value := piece["row"][str(each.to)]) is not None]
            mine = by_table.setdefault(each.table, {})
            new = [(place, piece) for place, piece in self._tables[each.table].select(each.key, values) if place not in mine]
            mine.update(new)
            found += new
        return found


def _compared(piece: Piece) -> Piece:
    return {"name": piece["table"], "row": piece["row"]}


def _referred(table: str) -> Refused:
    return Refused(f"rows of {table} refer to what would be removed: nothing was removed", next=f"name {table} in the `rows` of the rule")

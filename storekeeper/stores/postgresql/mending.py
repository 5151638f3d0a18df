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
from storekeeper.stores.mending import Piece, Wanted
from storekeeper.stores.postgresql.connection import Connection, asking, rows, sentence_of
from storekeeper.stores.postgresql.identities import table_of

_COLUMNS = """
select attname, attgenerated <> '' from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum"""
_LOCK = "60s"


class PostgresqlMender:
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


@contextmanager
def _waiting(connection: Connection) -> Iterator[None]:
    with asking("rows could not be mended"):
        connection.execute(f"set lock_timeout = '{_LOCK}'")
        yield


class Table:
    """A table with the columns that can be written."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.identifier = table_of(name)
        self._connection = connection
        try:
            found = rows(connection, _COLUMNS, (self.identifier.as_string(connection),))
        except psycopg.errors.UndefinedTable:
            raise Refused(f"there is no table {name}", next="look at `rows` in the stack file") from None
        self.columns = [str(column) for column, is_made in found if not is_made]

    def select(self, key: str, values: Sequence[str]) -> list[tuple[str, Piece]]:
        """Rows whose key is one of these, locked, each with what finds it again in this transaction."""
        query = sql.SQL("select ctid::text, {} from only {} where {}::text = any(%s) for update").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in self.columns),
            self.identifier,
            sql.Identifier(key),
        )
        found = rows(self._connection, query, (list(values),))
        return [(place, {"table": self.name, "row": dict(zip(self.columns, row, strict=True))}) for place, *row in found]

    def delete(self, places: Sequence[str]) -> None:
        query = sql.SQL("delete from only {} where ctid = any(%s::tid[])").format(self.identifier)
        try:
            self._connection.execute(query, (list(places),))
        except psycopg.errors.ForeignKeyViolation as error:
            raise Refused(
                f"rows of {error.diag.table_name} refer to what would be removed: nothing was removed",
                next=f"name {error.diag.table_name} in the `rows` of the rule",
            ) from None

    def put_back(self, row: dict[str, str | None], count: int) -> str | None:
        """Have a row so many times. A sentence where another stands in its place."""
        if sorted(row) != sorted(self.columns):
            return f"a row of {self.name} has other columns than the table has now: it was left out"
        columns = [sql.Identifier(column) for column in row]
        same = sql.SQL(" and ").join(sql.SQL("{}::text is not distinct from %s").format(column) for column in columns)
        ((there,),) = rows(
            self._connection, sql.SQL("select count(*) from only {} where {}").format(self.identifier, same), list(row.values())
        )
        insert = sql.SQL("insert into {} ({}) overriding system value values ({})").format(
            self.identifier, sql.SQL(", ").join(columns), sql.SQL(", ").join([sql.SQL("%s")] * len(columns))
        )
        try:
            with self._connection.transaction():
                for _ in range(count - int(there)):
                    self._connection.execute(insert, list(row.values()))
        except psycopg.errors.IntegrityError as error:
            return f"a row of {self.name} cannot be put back: {sentence_of(error)}"
        return None


class PostgresqlGrip:
    """The rows of some documents, locked in the transaction in which they are removed."""

    def __init__(self, connection: Connection, declared: Sequence[Rows], documents: Sequence[str]) -> None:
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

"""What a PostgreSQL database answers to a declared query, in a transaction that cannot write, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from storekeeper.outcomes import Failed, Refused
from storekeeper.stack.queries import numbered
from storekeeper.stores.postgresql.connection import Connection, sentence_of
from storekeeper.stores.postgresql.identities import WRONG
from storekeeper.stores.questions import SECONDS, Answer, Question, collected

_CURSOR = "storekeeper_query"
_AT_ONCE = 100
_AS_THEY_ARE = ("bool", "bytea", "int2", "int4", "int8", "oid", "float4", "float8")


def answer(connection: Connection, question: Question, seconds: float = SECONDS) -> Answer:
    """In one read-only transaction that is rolled back. Values are parameters of the server's; tables are found as the role would.

    Rows that row security hides from the role are an error, and never left out. Raises Refused for a query that does not run or writes,
    Failed for one that takes longer than `seconds`.
    """
    query, names = numbered(question.query)
    _load_as_text(connection)
    try:
        with connection.transaction(force_rollback=True), psycopg.RawServerCursor(connection, _CURSOR) as cursor:
            connection.execute("set transaction read only")
            connection.execute("set local search_path to default")
            connection.execute(f"set local statement_timeout = '{seconds * 1000:.0f}ms'")
            cursor.itersize = min(_AT_ONCE, question.rows + 1)
            cursor.execute(query, [question.values[name] for name in names])
            return collected([each.name for each in cursor.description or ()], _rows(cursor), question.rows)
    except psycopg.errors.QueryCanceled:
        raise Failed(f"the query was ended after {seconds:g} s", next="let it read less, or declare an index for it") from None
    except WRONG as error:
        raise Refused(f"the query does not run: {sentence_of(error)}") from None
    except psycopg.Error as error:
        raise Failed(f"the query was cut off: {sentence_of(error)}") from None


def _rows(cursor: psycopg.RawServerCursor[Any]) -> Iterator[tuple[object, ...]]:
    yield from cursor


class _Text(Loader):
    """The server's own text of a value: no date is too late for it, and no number too long. Bytes where it is no UTF-8."""

    def load(self, data: Buffer) -> str | bytes:
        try:
            return bytes(data).decode()
        except UnicodeDecodeError:
            return bytes(data)


class _Number(Loader):
    """Of any length, and NaN."""

    def load(self, data: Buffer) -> Decimal:
        return Decimal(bytes(data).decode())


def _load_as_text(connection: Connection) -> None:
    """All types but the plain ones, from here on and on this connection only."""
    for each in connection.adapters.types:
        if each.name not in _AS_THEY_ARE:
            connection.adapters.register_loader(each.oid, _Number if each.name == "numeric" else _Text)
        if each.array_oid:
            connection.adapters.register_loader(each.array_oid, _Text)

"""Which documents a PostgreSQL database says there are, read by a declared query in a transaction that cannot write."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.identities import Identity, Remarks, RowsSource, SqlSource, identities
from storekeeper.stores.postgresql.connection import Connection, sentence_of

_AT_ONCE = 2000
_CURSOR = "storekeeper_ids"
# The statement itself is wrong, as the server says it: a name that is not there, a type, a right, a value, or something that writes. The
# names of SQLSTATE's classes are no base classes of what is in them.
WRONG = (
    psycopg.ProgrammingError,
    psycopg.DataError,
    psycopg.NotSupportedError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.ActiveSqlTransaction,
)


def read(connection: Connection, source: SqlSource | RowsSource, remarks: Remarks) -> Iterator[Identity]:
    """In no order, through a cursor of the server, in the transaction that is open or in one of its own.

    A declared query finds its tables as the role would: by the search path of the role and the database. Rows that row security hides from
    the role are an error, and never left out. Raises Refused for a query that does not run, writes, or has other columns than declared.
    """
    query, columns = asked(source)
    try:
        # Rolled back also when it ends well: a transaction that was open before gets its own settings again.
        with connection.transaction(force_rollback=True), connection.cursor(name=_CURSOR) as cursor:
            connection.execute("set transaction read only")
            connection.execute("set local search_path to default")
            cursor.itersize = _AT_ONCE
            cursor.execute(query)
            found = [each.name for each in cursor.description or ()]
            if isinstance(source, SqlSource):
                source.refuse_other_columns(found)
            yield from identities(columns[: len(found)], cursor, remarks)
    except WRONG as error:
        raise Refused(f"the query does not run: {sentence_of(error)}") from None
    except psycopg.Error as error:
        raise Failed(f"the query was cut off: {sentence_of(error)}") from None


def asked(source: SqlSource | RowsSource) -> tuple[sql.SQL | sql.Composed, tuple[str, ...]]:
    """The query of a place, and what its columns are."""
    if isinstance(source, SqlSource):
        return sql.SQL(source.query), source.columns  # one select, as the stack file's model holds
    column = sql.Identifier(source.column)
    return sql.SQL("select {0}, count(*) from {1} group by {0}").format(column, table_of(source.table)), ("id", "chunks")


def table_of(name: str) -> sql.Identifier:
    """`schema.table`, or a table of the schema public."""
    schema, _, table = name.rpartition(".")
    return sql.Identifier(schema or "public", table)

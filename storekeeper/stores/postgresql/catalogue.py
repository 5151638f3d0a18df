"""What a database is made of: its tables and their columns, its sequences, its shape. The queries stand beside this file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql

from storekeeper.outcomes import Refused
from storekeeper.stores.postgresql.connection import Connection, rows, value
from storekeeper.stores.protocol import Facts

_SHOWN = 5  # names in a sentence; more are counted
LARGE_OBJECTS = "pg_catalog.pg_largeobject"  # the object that large objects are counted and digested as
_AT_ONCE = 100  # sequences read by one statement


@dataclass(frozen=True)
class Table:
    """A table, or the parent of a partitioned one (kind `p`), which holds no rows itself."""

    oid: int
    schema: str
    name: str
    kind: str
    readable: bool | None  # None: it went away while it was looked at
    filtered: bool
    of_extension: bool

    @property
    def key(self) -> str:
        """The OBJECT of counts and digests."""
        return key_of(self.schema, self.name)

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def has_rows(self) -> bool:
        """Whether a dump of the database holds its rows as the database's own."""
        return self.kind == "r" and not self.of_extension


@dataclass(frozen=True)
class Column:
    """`send` is the function that gives a vector's binary form, as schema and name; None for every other type."""

    name: str
    send: tuple[str, str] | None


@cache
def query(name: str) -> bytes:
    return resources.files(__package__).joinpath(f"{name}.sql").read_bytes()


def tables(connection: Connection) -> list[Table]:
    return [Table(*row) for row in rows(connection, query("tables"))]


def columns(connection: Connection, of: Sequence[Table]) -> dict[int, list[Column]]:
    """The columns of these tables by the tables' oid, sorted by name."""
    found: dict[int, list[Column]] = {table.oid: [] for table in of}
    for oid, name, schema, function in rows(connection, query("columns"), ([table.oid for table in of],)):
        found[oid].append(Column(name, None if function is None else (schema, function)))
    return found


def counts(connection: Connection) -> dict[str, int]:
    """Rows by table, and large objects where there are any; of no one moment. Raises Refused when this role may not read all of them."""
    found = {}
    for table in require_readable(tables(connection)):
        if not table.has_rows:
            continue
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):  # it went away since it was listed
            found[table.key] = value(connection, sql.SQL("select count(*) from only {}").format(table.identifier))
    large = value(connection, "select count(*) from pg_largeobject_metadata")
    return {**found, LARGE_OBJECTS: large} if large else found


def require_readable(found: Sequence[Table]) -> Sequence[Table]:
    """The same tables, without those that went away meanwhile. Raises Refused when this role would miss a table or rows of one."""
    found = [table for table in found if table.readable is not None]
    if denied := [table.key for table in found if not table.readable]:
        raise Refused(
            f"the role may not read {named(denied)}", next="grant pg_read_all_data to the role, or declare the owner of the database"
        )
    if filtered := [table.key for table in found if table.filtered]:
        raise Refused(
            f"row security hides rows of {named(filtered)} from the role: a backup would miss them", next="alter role ROLE bypassrls"
        )
    return found


def unreadable_large_objects(connection: Connection) -> int:
    return int(
        value(
            connection,
            "select count(*) from pg_largeobject_metadata m where not pg_has_role(m.lomowner, 'usage') and not exists (select"
            " from aclexplode(m.lomacl) a where a.privilege_type = 'SELECT' and (a.grantee = 0 or pg_has_role(a.grantee, 'usage')))",
        )
    )


def shape(connection: Connection) -> Iterator[list[str | None]]:
    """Everything but rows and expressions, sorted: equal before a dump and after its restore on the same major version.

    The session must be in a transaction: the server keeps what was not read yet.
    """
    sorted_by_bytes = b"select words from (" + query("shape") + b') as shape (words) order by words collate "C"'
    with connection.cursor("shape") as cursor:
        cursor.itersize = 1000
        for (words,) in cursor.execute(sorted_by_bytes):
            yield words


def sequences(connection: Connection) -> dict[str, Facts]:
    """Where each sequence stands now, whatever the snapshot: sequences are outside transactions."""
    listed = rows(connection, query("sequences"))
    found: dict[str, Facts] = {}
    for start in range(0, len(listed), _AT_ONCE):
        batch = listed[start : start + _AT_ONCE]
        one = sql.SQL("select {}::int, last_value, is_called from {}")
        statement = sql.SQL(" union all ").join(one.format(index, sql.Identifier(row[0], row[1])) for index, row in enumerate(batch))
        for index, last, called in rows(connection, statement):
            schema, name, increment, cycles = batch[index]
            found[f"{_part(schema)}.{_part(name)}"] = {"last": last, "called": called, "increment": increment, "cycles": cycles}
    return found


def sequence_is_between(before: Mapping[str, Any], after: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether a restored sequence stands where it stood at some time between two looks at it."""
    if before["cycles"] and before != after:
        return True
    low, high = sorted((before["last"], after["last"]))
    if not low <= found["last"] <= high:
        return False
    return low != high or found["called"] in (before["called"], after["called"])


def index_memory(connection: Connection, counts: Mapping[str, int]) -> int:
    """Bytes in which the largest graph index of vectors can be built at once; 0 where there is none."""
    sizes = [0]
    for schema, name, dimensions in rows(connection, query("graphs")):
        sizes.append(counts.get(f"{_part(schema)}.{_part(name)}", 0) * (dimensions * 4 + 300))
    return max(sizes)


def changed_collations(connection: Connection) -> list[str]:
    """Those in use whose order of text the system has changed since indexes were made by it."""
    if connection.info.server_version < 150000:
        return []
    return [words for (words,) in rows(connection, query("collations"))]


def named(keys: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(keys[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"


def key_of(schema: str, name: str) -> str:
    """How a table or a sequence is named in counts, digests and sentences."""
    return f"{_part(schema)}.{_part(name)}"


def _part(name: str) -> str:
    """A name as it is, in quotes only where a dot or a quote in it would leave open which part is which."""
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name

"""Digests of rows that do not depend on their order, on the session, or on the server's version.

Each row is hashed by the server: sha256 over the text of its columns in the order of their names, a vector standing as the sha256 of
its binary form. The rows' hashes are added modulo 2^256 as they stream by, so memory stays flat, and the digest of a table is the
sha256 of the number of rows and that sum. Equal rows count as often as they are there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from storekeeper.stores.postgresql import catalogue
from storekeeper.stores.postgresql.catalogue import LARGE_OBJECTS, Column, Table
from storekeeper.stores.postgresql.connection import Connection, rows, unless_silent, value
from storekeeper.stores.protocol import Content

_MODULUS = 1 << 256
_HEADER_BYTES = 19  # signature, flags and length of the extension area (manual of COPY, "Binary Format")
_ROW = struct.Struct("!hi4Q")  # one field of 32 bytes
_PIECE = 1 << 20
_AT_ONCE = 1 << 18
SILENCE_SECONDS = 1800.0  # without a single piece of rows: the server hangs


@dataclass
class Multiset:
    """A bag of sha256 hashes, of which only the number and the sum are kept."""

    count: int = 0
    total: int = 0

    def add(self, hashed: bytes) -> None:
        self.count += 1
        self.total = (self.total + int.from_bytes(hashed)) % _MODULUS

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.count.to_bytes(8) + self.total.to_bytes(32)).hexdigest()


def content(connection: Connection, tables: Sequence[Table]) -> Content:
    """Counts and digests of all rows and large objects that this session's transaction sees."""
    found = {}
    with unless_silent(connection, SILENCE_SECONDS) as beat:
        columns = catalogue.columns(connection, tables)
        for table in tables:
            if table.has_rows:
                found[table.key] = of_table(connection, table, columns[table.oid], beat)
        large = of_large_objects(connection, beat)
    if large.count:
        found[LARGE_OBJECTS] = large
    return Content({key: each.count for key, each in found.items()}, {key: each.digest for key, each in found.items()})


def of_table(connection: Connection, table: Table, columns: Sequence[Column], beat: Callable[[], None]) -> Multiset:
    """The table's own rows, without those of tables that inherit from it. `beat` is called for every piece that arrives."""
    beat()
    fields = sql.SQL(", ").join(_field(column) for column in columns)
    encoding = value(connection, "select getdatabaseencoding()")
    statement = sql.SQL("copy (select sha256(convert_to(row({})::text, {})) from only {}) to stdout (format binary)").format(
        fields, encoding, table.identifier
    )
    with connection.cursor() as cursor, cursor.copy(statement) as stream:
        return _sum_of((bytes(chunk) for chunk in stream), beat)


def of_large_objects(connection: Connection, beat: Callable[[], None]) -> Multiset:
    """Number and contents of all large objects, read piece by piece."""
    found = Multiset()
    for (oid,) in rows(connection, "select oid from pg_largeobject_metadata order by oid"):
        digest, offset = hashlib.sha256(f"{oid}:".encode()), 0
        while piece := bytes(value(connection, "select lo_get(%s::oid, %s::bigint, %s)", (oid, offset, _PIECE))):
            digest.update(piece)
            offset += len(piece)
            beat()
        found.add(digest.digest())
    return found


def _field(column: Column) -> sql.Composable:
    name = sql.Identifier(column.name)
    return name if column.send is None else sql.SQL("sha256({}({}))").format(sql.Identifier(*column.send), name)


def _sum_of(chunks: Iterable[bytes], beat: Callable[[], None]) -> Multiset:
    """Add up the rows of a binary COPY of one sha256 a row."""
    high = upper = lower = low = count = 0
    waiting = bytearray()
    skip = _HEADER_BYTES
    for chunk in _gathered(chunks):
        beat()
        waiting += chunk[skip:]
        skip = 0
        whole = len(waiting) // _ROW.size * _ROW.size
        for _, _, a, b, c, d in _ROW.iter_unpack(memoryview(waiting)[:whole]):
            high, upper, lower, low = high + a, upper + b, lower + c, low + d
        count += whole // _ROW.size
        del waiting[:whole]
    total = (high << 192) + (upper << 128) + (lower << 64) + low
    return Multiset(count, total % _MODULUS)


def _gathered(chunks: Iterable[bytes]) -> Iterable[bytes]:
    gathered, size = [], 0
    for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _AT_ONCE:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)

"""What a query's rows hold, as one sha256 that anybody can compute again.

The digest is that of all values one after another, row by row in the query's order, column by column. A value is a letter for its
storage class (sqlite.org/datatype3.html), the length of its bytes in decimal, a colon, and the bytes:

    n0:             NULL
    i8:........     INTEGER, 8 bytes, two's complement, big-endian
    r8:........     REAL, 8 bytes, IEEE 754, big-endian
    tLENGTH:...     TEXT, as UTF-8, or as the bytes that are stored where they are no UTF-8
    bLENGTH:...     BLOB

All rows of one query have the same number of columns, so nothing stands between rows. No rows: the sha256 of nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any

from storekeeper.host import load

_ROWS = 64  # joined before they are hashed: enough to be fast, few enough for rows that hold large values
_integer = struct.Struct(">3sq").pack
_real = struct.Struct(">3sd").pack
# Text is read as bytearray: a type of its own beside the bytes of a BLOB, made without decoding.
_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n0:",
    int: lambda value: _integer(b"i8:", value),
    float: lambda value: _real(b"r8:", value),
    bytearray: lambda value: b"t%d:%b" % (len(value), value),
    bytes: lambda value: b"b%d:%b" % (len(value), value),
}


def digest_rows(connection: sqlite3.Connection, query: str) -> tuple[int, str]:
    """How many rows a query has, and the sha256 of them as `sha256:HEX`. Memory stays flat. Raises sqlite3.Error."""
    before, connection.text_factory = connection.text_factory, bytearray
    try:
        return _digest(connection.execute(query))
    finally:
        connection.text_factory = before


def _digest(cursor: sqlite3.Cursor) -> tuple[int, str]:
    digest, count, encoders = hashlib.sha256(), 0, _ENCODERS
    while rows := cursor.fetchmany(_ROWS):
        count += len(rows)
        encoded = b"".join([encoders[type(value)](value) for value in chain.from_iterable(rows)])
        digest.update(encoded)
        load.spend(len(encoded))
    return count, f"sha256:{digest.hexdigest()}"

"""The values of a stored row (sqlite.org/fileformat2.html#record_format), bit by bit as they were written."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from storekeeper.stores.sqlite.pages import Damaged, varint

_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL, _ZERO, _ONE, _BLOB = 7, 8, 9, 12


class Text(bytes):
    """What is stored as a text and is none in the database's encoding: only a cast brings it back as it is."""


Value = int | float | str | bytes | None


def values_of(payload: bytes, encoding: str) -> list[Value]:
    """The columns of a record. Raises Damaged unless it is exactly as long as it says."""
    size, position = varint(payload, 0)
    if not position <= size <= len(payload):
        raise Damaged("a row's header is longer than the row")
    codes = []
    while position < size:
        code, position = varint(payload, position)
        codes.append(code)
    if position != size:
        raise Damaged("a row's header ends in the middle of a number")
    return _read(payload, size, codes, encoding)


def _read(payload: bytes, position: int, codes: Sequence[int], encoding: str) -> list[Value]:
    found: list[Value] = []
    for code in codes:
        length = _length(code)
        part = payload[position : position + length]
        if len(part) < length:
            raise Damaged("a value ends behind its row")
        found.append(_value(code, part, encoding))
        position += length
    if position != len(payload):
        raise Damaged("a row is longer than its values")
    return found


def _length(code: int) -> int:
    if code >= _BLOB:
        return (code - _BLOB) // 2
    if code in (10, 11):
        raise Damaged("a value has a type that there is not")
    return 8 if code == _REAL else _INTEGERS.get(code, 0)


def _value(code: int, part: bytes, encoding: str) -> Value:
    if code in _INTEGERS:
        return int.from_bytes(part, "big", signed=True)
    if code >= _BLOB:
        return part if code % 2 == 0 else _text(part, encoding)
    if code == _REAL:
        return float(struct.unpack(">d", part)[0])
    return None if code == 0 else int(code == _ONE)


def _text(part: bytes, encoding: str) -> Value:
    try:
        return part.decode(encoding)
    except UnicodeDecodeError:
        return Text(part)

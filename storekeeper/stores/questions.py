"""One question to a store in its own language, and the answer in values that any terminal and any program can take."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

SECONDS = 30.0  # no answer takes longer
MOST_BYTES = 16 << 20  # of one answer; what is beyond is cut like rows beyond the limit

Plain = None | bool | int | float | str | dict[str, str]


@dataclass(frozen=True)
class Question:
    """One select with the text of each `:name` in it, null for None; at most `rows` are wanted, and with 0 only whether the store
    understands it: nothing is read.
    """

    query: str
    values: Mapping[str, str | None]
    rows: int


@dataclass(frozen=True)
class Answer:
    """The first rows, and whether there are `more`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Plain]]
    more: bool


def collected(columns: Sequence[str], found: Iterable[Sequence[object]], most: int) -> Answer:
    """Read no more than is told: at most so many rows, and not more than fits an answer."""
    rows: list[list[Plain]] = []
    size = 0
    if not most:
        return Answer(tuple(columns), rows, more=False)
    for each in found:
        row = [plain(value) for value in each]
        size += sum(_size(value) for value in row)
        if len(rows) == most or (rows and size > MOST_BYTES):
            return Answer(tuple(columns), rows, more=True)
        rows.append(row)
    return Answer(tuple(columns), rows, more=False)


def plain(value: object) -> Plain:
    """A value as JSON can hold it: bytes as `{"base64": ...}`, numbers that JSON has no word for as `{"number": ...}`, the rest as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(Decimal(value))}
    if isinstance(value, Decimal):
        return {"number": str(value)}
    return str(value)


def _size(value: Plain) -> int:
    return len(value) if isinstance(value, str) else sum(len(each) for each in value.values()) if isinstance(value, dict) else 8

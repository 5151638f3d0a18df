"""One collection as Chroma answers it against our own reading of the files, document by document."""

from __future__ import annotations

import base64
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma.catalogue import Collection
from storekeeper.stores.chroma.rows import CollectionRows, Row, vector_of

PAGE = 1000  # documents a question; SQLite takes at most 32,766 variables
_ROUNDING = 1e-4  # relative: what normalising a vector and multiplying it by its length again may change

_encode = json.JSONEncoder(sort_keys=True).encode  # tells 1, 1.0 and true apart, which Python calls equal

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def compare(collection: Collection, rows: CollectionRows, counted: int, ask: Ask) -> None:
    """Raises Failed at the first document that Chroma does not answer, or answers otherwise; also when it has more than the set."""
    question = {"tenant": collection.tenant, "database": collection.database, "collection": collection.name}
    count = 0
    for page in _pages(rows):
        answered = {answer[0]: answer for answer in ask({**question, "ids": [row.id for row in page]})["rows"]}
        for row in page:
            if row.id not in answered:
                raise Failed(f"collection {collection.key}: Chroma does not answer document {row.id!r}")
            said = _difference(rows, row, vector_of(row, collection), answered[row.id])
            if said is not None:
                raise Failed(f"collection {collection.key}: document {row.id!r} {said}")
        count += len(page)
    if count != counted:
        raise Failed(f"collection {collection.key}: Chroma counts {counted} documents, the set holds {count}")


def _difference(rows: CollectionRows, row: Row, stored: bytes, answered: list[Any]) -> str | None:
    """What Chroma answers otherwise than it is in the set, in words."""
    _, text, uri, metadata, vector = answered
    pairs = (("text", row.text, text), ("URI", row.uri, uri), ("metadata", _encode(row.plain), _encode(metadata or {})))
    for what, expected, found in pairs:
        if expected != found:
            return f"has another {what} in Chroma than in the set"
    data = base64.b64decode(vector)
    numbers = array("f", data)
    if not all(map(math.isfinite, numbers)):
        return "has a vector with a number that is not finite"
    if data == stored or data == rows.scaled(row) or (row.pending and _nearly(array("f", stored), numbers)):
        return None
    return "has another vector in Chroma than in the set"


def _nearly(expected: array[float], found: array[float]) -> bool:
    """Equal but for rounding: a vector of the queue is normalised and scaled back on its way through a cosine index."""
    allowed = _ROUNDING * max(map(abs, expected), default=0.0)
    return len(expected) == len(found) and all(abs(one - other) <= allowed for one, other in zip(expected, found, strict=True))


def _pages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    page: list[Row] = []
    for row in rows:
        page.append(row)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page

"""Which documents a collection holds chunks of, read from chroma.sqlite3 with the queue's operations applied.

The tables of the metadata segment are counted by SQLite itself; each chunk that the queue still changes is then taken from the count
that it stood in, and added to the one that it belongs to now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storekeeper.outcomes import Unknown
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.rows import Metadata, metadata_after
from storekeeper.stores.identities import CollectionSource, Identity, Remarks, owner_of, text_of

_VALUE = (
    "coalesce({0}.string_value, {0}.int_value, {0}.float_value, {0}.bool_value), {0}.float_value is not null or {0}.bool_value is not null"
)
_STORED = f"""
select {_VALUE.format("m")}, coalesce(o.string_value, o.int_value), count(*)
from embeddings e
left join embedding_metadata m on m.id = e.id and m.key = :key
left join embedding_metadata o on o.id = e.id and o.key = :owner
where e.segment_id = :segment group by 1, 2, 3"""  # noqa: S608 - of constants
_ONE = """
select m.key, coalesce(m.string_value, m.int_value, m.float_value, m.bool_value)
from embeddings e left join embedding_metadata m on m.id = e.id and m.key in (:key, :owner)
where e.segment_id = :segment and e.embedding_id = :id"""


def live(directory: Path, source: CollectionSource, remarks: Remarks) -> Iterator[Identity]:
    """Of the live directory, in no order, in one short read transaction: read it to its end at once, since writers wait."""
    with open_catalogue(directory, sealed=False) as catalogue:
        catalogue.connection.execute("begin")
        yield from read(catalogue, source, remarks)


def sealed(directory: Path, source: CollectionSource, remarks: Remarks) -> Iterator[Identity]:
    """The same of a copy that nobody changes."""
    with open_catalogue(directory, sealed=True) as catalogue:
        yield from read(catalogue, source, remarks)


def read(catalogue: Catalogue, source: CollectionSource, remarks: Remarks) -> Iterator[Identity]:
    """The same of an open catalogue; several identities may have one id, and their counts are to be added up.

    Raises Unknown where there is no such collection: what is not there is not empty.
    """
    collection = collection_of(catalogue, source.collection)
    if collection.metadata is None:
        return
    words = {"key": source.key, "owner": source.owner, "segment": collection.metadata.id}
    for value, is_no_id, owner, count in catalogue.connection.execute(_STORED, words):
        if value is None:
            remarks.nameless += count
            continue
        if is_no_id:
            raise Unknown(f"collection {collection.key} holds {value!r} as {source.key}, which is no text or whole number")
        yield Identity(text_of(value), owner_of(owner), None, None, count)
    for document, changes in catalogue.changes(collection, collection.metadata):
        before = _stored(catalogue.connection, {**words, "id": document})
        yield from _moved(before, metadata_after(before, changes), source, remarks)


def collection_of(catalogue: Catalogue, name: str) -> Collection:
    """Raises Unknown where there is none of that name."""
    found = {each.key: each for each in catalogue.collections()}
    if name not in found:
        raise Unknown(f"there is no collection {name}; there are {', '.join(found) or 'none'}")
    return found[name]


def _stored(connection: sqlite3.Connection, words: dict[str, Any]) -> Metadata | None:
    """The two values that count of a chunk in the metadata segment; None where it is not in it."""
    found = connection.execute(_ONE, words).fetchall()
    return {key: value for key, value in found if key is not None} if found else None


def _moved(before: Metadata | None, after: Metadata | None, source: CollectionSource, remarks: Remarks) -> Iterator[Identity]:
    for metadata, count in ((before, -1), (after, +1)):
        if metadata is None:
            continue
        value = metadata.get(source.key)
        if value is None:
            remarks.nameless += count
        else:
            yield Identity(text_of(value), owner_of(None if source.owner is None else metadata.get(source.owner)), chunks=count)

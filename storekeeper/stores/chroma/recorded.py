"""Chunks as chroma.sqlite3 holds them, for a look that must not open the directory: all of them but their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storekeeper.outcomes import Refused
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.identities import collection_of
from storekeeper.stores.chroma.rows import Metadata, Row, metadata_after, value_of
from storekeeper.stores.mending import Piece

_STORED = """
select e.embedding_id, m.key, m.string_value, m.int_value, m.float_value, m.bool_value
from embeddings e left join {table} m on m.id = e.id where e.segment_id = ? and e.embedding_id in ({marks})"""


class Recorded:
    """What a client answers, with the queue's operations applied; `vector` is None."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, collection: Collection, ids: Sequence[str]) -> list[Piece]:
        with open_catalogue(self._directory, sealed=False) as catalogue:
            now = collection_of(catalogue, collection.key)
            found: dict[str, Metadata | None] = dict(_stored(catalogue, now, ids))
            for name, changes in catalogue.changes(now, now.metadata):
                if name in ids:
                    found[name] = metadata_after(found.get(name), changes)
        return [_piece(name, metadata) for name, metadata in found.items() if metadata is not None]

    def delete(self, collection: Collection, ids: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Raises Refused."""
        raise Refused("the directory was opened only to look")

    def add(self, collection: Collection, chunks: Sequence[Piece]) -> None:
        """Raises Refused."""
        self.delete(collection, [each["id"] for each in chunks])


def _stored(catalogue: Catalogue, collection: Collection, ids: Sequence[str]) -> dict[str, Metadata]:
    found: dict[str, Metadata] = {}
    if collection.metadata is None:
        return found
    words = (collection.metadata.id, *ids)
    marks = ", ".join("?" * len(ids))
    for name, key, text, integer, number, truth in catalogue.connection.execute(
        _STORED.format(table="embedding_metadata", marks=marks), words
    ):
        mine = found.setdefault(name, {})
        if key is not None:
            mine[key] = text if text is not None else value_of(integer, number, truth)
    if catalogue.has_arrays:
        arrays = catalogue.connection.execute(_STORED.format(table="embedding_metadata_array", marks=marks), words)
        for name, key, text, integer, number, truth in arrays:
            if key is not None:
                found[name].setdefault(key, []).append(text if text is not None else value_of(integer, number, truth))
    return found


def _piece(name: str, metadata: Metadata) -> Piece:
    row = Row(name, metadata, None, -1, pending=False)
    return {"id": name, "document": row.text, "uri": row.uri, "metadata": row.plain, "vector": None}

"""What a copied Chroma directory holds: counts and digests, the same as those of any true copy of it.

A collection's digest is the sha256 over its documents in the order of ids: the line of id, text, URI and metadata as JSON,
then the vector as it is stored (little-endian float32; of length one where the space is cosine).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.rows import CollectionRows, Row
from storekeeper.stores.protocol import Content


class CollectionDigest:
    """Adds documents up, in the order of ids."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, line: bytes, vector: bytes) -> None:
        self.count += 1
        self._digest.update(line)
        self._digest.update(vector)

    @property
    def text(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def content_of(directory: Path) -> Content:
    """Counts and digests by collection of a copy that nobody changes. Raises Failed for a document without its vector."""
    counts, digests = {}, {}
    with open_catalogue(directory, sealed=True) as catalogue:
        for collection in catalogue.collections():
            found = _digest(catalogue, collection)
            counts[collection.key], digests[collection.key] = found.count, found.text
    return Content(counts, digests)


def vector_of(row: Row, collection: Collection) -> bytes:
    """A document's vector, or Failed where it has none or one of another dimension: Chroma could not answer it either."""
    if row.vector is None:
        raise Failed(
            f"collection {collection.key}: document {row.id!r} has no vector", next="look at the Chroma directory: a crash may have cut it"
        )
    if collection.dimension is not None and len(row.vector) != 4 * collection.dimension:
        found = len(row.vector) // 4
        raise Failed(
            f"collection {collection.key}: document {row.id!r} has a vector of {found} numbers, {collection.dimension} are declared"
        )
    return row.vector


def _digest(catalogue: Catalogue, collection: Collection) -> CollectionDigest:
    digest = CollectionDigest()
    for row in CollectionRows(catalogue, collection):
        digest.add(row.line, vector_of(row, collection))
    return digest

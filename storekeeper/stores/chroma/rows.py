"""Every document of a collection with its text, metadata and vector, in the order of ids, read without Chroma.

Three sorted streams are merged: the metadata segment's tables, the vector segment's files, and the queue's operations that
either does not hold yet. Memory stays flat: the map from ids to vectors goes through a temporary table of SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma.catalogue import Catalogue, Change, Collection, Operation
from storekeeper.stores.chroma.index import Damaged, Vectors, read_labels

_DOCUMENT, _URI, _RESERVED = "chroma:document", "chroma:uri", "chroma:"
_METADATA = """
select e.embedding_id, m.key, m.string_value, m.int_value, m.float_value, m.bool_value
from embeddings e left join embedding_metadata m on m.id = e.id
where e.segment_id = ? order by e.embedding_id"""
_ARRAYS = """
select e.embedding_id, a.key, a.string_value, a.int_value, a.float_value, a.bool_value
from embeddings e join embedding_metadata_array a on a.id = e.id
where e.segment_id = ? order by e.embedding_id, a.rowid"""

Metadata = dict[str, Any]
Item = TypeVar("Item")


class Row(NamedTuple):
    """`vector` is float32 as it is stored, at `position` in the segment's file.

    `pending` is True while it is only in the queue (`position` is then -1): Chroma may answer such a vector rounded.
    """

    id: str
    metadata: Metadata
    vector: bytes | None
    position: int
    pending: bool

    @property
    def text(self) -> str | None:
        return self.metadata.get(_DOCUMENT)

    @property
    def uri(self) -> str | None:
        return self.metadata.get(_URI)

    @property
    def plain(self) -> Metadata:
        """The metadata without what Chroma keeps there for itself."""
        return {key: value for key, value in self.metadata.items() if not key.startswith(_RESERVED)}


class CollectionRows:
    """The documents of one collection. A context manager, which closes its files. Raises Failed where they do not fit together."""

    def __init__(self, catalogue: Catalogue, collection: Collection) -> None:
        self._catalogue = catalogue
        self._collection = collection
        self._vectors: Vectors | None = None

    def __enter__(self) -> CollectionRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._vectors is not None:
            self._vectors.close()

    def __iter__(self) -> Iterator[Row]:
        if self._collection.metadata is None:
            return
        try:
            yield from self._merged()
        except Damaged as error:
            segment = self._collection.vectors
            raise Failed(f"collection {self._collection.key}: {error} (segment {segment.id if segment else 'none'})") from error

    def scaled(self, row: Row) -> bytes | None:
        """The vector of a row that is in the files, times its length."""
        return self._vectors.scaled(row.position) if self._vectors is not None and row.position >= 0 else None

    def _merged(self) -> Iterator[Row]:
        catalogue, collection = self._catalogue, self._collection
        stored = _Stream(self._stored())
        positions = _Stream(self._positions())
        told = _Stream(catalogue.changes(collection, collection.metadata))
        queued = _Stream(catalogue.changes(collection, collection.vectors))
        while (document := _first(stored.key, told.key, queued.key, positions.key)) is not None:
            metadata = metadata_after(stored.take(document), told.take(document) or [])
            row = self._row(document, metadata or {}, positions.take(document), queued.take(document) or [])
            if metadata is not None:
                yield row

    def _row(self, document: str, metadata: Metadata, position: int | None, changes: list[Change]) -> Row:
        if not changes:
            vector = self._vectors.at(position) if self._vectors is not None and position is not None else None
            return Row(document, metadata, vector, -1 if position is None else position, pending=False)
        before = self._vectors.at(position) if self._vectors is not None and position is not None else None
        vector = _vector_after(before, changes)
        unchanged = vector is not None and vector is before and position is not None
        return Row(document, metadata, vector, position if unchanged and position is not None else -1, pending=not unchanged)

    def _stored(self) -> Iterator[tuple[str, Metadata]]:
        """Documents of the metadata segment with their metadata; the text is in it."""
        arrays = _Stream(self._arrays())
        current, values = None, Metadata()
        segment = self._collection.metadata
        for document, key, text, integer, number, truth in self._catalogue.connection.execute(_METADATA, (segment.id if segment else "",)):
            if document != current:
                if current is not None:
                    values.update(arrays.take(current) or {})
                    yield current, values
                current, values = document, Metadata()
            if key is not None:
                values[key] = text if text is not None else value_of(integer, number, truth)
        if current is not None:
            values.update(arrays.take(current) or {})
            yield current, values

    def _arrays(self) -> Iterator[tuple[str, Metadata]]:
        if (
            not self._catalogue.has_arrays
            or not self._catalogue.connection.execute("select 1 from embedding_metadata_array limit 1").fetchone()
        ):
            return
        current, values = None, Metadata()
        segment = self._collection.metadata
        for document, key, text, integer, number, truth in self._catalogue.connection.execute(_ARRAYS, (segment.id if segment else "",)):
            if document != current:
                if current is not None:
                    yield current, values
                current, values = document, Metadata()
            values.setdefault(key, []).append(text if text is not None else value_of(integer, number, truth))
        if current is not None:
            yield current, values

    def _positions(self) -> Iterator[tuple[str, int]]:
        """Ids and places of the vectors in the files, in the order of ids."""
        segment = self._collection.vectors
        if segment is None or segment.applied == 0:
            return
        folder = self._catalogue.directory / segment.id
        if not folder.is_dir():
            raise Damaged("its vectors are missing")
        self._vectors = Vectors(folder)
        position_of = self._vectors.position_of
        connection = self._catalogue.connection
        connection.execute("create temp table if not exists places (id text primary key, position integer) without rowid")
        connection.execute("begin")
        try:
            connection.execute("delete from temp.places")
            connection.executemany(
                "insert into temp.places values (?, ?)", ((name, position_of(label)) for name, label in read_labels(folder))
            )
        finally:
            connection.execute("commit")
        yield from connection.execute("select id, position from temp.places order by id")


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


class _Stream(Generic[Item]):
    """A sorted stream of (id, item) with a view of its next id."""

    def __init__(self, items: Iterator[tuple[str, Item]]) -> None:
        self._items = items
        self._next = next(items, None)

    @property
    def key(self) -> str | None:
        return self._next[0] if self._next is not None else None

    def take(self, key: str) -> Item | None:
        if self._next is None or self._next[0] != key:
            return None
        item = self._next[1]
        self._next = next(self._items, None)
        return item


def _first(*keys: str | None) -> str | None:
    return min((key for key in keys if key is not None), default=None)


def metadata_after(metadata: Metadata | None, changes: list[Change]) -> Metadata | None:
    """A document's metadata after the queue's operations; None when there is no such document."""
    for change in changes:
        if change.operation is Operation.DELETE:
            metadata = None
            continue
        refused = Operation.UPDATE if metadata is None else Operation.ADD
        if change.operation is refused:
            continue
        merged = {**(metadata or {}), **change.metadata}
        metadata = {key: value for key, value in merged.items() if value is not None}
    return metadata


def _vector_after(vector: bytes | None, changes: list[Change]) -> bytes | None:
    for change in changes:
        if change.operation is Operation.DELETE:
            vector = None
        elif change.vector is None:
            continue
        elif change.operation is Operation.UPSERT or (vector is None) == (change.operation is Operation.ADD):
            vector = change.vector
    return vector


def value_of(integer: int | None, number: float | None, truth: int | None) -> bool | int | float | None:
    if truth is not None:
        return bool(truth)
    return integer if integer is not None else number

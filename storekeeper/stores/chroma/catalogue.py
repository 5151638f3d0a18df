"""What chroma.sqlite3 says: migrations, collections, and how many documents each has, with the queue's operations applied.

Chroma 1.x puts every change into `embeddings_queue` first. Its metadata segment (tables here) and its vector segment (files)
each follow at their own pace; `max_seq_id` says how far each has come.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores import databases
from storekeeper.stores.chroma import layout

_DEFAULTS = ("default_tenant", "default_database")
_VECTOR_KIND = "urn:chroma:segment/vector/hnsw-local-persisted"
_TABLES = {"collections", "segments", "databases", "embeddings", "embedding_metadata", "embeddings_queue", "max_seq_id"}

Migrations = dict[str, int]  # the highest version applied, by series
KNOWN: Migrations = {"embeddings_queue": 2, "metadb": 6, "sysdb": 10}  # chromadb 1.5.9
KNOWN_VERSION = "1.5.9"

_COLLECTIONS = """
select c.id, c.name, d.name, d.tenant_id, c.dimension, s.id, s.type, s.scope, m.seq_id
from collections c join databases d on d.id = c.database_id
left join segments s on s.collection = c.id left join max_seq_id m on m.segment_id = s.id
order by c.id"""
# What the queue's operations make of each document that they touch: there or not. UPDATE changes neither, and a column beside max() is
# that of the row where the maximum is (sqlite.org/lang_select.html).
_LAST = """
select id, operation <> 3 as there, max(seq_id) from embeddings_queue
where topic like '%/' || :collection and seq_id > :applied and (operation = 3 or operation in (0, 2) and (vector is not null or :bare))
group by id"""
_COUNT = f"""
with last as ({_LAST})
select (select count(*) from embeddings where segment_id = :segment)
    + (select coalesce(sum(last.there - (e.id is not null)), 0)
       from last left join embeddings e on e.segment_id = :segment and e.embedding_id = last.id)"""  # noqa: S608 - of constants
_OPERATIONS = """
select id, operation, metadata, vector from embeddings_queue
where topic like '%/' || ? and seq_id > ? order by id, seq_id"""


class Operation(IntEnum):
    ADD = 0
    UPDATE = 1
    UPSERT = 2
    DELETE = 3


@dataclass(frozen=True)
class Segment:
    """`applied` is the last operation of the queue that it holds; 0 when it was never written."""

    id: str
    applied: int


@dataclass(frozen=True)
class Collection:
    """`key` names it in counts and digests: its name, or tenant/database/name outside the default database."""

    id: str
    key: str
    name: str
    database: str
    tenant: str
    dimension: int | None
    metadata: Segment | None
    vectors: Segment | None


@dataclass(frozen=True)
class Change:
    """One operation of the queue. `metadata` holds the document too; a value of None removes that key."""

    operation: Operation
    metadata: Mapping[str, Any]
    vector: bytes | None


def database_of(directory: Path) -> Path:
    """Raises Failed where there is none."""
    database = directory / layout.DATABASE
    if not database.is_file():
        raise Failed(f"{directory} is no Chroma directory: it has no {layout.DATABASE}")
    return database


@contextmanager
def open_catalogue(directory: Path, *, sealed: bool) -> Iterator[Catalogue]:
    """The catalogue of a live directory, or of a copy that nobody changes (`sealed`). What SQLite says is Failed."""
    database = database_of(directory)
    with databases.explained(database):
        connection = databases.open_sealed(database) if sealed else _open_live(database)
        try:
            connection.text_factory = str
            yield Catalogue(connection, directory)
        finally:
            connection.close()


class Catalogue:
    """One open chroma.sqlite3."""

    def __init__(self, connection: sqlite3.Connection, directory: Path) -> None:
        self.connection = connection
        self.directory = directory
        self._tables = {str(name) for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        missing = (_TABLES | {"migrations"}) - self._tables
        if missing:
            raise Failed(f"{directory / layout.DATABASE} is no Chroma database: it has no table {min(missing)}")

    @property
    def has_arrays(self) -> bool:
        return "embedding_metadata_array" in self._tables

    def migrations(self) -> Migrations:
        return {
            str(series): int(version)
            for series, version in self.connection.execute("select dir, max(version) from migrations group by dir")
        }

    def collections(self) -> list[Collection]:
        """All collections, in the order of their keys. Unknown for a kind of vector segment that is not kept in files."""
        segments: dict[str, dict[str, Segment]] = {}
        found: dict[str, tuple[str, str, str, int | None]] = {}
        for collection, name, database, tenant, dimension, segment, kind, scope, applied in self.connection.execute(_COLLECTIONS):
            found[collection] = (name, database, tenant, dimension)
            if scope == "VECTOR" and kind != _VECTOR_KIND:
                raise Unknown(f"collection {name} keeps its vectors in a {kind}, which is not known to this version")
            if segment is not None:
                segments.setdefault(collection, {})[scope] = Segment(segment, _sequence(applied))
        made = [_collection(key, *found[key], segments.get(key, {})) for key in found]
        return sorted(made, key=lambda each: each.key)

    def counts(self) -> dict[str, int]:
        """Documents by collection. In one read transaction, and short: in a live directory it makes writers wait."""
        self.connection.execute("begin")
        try:
            return {each.key: self.count(each) for each in self.collections()}
        finally:
            self.connection.execute("rollback")

    def count(self, collection: Collection) -> int:
        """Documents of one collection."""
        segment = collection.metadata
        if segment is None:
            return 0
        words = {"collection": collection.id, "applied": segment.applied, "segment": segment.id, "bare": True}
        ((count,),) = self.connection.execute(_COUNT, words)
        return int(count)

    def queued_vectors(self, collection: Collection) -> dict[str, bool]:
        """The documents whose vectors the queue has made or deleted since the vector segment was written, and whether they have one.

        Chroma keeps as many vectors in memory: they are as few as its `sync_threshold`.
        """
        applied = collection.vectors.applied if collection.vectors is not None else 0
        found = self.connection.execute(_LAST, {"collection": collection.id, "applied": applied, "bare": False})
        return {document: bool(there) for document, there, _ in found}

    def changes(self, collection: Collection, segment: Segment | None) -> Iterator[tuple[str, list[Change]]]:
        """The queue's operations that a segment does not hold yet, by document in the order of ids."""
        applied = segment.applied if segment is not None else 0
        document, changes = "", list[Change]()
        for name, operation, metadata, vector in self.connection.execute(_OPERATIONS, (collection.id, applied)):
            if changes and name != document:
                yield document, changes
                changes = []
            document = name
            changes.append(Change(Operation(operation), json.loads(metadata) if metadata else {}, vector))
        if changes:
            yield document, changes


def _open_live(database: Path) -> sqlite3.Connection:
    """Read-only, but where a crash left a transaction half done: that must be rolled back, as whoever opens the file next would do."""
    connection = databases.open_read_only(database)
    try:
        connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()  # left open, it would make this process one that uses the file
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        return databases.open_writable(database)
    return connection


def ahead_of(found: Migrations, known: Migrations) -> bool:
    return any(version > known.get(series, 0) for series, version in found.items())


def spoken(migrations: Migrations) -> str:
    """`embeddings_queue 2, metadb 6, sysdb 10`."""
    return ", ".join(f"{series} {version}" for series, version in sorted(migrations.items()))


def _collection(identity: str, name: str, database: str, tenant: str, dimension: int | None, segments: dict[str, Segment]) -> Collection:
    key = name if (tenant, database) == _DEFAULTS else f"{tenant}/{database}/{name}"
    return Collection(identity, key, name, database, tenant, dimension, segments.get("METADATA"), segments.get("VECTOR"))


def _sequence(stored: int | bytes | None) -> int:
    """Before metadb 5 sequence numbers were big-endian bytes."""
    return int.from_bytes(stored, "big") if isinstance(stored, bytes) else int(stored or 0)

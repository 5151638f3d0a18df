"""Takes the chunks of documents out of a collection, and puts them back, through Chroma itself."""

from __future__ import annotations

import base64
import json
import shlex
from array import array
from collections.abc import Collection as Some
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from storekeeper.outcomes import Refused
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.clients import Client
from storekeeper.stores.chroma.identities import collection_of
from storekeeper.stores.chroma.rows import metadata_after
from storekeeper.stores.identities import CollectionSource
from storekeeper.stores.mending import VECTOR, Carried, Piece, Wanted, matched

Item = TypeVar("Item")
_AT_ONCE = 200  # chunks in one request
# Chroma's indexes of values are partial: without the last words all chunks of the collection are read for each document.
OF_A_DOCUMENT = """
select e.embedding_id from embedding_metadata m cross join embeddings e on e.id = m.id
where e.segment_id = :segment and m.key = :key and m.string_value = :text and m.string_value is not null
union
select e.embedding_id from embedding_metadata m cross join embeddings e on e.id = m.id
where e.segment_id = :segment and m.key = :key and m.int_value = :number and m.int_value is not null"""


class ChromaMender(Carried):
    """One collection of a stack's. Its ids are read from chroma.sqlite3, the chunks themselves through `client`."""

    at_once = 50  # their chunks are held in memory

    def __init__(self, stack: str, directory: Path, source: CollectionSource, client: Client) -> None:
        self._stack = stack
        self._directory = directory
        self._source = source
        self._client = client
        with open_catalogue(directory, sealed=False) as catalogue:
            self._collection = collection_of(catalogue, source.collection)

    @contextmanager
    def grip(self, wanted: Sequence[Wanted]) -> Iterator[ChromaGrip]:
        """Chroma has no transactions: what is removed are the chunks that were looked at, by their ids, and no other."""
        with open_catalogue(self._directory, sealed=False) as catalogue:
            ids = {each.document: self._ids(catalogue, each.document) for each in wanted}
        grip = ChromaGrip(self._stack, self._client, self._collection, self._source, wanted, ids)
        yield grip
        grip.finish()

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        for some in _groups(pieces):
            there = {each["id"]: each for each in self._client.get(self._collection, [each["id"] for each in some])}
            missing = [each for each in some if each["id"] not in there]
            if missing:
                self._client.add(self._collection, missing)
            for each in some:
                now = there.get(each["id"])
                if now is not None and now["metadata"] != each["metadata"]:
                    yield f"chunk {each['id'][:80]!r} of {self._collection.key} is there with other metadata: it was left as it is"

    def told(self, piece: Piece) -> Piece:
        return _compared(piece)

    def _ids(self, catalogue: Catalogue, document: str) -> list[str]:
        """The ids of a document's chunks, also of those that are only in the queue. What left it meanwhile is not found by `get`."""
        segment = self._collection.metadata
        number = int(document) if document.isdecimal() and str(int(document)) == document and len(document) < 19 else None
        found = set[str]()
        if segment is not None:
            words = {"segment": segment.id, "key": self._source.key, "text": document, "number": number}
            found.update(name for (name,) in catalogue.connection.execute(OF_A_DOCUMENT, words))
        for name, changes in catalogue.changes(self._collection, segment):
            after = metadata_after({}, changes)
            if after is None:
                found.discard(name)
            elif str(after.get(self._source.key)) == document:
                found.add(name)
        return sorted(found)


class ChromaGrip:
    """Chunks of some documents, as they were when they were asked for."""

    def __init__(
        self,
        stack: str,
        client: Client,
        collection: Collection,
        source: CollectionSource,
        wanted: Sequence[Wanted],
        ids: dict[str, list[str]],
    ) -> None:
        self._stack = stack
        self._client = client
        self._collection = collection
        self._source = source
        self._owners = {each.document: each.owner for each in wanted}
        self._ids = ids
        self._found: dict[str, list[Piece]] = {}
        self._removing: list[str] = []

    def pieces(self, document: str) -> Sequence[Piece]:
        if document not in self._found:
            found = [each for some in _groups(self._ids[document]) for each in self._client.get(self._collection, some)]
            self._found[document] = [each for each in found if self._is_of(each, document)]
        return self._found[document]

    def remove(self, documents: Some[str]) -> None:
        self._removing = [each["id"] for document in documents for each in self.pieces(document)]

    def exchange(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        going, coming = self._change(document, away, here)
        gone, come = [each["id"] for each in going], [each["id"] for each in coming]
        for some in _groups(gone):
            self._client.delete(self._collection, some)
        for chunks in _groups(coming):
            self._client.add(self._collection, chunks)
        self._ids[document] = sorted((set(self._ids[document]) - set(gone)) | set(come))
        del self._found[document]

    def rehearse(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        self._change(document, away, here)

    def _change(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
        """What is to be deleted and added. Raises Refused where an id belongs to another document by now."""
        found = self.pieces(document)
        going, coming = matched(found, away, _compared).both, matched(found, here, _compared).beyond
        mine = {each["id"] for each in found}
        for some in _groups([each["id"] for each in coming if each["id"] not in mine]):
            for other in self._client.get(self._collection, some):
                raise Refused(
                    f"chunk {other['id'][:80]!r} of {self._collection.key} is another document's now: it was left as it is",
                    next=f"storekeeper check {self._stack} --document {shlex.quote(document)}",
                )
        return going, coming

    def finish(self) -> None:
        for some in _groups(self._removing):
            self._client.delete(self._collection, some)

    def _is_of(self, chunk: Piece, document: str) -> bool:
        metadata = chunk["metadata"] or {}
        owner = metadata.get(self._source.owner) if self._source.owner is not None else None
        wanted = self._owners[document]
        return str(metadata.get(self._source.key)) == document and (wanted is None or owner is None or str(owner) == wanted)


def _compared(chunk: Piece) -> Piece:
    """With its metadata as text, in which 1, 1.0 and true differ."""
    told = {"name": chunk["id"], "text": chunk["document"], "uri": chunk["uri"]}
    vector = None if chunk["vector"] is None else array("f", base64.b64decode(chunk["vector"])).tolist()
    return {**told, "metadata": json.dumps(chunk["metadata"] or {}, sort_keys=True), VECTOR: vector}


def _groups(found: Iterable[Item]) -> Iterator[list[Item]]:
    some: list[Item] = []
    for each in found:
        some.append(each)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some

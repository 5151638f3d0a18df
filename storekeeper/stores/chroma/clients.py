"""Ways to change a Chroma directory: through its running server, or, embedded, through the application's own chromadb while nobody else
has it open. Both answer alike.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma import speaking
from storekeeper.stores.chroma.catalogue import Collection
from storekeeper.stores.chroma.server import Server
from storekeeper.stores.mending import Piece

PATIENCE_S = 600.0  # opening applies the queue, and a large index is read whole
_WRITER = Path(__file__).with_name("writer.py")
_INCLUDE = ["documents", "metadatas", "uris", "embeddings"]


class Client(Protocol):
    """Chunks by their ids. A chunk is {id, document, uri, metadata, vector}; `vector` is float32, little-endian, in base64."""

    def get(self, collection: Collection, ids: Sequence[str]) -> list[Piece]:
        """Those that are there."""

    def delete(self, collection: Collection, ids: Sequence[str]) -> None:
        """Remove them; acknowledged when this returns."""

    def add(self, collection: Collection, chunks: Sequence[Piece]) -> None:
        """Add chunks whose ids are not there yet."""


@contextmanager
def embedded(directory: Path, python: Path | None) -> Iterator[Client]:
    """Raises Unknown where no interpreter with chromadb can be had."""
    interpreter = speaking.interpreter(python, "nothing can be removed from the directory")
    with speaking.speaking(_WRITER, interpreter, PATIENCE_S, doing="while the directory was mended") as speaker:
        speaker.ask({"path": str(directory)})
        yield _Embedded(speaker)


class _Embedded:
    def __init__(self, speaker: speaking.Speaker) -> None:
        self._speaker = speaker

    def get(self, collection: Collection, ids: Sequence[str]) -> list[Piece]:
        return list(self._ask(collection, "get", ids=list(ids))["chunks"])

    def delete(self, collection: Collection, ids: Sequence[str]) -> None:
        self._ask(collection, "delete", ids=list(ids))

    def add(self, collection: Collection, chunks: Sequence[Piece]) -> None:
        self._ask(collection, "add", chunks=list(chunks))

    def _ask(self, collection: Collection, do: str, **words: Any) -> dict[str, Any]:
        key = [collection.tenant, collection.database, collection.name]
        return self._speaker.ask({"collection": key, "do": do, **words})


class Served:
    """The same through a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def get(self, collection: Collection, ids: Sequence[str]) -> list[Piece]:
        found = self._server.post(collection, "get", {"ids": list(ids), "include": _INCLUDE})
        return list(_chunks(found))

    def delete(self, collection: Collection, ids: Sequence[str]) -> None:
        self._server.post(collection, "delete", {"ids": list(ids)})

    def add(self, collection: Collection, chunks: Sequence[Piece]) -> None:
        words = {
            "ids": [each["id"] for each in chunks],
            "embeddings": [list(array("f", base64.b64decode(each["vector"]))) for each in chunks],
            "documents": [each["document"] for each in chunks],
            "uris": [each["uri"] for each in chunks],
            "metadatas": [each["metadata"] for each in chunks],
        }
        self._server.post(collection, "add", words)


def _chunks(found: Any) -> Iterator[Piece]:
    """The answer of a server, chunk by chunk. Raises Failed for what is no such answer."""
    try:
        ids = found["ids"]
        columns = [found.get(name) or [None] * len(ids) for name in ("documents", "uris", "metadatas")]
        for number, (chunk, vector) in enumerate(zip(ids, found["embeddings"], strict=True)):
            document, uri, metadata = (column[number] for column in columns)
            encoded = base64.b64encode(array("f", vector).tobytes()).decode()
            yield {"id": str(chunk), "document": document, "uri": uri, "metadata": metadata, "vector": encoded}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Failed(f"the Chroma server's answer cannot be read: {type(error).__name__}") from error

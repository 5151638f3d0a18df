"""The demo's application: 500 documents, each a row with a vector, a chat, chunks and a file; the same on every run.

    python -m demo.application PLACE create|damage|disagree

Every change is made by a process that ends, so that nobody has the stores open when they are restored.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import chromadb
import psycopg
from chromadb.api import ClientAPI
from chromadb.config import Settings

DOCUMENTS = 500
ORPHAN, MISSING = "doc-0100", "doc-0200"  # documents of which a part is lost
_CHUNKS = 4
_DIMENSIONS = 64
_WORDS = ("store", "point", "proof", "vector", "ledger", "archive", "index", "journal", "quarantine", "snapshot", "owner", "digest")


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    body: str
    vectors: tuple[tuple[float, ...], ...]


def documents(seed: int = 7) -> Iterator[Document]:
    chance = random.Random(seed)
    for number in range(DOCUMENTS):
        words = [chance.choice(_WORDS) for _ in range(400)]
        vectors = tuple(tuple(round(chance.uniform(-1, 1), 6) for _ in range(_DIMENSIONS)) for _ in range(_CHUNKS))
        yield Document(f"doc-{number:04d}", " ".join(words[:5]), " ".join(words), vectors)


class Application:
    """The four stores of the demo, as its own application would open them."""

    def __init__(self, place: Path) -> None:
        self._socket = place / "socket"
        self._data = place / "app"

    def create(self) -> None:
        """Fill empty stores."""
        self._data.mkdir()
        made = list(documents())
        self._create_records(made)
        self._create_chats(made)
        self._create_vectors(made)
        self._create_papers(made)

    def counts(self) -> dict[str, int]:
        """How many documents each store holds now."""
        with self._connect() as connection:
            row = connection.execute("select count(*) from documents").fetchone()
        with sqlite3.connect(f"file:{self._data}/chats.db?mode=ro", uri=True) as chats:
            told = chats.execute("select count(distinct document) from messages").fetchone()
        chats.close()
        with sqlite3.connect(f"file:{self._data}/vectors/chroma.sqlite3?mode=ro", uri=True) as vectors:
            chunks = vectors.execute("select count(*) from embeddings").fetchone()
        vectors.close()
        return {
            "rows": row[0] if row else 0,
            "chats": told[0],
            "chunks": chunks[0],
            "papers": sum(1 for _ in (self._data / "papers").rglob("*.md")),
        }

    def damage(self) -> None:
        """What a bad night does: rows, chats, chunks and files gone."""
        with self._connect() as connection:
            connection.execute("delete from documents where id < 'doc-0050'")
        chats = sqlite3.connect(self._data / "chats.db")
        with chats:
            chats.execute("delete from messages where document < 'doc-0050'")
        chats.close()
        collection = self._client().get_collection("papers")
        collection.delete(ids=[f"doc-{number:04d}-{chunk}" for number in range(50) for chunk in range(_CHUNKS)])
        for paper in sorted((self._data / "papers").rglob("*.md"))[:50]:
            paper.unlink()

    def disagree(self) -> None:
        """What a crash leaves: a row is gone and nothing else of its document, and of another document the file is."""
        with self._connect() as connection:
            connection.execute("delete from documents where id = %s", (ORPHAN,))
        (self._data / "papers" / MISSING[:6] / f"{MISSING}.md").unlink()

    def _connect(self) -> psycopg.Connection[tuple[int]]:
        return psycopg.connect(host=str(self._socket), user="postgres", dbname="demo")

    def _client(self) -> ClientAPI:
        return chromadb.PersistentClient(str(self._data / "vectors"), Settings(anonymized_telemetry=False))

    def _create_records(self, made: list[Document]) -> None:
        with psycopg.connect(host=str(self._socket), user="postgres", dbname="postgres", autocommit=True) as server:
            server.execute("create database demo")
        with self._connect() as connection:
            connection.execute("create extension vector")
            connection.execute(
                f"create table documents (id text primary key, title text not null, body text, embedding vector({_DIMENSIONS}))"
            )
            with connection.cursor().copy("copy documents from stdin") as copy:
                for document in made:
                    copy.write_row((document.id, document.title, document.body, str(list(document.vectors[0]))))
            connection.execute("create index on documents using hnsw (embedding vector_cosine_ops)")

    def _create_chats(self, made: list[Document]) -> None:
        chats = sqlite3.connect(self._data / "chats.db")
        chats.execute("pragma journal_mode = wal")
        with chats:
            chats.execute("create table messages (id integer primary key, document text not null, said text not null)")
            rows = ((document.id, f"{word} {document.title}") for document in made for word in ("what is", "tell me of"))
            chats.executemany("insert into messages (document, said) values (?, ?)", rows)
        chats.close()

    def _create_vectors(self, made: list[Document]) -> None:
        collection = self._client().create_collection("papers")
        for start in range(0, len(made), 100):
            part = made[start : start + 100]
            embeddings: list[Sequence[float] | Sequence[int]] = [list(vector) for document in part for vector in document.vectors]
            collection.add(
                ids=[f"{document.id}-{chunk}" for document in part for chunk in range(_CHUNKS)],
                embeddings=embeddings,
                documents=[document.body[chunk * 200 : chunk * 200 + 200] for document in part for chunk in range(_CHUNKS)],
                metadatas=[{"doc_id": document.id, "chunk": chunk} for document in part for chunk in range(_CHUNKS)],
            )

    def _create_papers(self, made: list[Document]) -> None:
        for document in made:
            folder = self._data / "papers" / document.id[:6]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{document.id}.md").write_text(f"# {document.title}\n\n{document.body}\n", encoding="utf-8")


if __name__ == "__main__":
    application = Application(Path(sys.argv[1]))
    {"create": application.create, "damage": application.damage, "disagree": application.disagree}[sys.argv[2]]()

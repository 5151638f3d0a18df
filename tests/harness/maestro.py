"""A small Maestro on real stores: two databases of SQLite, a Chroma directory with two collections, three folders of files.

Documents are written as the application writes them, and disagreements are planted store by store, with the words of the product left
out: a test compares what was planted with what is found.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from tests.harness import chroma

STACK_FILE = Path(__file__).parents[2] / "inventories/stacks/maestro.yml"
DENSE, SPARSE = "research_papers_dense", "research_papers_sparse"
COLLECTIONS = (DENSE, SPARSE)
FOLDERS = {"raw_pdfs": "{}_paper.pdf", "processed/markdown": "{}.md", "processed/metadata": "{}.json"}
CHUNKS = 3
USERS = ("1", "2", "3")
_AN_ARGUMENT = 4000  # documents that one argument of a program can name
SCHEMA = """
create table users (id integer primary key, username text not null unique);
create table documents (
    id text primary key, user_id integer not null references users (id), title text, processing_status text not null,
    chunk_count integer, updated_at text not null);
create table document_group_association (document_id text not null references documents (id), group_id integer not null);
create table chats (id integer primary key, user_id integer not null references users (id), title text, created_at text);
create table migration_history (version text primary key, applied_at text);
create index documents_status on documents (processing_status);
create index documents_user on documents (user_id);
create index chats_user on chats (user_id);
"""
METADATA = "create table processed_documents (doc_id text primary key, title text, authors text)"
_ADD = """
for name in arguments["collections"]:
    into = collection(name)
    for start in range(0, len(arguments["documents"]), 500):
        some = arguments["documents"][start : start + 500]
        chunks = [(document, user, number) for document, user in some for number in range(arguments["chunks"])]
        into.add(
            ids=[f"{document}_{number}" for document, _, number in chunks],
            embeddings=vectors(len(chunks), 8, start + 1),
            documents=[f"chunk {number} of {document}" for document, _, number in chunks],
            metadatas=[{"doc_id": document, "user_id": int(user), "page": number} for document, user, number in chunks],
        )
"""
_DELETE = """
for name in arguments["collections"]:
    collection(name).delete(ids=arguments["ids"])
"""
_OWNER = """
for name in arguments["collections"]:
    collection(name).update(ids=arguments["ids"], metadatas=[{"user_id": int(arguments["user"])}] * len(arguments["ids"]))
"""


@dataclass(frozen=True)
class Document:
    """One document of the application; `age` is how long ago its row was last written."""

    id: str
    user: str = "1"
    state: str = "completed"
    chunks: int = CHUNKS
    age: timedelta = timedelta(hours=1)


class Maestro:
    """The application's data below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.main = root / "data/maestro.db"
        self.metadata = root / "ai_researcher/data/processed/metadata.db"
        self.vectors = root / "ai_researcher/data/vector_store"
        self.papers = root / "ai_researcher/data"

    def make(self, documents: Sequence[Document] = ()) -> None:
        """An empty application, with collections, and these documents in all stores."""
        for path in (self.main.parent, self.metadata.parent, *(self.papers / folder for folder in FOLDERS)):
            path.mkdir(parents=True, exist_ok=True)
        with database(self.main) as main:
            main.executescript(SCHEMA)
            main.executemany("insert into users values (?, ?)", [(int(user), f"user {user}") for user in USERS])
        with database(self.metadata) as metadata:
            metadata.executescript(METADATA)
        chroma.execute(self.vectors, "for name in arguments['collections']: collection(name)", collections=COLLECTIONS)
        self.add(documents)

    def add(self, documents: Sequence[Document]) -> None:
        """As the application: a row that is being processed, its replicas, and then the state that it ended in."""
        if not documents:
            return
        self.insert_rows([Document(each.id, each.user, "processing", each.chunks, each.age) for each in documents])
        self.add_replicas(documents)
        with database(self.main) as main:
            main.executemany("update documents set processing_status = ? where id = ?", [(each.state, each.id) for each in documents])

    def insert_rows(self, documents: Iterable[Document]) -> None:
        now = datetime.now(UTC)
        rows = [
            (each.id, int(each.user), f"title of {each.id}", each.state, each.chunks, (now - each.age).strftime("%Y-%m-%d %H:%M:%S"))
            for each in documents
        ]
        with database(self.main) as main:
            main.executemany("insert into documents values (?, ?, ?, ?, ?, ?)", rows)
            main.executemany("insert into document_group_association values (?, 1)", [(each[0],) for each in rows])

    def add_replicas(self, documents: Sequence[Document]) -> None:
        self.add_metadata([each.id for each in documents])
        self.add_chunks(documents)
        for each in documents:
            self.add_files(each.id)

    def add_metadata(self, ids: Iterable[str]) -> None:
        with database(self.metadata) as metadata:
            metadata.executemany("insert into processed_documents values (?, 'a title', '[]')", [(each,) for each in ids])

    def add_chunks(self, documents: Sequence[Document], collections: Sequence[str] = COLLECTIONS) -> None:
        named = [(each.id, each.user) for each in documents]
        for start in range(0, len(named), _AN_ARGUMENT):
            some = named[start : start + _AN_ARGUMENT]
            chroma.execute(self.vectors, _ADD, documents=some, collections=collections, chunks=CHUNKS)

    def add_files(self, document: str, folders: Iterable[str] = FOLDERS) -> None:
        for folder in folders:
            self.file(document, folder).write_text(f"{folder} of {document}", encoding="utf-8", errors="surrogateescape")

    def file(self, document: str, folder: str) -> Path:
        return self.papers / folder / FOLDERS[folder].format(document)

    def delete_row(self, document: str) -> None:
        with database(self.main) as main:
            main.execute("delete from document_group_association where document_id = ?", (document,))
            main.execute("delete from documents where id = ?", (document,))

    def delete_metadata(self, document: str) -> None:
        with database(self.metadata) as metadata:
            metadata.execute("delete from processed_documents where doc_id = ?", (document,))

    def delete_chunks(self, document: str, collections: Sequence[str] = COLLECTIONS, numbers: Iterable[int] = range(CHUNKS)) -> None:
        chroma.execute(self.vectors, _DELETE, ids=[f"{document}_{number}" for number in numbers], collections=collections)

    def give_chunks_to(self, user: str, document: str, collections: Sequence[str] = COLLECTIONS) -> None:
        chroma.execute(self.vectors, _OWNER, ids=[f"{document}_{number}" for number in range(CHUNKS)], collections=collections, user=user)

    def delete_file(self, document: str, folder: str) -> None:
        self.file(document, folder).unlink()

    def stack_file(self, name: str = "maestro", **consistency: object) -> str:
        """The stack file that the project ships, with this place's paths, without schedule and services, and with this interpreter."""
        declared = yaml.safe_load(STACK_FILE.read_text(encoding="utf-8").replace("/srv/maestro", str(self.root)))
        del declared["schedule"], declared["services"], declared["stores"]["vectors"]["python"]
        declared["stack"] = name
        declared["consistency"]["documents"].update(consistency)
        return json.dumps(declared)


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        yield connection


def copied(made: Path, root: Path) -> Maestro:
    """A copy of one that was made before: making Chroma's directory takes seconds."""
    shutil.copytree(made, root)
    return Maestro(root)


def documents(count: int, prefix: str = "doc", first: int = 0) -> list[Document]:
    """Complete documents, of three users in turn."""
    return [Document(f"{prefix}-{number:05}", USERS[number % len(USERS)]) for number in range(first, first + count)]

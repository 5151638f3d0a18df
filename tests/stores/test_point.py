"""One point over all stores while an application writes: a row `processing`, its vectors, the row `completed`."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from storekeeper.sets.context import Context
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import ChromaModel, SqliteModel, Stack
from tests.harness.postgresql import Server, reachable_directory, start_server
from tests.harness.proving import content_of_copy
from tests.harness.stacks import open_context

POINTS = 8
NAIVE_POINTS = 8

_WRITER = """
import sqlite3, sys
import chromadb, psycopg
from chromadb.config import Settings

root, socket, port = sys.argv[1:]
rows = sqlite3.connect(f"{root}/rows.db", isolation_level=None, timeout=60)
rows.execute("pragma journal_mode = wal")
rows.execute("create table documents (id text primary key, state text)")
server = psycopg.connect(host=socket, port=port, user="postgres", dbname="app", autocommit=True)
server.execute("create table documents (id text primary key, state text)")
client = chromadb.PersistentClient(f"{root}/vectors", settings=Settings(anonymized_telemetry=False))
chunks = client.get_or_create_collection("papers", embedding_function=None)
number = 0
while True:
    name = f"doc-{number:06d}"
    rows.execute("insert into documents values (?, 'processing')", (name,))
    server.execute("insert into documents values (%s, 'processing')", (name,))
    chunks.add(ids=[name], embeddings=[[number / 7, 1.0, 2.0]], metadatas=[{"doc_id": name}])
    rows.execute("update documents set state = 'completed' where id = ?", (name,))
    server.execute("update documents set state = 'completed' where id = %s", (name,))
    number += 1
    if number == 20:
        print("running", flush=True)
"""


@dataclass(frozen=True)
class Application:
    root: Path
    server: Server
    context: Context


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """An application that writes without pause, and its stack of three stores."""
    live, pg = tmp_path / "live", reachable_directory()
    live.mkdir()
    with start_server(pg, 18) as server:
        server.run("create database app")
        words = [sys.executable, "-c", _WRITER, str(live), str(server.socket), str(server.port)]
        writer = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "running\n"
            stack = Stack(
                stack="app",
                stores={
                    "rows": SqliteModel(kind="sqlite", path=live / "rows.db"),
                    "server": server.declared("app"),
                    "vectors": ChromaModel(kind="chroma", path=live / "vectors"),
                },
            )
            (tmp_path / "state").mkdir(mode=0o700)
            (tmp_path / "private").mkdir(mode=0o700)
            yield Application(live, server, open_context(tmp_path, stack))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    pg.rmdir()


def _documents(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("select id, state from documents"))


def _vectors(database: Path) -> set[str]:
    """Ids in Chroma's own file: applied ones and those that still wait in its queue."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        applied = {name for (name,) in connection.execute("select embedding_id from embeddings")}
        return applied | {name for (name,) in connection.execute("select id from embeddings_queue")}


def _disagreement(documents: dict[str, str], vectors: set[str]) -> int:
    """Completed documents without vectors, and vectors without a document."""
    completed = {name for name, state in documents.items() if state == "completed"}
    return len(completed - vectors) + len(vectors - set(documents))


@pytest.mark.slow
def test_a_set_that_is_taken_under_load_has_no_document_without_vectors_and_no_vector_without_document(application: Application) -> None:
    seen = 0
    for _ in range(POINTS):
        entry = take_set(application.context, purpose="backup")
        documents = _documents(entry.path / "rows/database.sqlite")
        vectors = _vectors(entry.path / "vectors/directory/chroma.sqlite3")
        assert len(documents) >= 20
        assert _disagreement(documents, vectors) == 0
        seen += len(documents)
    assert seen > 20 * POINTS, "the application wrote while the sets were taken"


@pytest.mark.slow
def test_control_stores_that_are_read_one_after_the_other_do_disagree(application: Application) -> None:
    wrong = 0
    for turn in range(NAIVE_POINTS):
        if turn % 2:
            documents = _documents(application.root / "rows.db")
            time.sleep(0.05)
            vectors = _vectors(application.root / "vectors/chroma.sqlite3")
        else:
            vectors = _vectors(application.root / "vectors/chroma.sqlite3")
            time.sleep(0.05)
            documents = _documents(application.root / "rows.db")
        wrong += _disagreement(documents, vectors)
    assert wrong > 0


@pytest.mark.slow
def test_the_rows_of_postgresql_are_of_the_same_moment_as_the_vectors(application: Application, tmp_path: Path) -> None:
    entry = take_set(application.context, purpose="backup")
    manifest = entry.manifest
    assert manifest is not None
    assert manifest.skew_ms < 1000
    assert manifest.stores["vectors"].pause_ms > 0
    assert manifest.stores["server"].pause_ms == 0
    scratch = reachable_directory()
    try:
        restored = content_of_copy(application.context.stores["server"], entry.path / "server", manifest.stores["server"], scratch)
    finally:
        scratch.rmdir()
    assert restored.digests == manifest.stores["server"].digests
    vectors = len(_vectors(entry.path / "vectors/directory/chroma.sqlite3"))
    assert restored.counts["public.documents"] in (vectors, vectors + 1), "at most the one document that was under way"

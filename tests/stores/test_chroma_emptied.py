"""An emptied Chroma directory in the hands of the real Chroma: the same collections, nothing in them, and ready for documents."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack.model import ChromaModel
from tests.harness import chroma
from tests.stores.kinds import _open
from tests.stores.walk import empty

LOADED = """
papers = client.create_collection(
    "papers", metadata={"of": "the library", "year": 2024}, embedding_function=None,
    configuration={"hnsw": {"space": "cosine", "sync_threshold": 100, "batch_size": 50}})
load(papers, 300, 8)
load(collection("notes"), 40, 4)
client.create_collection("never-used", embedding_function=None)
"""
_ABOUT = """
say(sorted([each.name, str(each.id), each.count(), each.metadata, repr(each.configuration_json)] for each in client.list_collections()))
"""
_USED = """
papers = client.get_collection("papers", embedding_function=None)
before = [papers.count(), papers.get()["ids"], papers.query(query_embeddings=vectors(1, 8).tolist(), n_results=3)["ids"]]
found = papers.get(where_document={"$contains": "chunk"})["ids"]
try:
    papers.add(ids=["wrong"], embeddings=vectors(1, 5))
    wrong = "taken"
except Exception as error:
    wrong = type(error).__name__
load(papers, 250, 8, seed=7)
load(client.get_collection("notes", embedding_function=None), 3, 4, seed=7)
load(client.get_collection("never-used", embedding_function=None), 3, 6, seed=7)
nearest = papers.query(query_embeddings=vectors(250, 8, 7)[:3].tolist(), n_results=1)["ids"]
say([before, found, wrong, papers.count(), nearest])
"""
_AGAIN = """
papers = client.get_collection("papers", embedding_function=None)
say([papers.count(), len(papers.get(include=["embeddings"])["embeddings"]),
    len(papers.get(where_document={"$contains": "chunk"}, limit=400)["ids"])])
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chroma") / "loaded"
    chroma.execute(path, LOADED)
    return path


def test_chroma_finds_its_collections_as_they_were_with_nothing_in_them_and_fills_them_again(loaded: Path, tmp_path: Path) -> None:
    live = Path(shutil.copytree(loaded, tmp_path / "live"))
    store = _open("vectors", ChromaModel(kind="chroma", path=live), tmp_path)
    folder, record = empty(store, tmp_path / "reset")
    assert record.counts == {"papers": 0, "notes": 0, "never-used": 0}
    made = Path(shutil.copytree(folder / "directory", tmp_path / "made"))
    os.chmod(made, 0o700)
    os.chmod(made / "chroma.sqlite3", 0o600)
    assert os.listdir(made) == ["chroma.sqlite3"]
    assert b"chunk" not in (made / "chroma.sqlite3").read_bytes()
    (before,) = chroma.execute(loaded, _ABOUT)
    assert [count for _, _, count, *_ in before] == [0, 40, 300]
    assert chroma.execute(made, _ABOUT) == [[[name, identity, 0, *rest] for name, identity, _, *rest in before]]
    ((was, found, wrong, count, nearest),) = chroma.execute(made, _USED)
    assert was == [0, [], [[]]]
    assert found == []
    assert wrong != "taken", "the dimension is a part of the schema"
    assert count == 250
    assert nearest == [["chunk-0000000"], ["chunk-0000001"], ["chunk-0000002"]]
    assert chroma.execute(made, _AGAIN) == [[250, 250, 250]], "also for a client that comes later"


def test_a_table_that_nobody_knows_here_is_refused(loaded: Path, tmp_path: Path) -> None:
    live = Path(shutil.copytree(loaded, tmp_path / "live"))
    with closing(sqlite3.connect(live / "chroma.sqlite3")) as connection, connection:
        connection.execute("create table sparse_vectors (id integer)")
    store = _open("vectors", ChromaModel(kind="chroma", path=live), tmp_path)
    with pytest.raises(Refused, match=r"has a table sparse_vectors, of which chromadb .* knows nothing"):
        empty(store, tmp_path / "reset")

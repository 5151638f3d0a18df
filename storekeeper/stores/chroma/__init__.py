"""Chroma stores: a directory with one SQLite database and HNSW files, kept embedded by an application or by a Chroma server."""

from __future__ import annotations

from storekeeper.runtimes.registry import open_runtime
from storekeeper.stack.model import ChromaModel
from storekeeper.stores.chroma.store import ChromaStore
from storekeeper.stores.surroundings import Surroundings


def build(name: str, declared: ChromaModel, surroundings: Surroundings) -> ChromaStore:
    """The store behind a declaration; nothing is opened yet."""
    runtime = open_runtime(declared.runtime) if declared.runtime is not None else None
    return ChromaStore(name, declared, surroundings, runtime)

"""Files on disk: a directory's tree, listed at one moment and copied after it."""

from __future__ import annotations

from storekeeper.runtimes.registry import open_runtime
from storekeeper.stack.model import FilesModel
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.surroundings import Surroundings

__all__ = ["build"]


def build(name: str, declared: FilesModel, surroundings: Surroundings) -> FilesStore:
    """The store behind a declaration; nothing is opened yet."""
    runtime = open_runtime(declared.runtime) if declared.runtime else None
    return FilesStore(name, declared.path, Scope(declared.include, declared.exclude), surroundings, runtime)

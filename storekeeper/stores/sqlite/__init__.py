"""SQLite files."""

from __future__ import annotations

from storekeeper.stack.model import AnyStore, SqliteModel
from storekeeper.stores.sqlite.store import SqliteStore
from storekeeper.stores.surroundings import Surroundings


def build(name: str, declared: AnyStore, surroundings: Surroundings) -> SqliteStore:
    if not isinstance(declared, SqliteModel):
        raise TypeError(f"{name} is declared as {declared.kind}")
    return SqliteStore(name, declared, surroundings)

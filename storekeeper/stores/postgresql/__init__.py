"""The PostgreSQL store: one database, dumped from an exported snapshot, restored beside itself and swapped by renaming."""

from __future__ import annotations

from storekeeper.stack.model import PostgresqlModel
from storekeeper.stores.postgresql.store import PostgresqlStore
from storekeeper.stores.surroundings import Surroundings

__all__ = ["PostgresqlStore", "build"]


def build(name: str, declared: PostgresqlModel, surroundings: Surroundings) -> PostgresqlStore:
    """The store behind a declaration; nothing is connected yet."""
    return PostgresqlStore(name, declared, surroundings)

"""What a proof compares: a store's part of a set, restored into a scratch place and read there."""

from __future__ import annotations

from pathlib import Path

from storekeeper.stores.protocol import Content, Store
from storekeeper.stores.record import StoreRecord


def content_of_copy(store: Store, folder: Path, record: StoreRecord, scratch: Path) -> Content:
    """Raises as `Store.copy` and reading it do."""
    with store.copy(folder, record, scratch) as copy:
        return copy.content()

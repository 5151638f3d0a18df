"""A store of a set as it was: its artefacts compared with what was written down, then restored into a scratch place and opened there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storekeeper.outcomes import Failed, Unknown
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import SetEntry
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stores.protocol import Copy, Part, Store
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import sha256_of


@contextmanager
def opened_copy(context: Context, entry: SetEntry, manifest: Manifest, name: str, part: Part | None = None) -> Iterator[Copy]:
    """The copy while the block runs; of a set that is in use. With `part` only what a document's places need is there for sure.

    Raises Failed where the set is not as it was written, Unknown where its store cannot be tried here.
    """
    record = manifest.stores[name]
    store = store_of(context, name, record)
    if part is None or not store.copies_parts:
        faults = check_artefacts(entry.path, manifest, context.progress, only=frozenset({name}))
        if faults:
            raise Failed(faults[0].message)
    else:
        _check_listings(entry.path / name, record)
    with scratch_directory(context) as scratch, store.copy(entry.path / name, record, scratch, part) as copy:
        yield copy


def store_of(context: Context, name: str, record: StoreRecord) -> Store:
    """The declared store that a set's is restored by. Raises Unknown where there is none of its kind."""
    if record.is_raw:
        raise Unknown("it is a raw copy of what could not be read, which proves nothing")
    store = context.stores.get(name)
    if store is None:
        raise Unknown(f"the stack file no longer declares {name}, so it cannot be restored here")
    if store.kind != record.kind:
        raise Unknown(f"{name} is declared as {store.kind}, the set holds {record.kind}, so it cannot be restored here")
    return store


def _check_listings(folder: Path, record: StoreRecord) -> None:
    """The artefacts themselves: what they list is compared when it is copied."""
    for artefact in record.artefacts:
        try:
            found = sha256_of(folder / artefact.path)
        except OSError as error:
            raise Failed(f"{folder.name}/{artefact.path} cannot be read: {error.strerror}") from error
        if found != (artefact.sha256, artefact.size):
            raise Failed(f"{folder.name}/{artefact.path} is not what was written")

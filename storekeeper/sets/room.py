"""The room that another set needs: what its stores would write beside what they can share with the newest good set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from storekeeper.outcomes import naming
from storekeeper.sets.entry import SetEntry
from storekeeper.sets.stacksets import StackSets
from storekeeper.stores.protocol import Before, Look, Store

_MARGIN = 1.2  # times what is expected: data grows while it is dumped


def before(newest: SetEntry | None, store: str) -> Before | None:
    """What the newest good set holds of a store; None where it holds nothing of it."""
    record = newest.manifest.stores.get(store) if newest is not None and newest.manifest is not None else None
    return None if newest is None or record is None else Before(newest.path / store, record)


def wanted(looks: Iterable[Look]) -> int:
    """The bytes that must be free before any of these stores is touched."""
    return int(sum(look.adds for look in looks) * _MARGIN)


def of_the_next(sets: StackSets | None, stores: Mapping[str, Store]) -> int:
    """The same, of stores that were not looked at yet. Raises the first store's error, naming it."""
    newest = sets.newest_usable() if sets is not None else None
    looks = []
    for name, store in stores.items():
        with naming(name):
            looks.append(store.look(before(newest, name)))
    return wanted(looks)

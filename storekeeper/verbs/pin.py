"""pin and unpin: keep a set whatever the rules say, and leave it to them again."""

from __future__ import annotations

from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.verbs.report import Report

_REASON = "pinned by a person"


def pin(sets: StackSets, name: str) -> Report:
    """Pin the set of that name, of any state, for ever. Raises Refused for a name that means no set or several."""
    entry = _meant(sets, name)
    with sets.using(entry):
        sets.records.pin(entry.id, _REASON)
    return Report({"id": entry.id, "pinned": True})


def unpin(sets: StackSets, name: str) -> Report:
    """Take the pin away, whoever put it there; harmless when there is none. Raises Refused as `pin` does."""
    entry = _meant(sets, name)
    sets.records.unpin(entry.id)
    return Report({"id": entry.id, "pinned": False})


def _meant(sets: StackSets, name: str) -> SetEntry:
    return sets.resolve(name, usable=name == "latest").entry

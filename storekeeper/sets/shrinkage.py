"""Whether a store lost most of what it held since its last good set: a zero-byte dump may come with a good exit code."""

from __future__ import annotations

from collections.abc import Mapping

from storekeeper.outcomes import Failed, Problem, Severity
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.record import StoreRecord

_SUSPICIOUS = 0.5  # of the last good set's rows, vectors or files: below it a person is told
_UNBELIEVABLE = 0.1  # below it the set is not published unless a person accepts it
_FEW = 20  # objects; a store that held fewer says nothing by shrinking


def compare(records: Mapping[str, StoreRecord], previous: SetEntry | None, accepted: frozenset[str]) -> list[Problem]:
    """Warnings for stores that lost more than half of their objects. Raises Failed for one that lost more than nine tenths."""
    if previous is None or previous.manifest is None:
        return []
    warnings = []
    for name, record in records.items():
        before = previous.manifest.stores.get(name)
        if before is None or before.kind != record.kind:
            continue
        had, has = _objects(before), _objects(record)
        if had < _FEW or has >= had * _SUSPICIOUS:
            continue
        message = f"holds {has:,} objects, the set {previous.id} held {had:,}"
        if has < had * _UNBELIEVABLE and name not in accepted:
            stack = previous.manifest.stack
            raise Failed(f"{message}; nothing was published", store=name, next=f"storekeeper backup {stack} --accept-shrink {name}")
        warnings.append(Problem(message, Severity.WARNING, name))
    return warnings


def _objects(record: StoreRecord) -> int:
    """Rows, vectors or files; what a tree says of its bytes is no number of objects."""
    return sum(count for name, count in record.counts.items() if name != "bytes")

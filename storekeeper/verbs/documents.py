"""How sets stand in documents: the same fields wherever a verb tells of one (docs/reference/json.md)."""

from __future__ import annotations

from typing import Any

from storekeeper.host import clock
from storekeeper.host.clock import rfc3339
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.record import StoreRecord


def describe_set(entry: SetEntry) -> dict[str, Any]:
    """A set as `backup` and `list` tell of it. What an unreadable manifest would have said is null."""
    manifest = entry.manifest
    return {
        "id": entry.id,
        "path": str(entry.path),
        "sequence": entry.sequence,
        "time": rfc3339(entry.time),
        "state": entry.state,
        "bytes": entry.bytes,
        "skew_ms": manifest.skew_ms if manifest else None,
        "pause_ms": manifest.pause_ms if manifest else None,
        "verified_at": rfc3339(entry.verified_at) if entry.verified_at else None,
        "proven_at": rfc3339(entry.proven_at) if entry.proven_at else None,
        "pinned": entry.pinned is not None and entry.pinned.holds(clock.now()),
        "stores": {name: _describe_store(record) for name, record in manifest.stores.items()} if manifest else {},
    }


def _describe_store(record: StoreRecord) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "class": record.klass,
        "outcome": "unknown" if record.is_raw else "ok",
        "bytes": record.bytes,
        "seconds": record.seconds,
        "pause_ms": record.pause_ms,
        "downtime_s": record.downtime_s,
        "counts": dict(record.counts),
        "digests": dict(record.digests),
    }

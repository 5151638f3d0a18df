"""How sets stand in documents: the same fields wherever a verb tells of one (docs/reference/json.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from storekeeper.host import clock
from storekeeper.host.clock import rfc3339
from storekeeper.sets.listing import Listing
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.record import StoreRecord
from storekeeper.verbs.report import Many


def describe_set(entry: SetEntry) -> dict[str, Any]:
    """A set as `backup` and `list` tell of it. What an unreadable manifest would have said is null."""
    return _describe(entry, told_of(entry.manifest))


def told_of(manifest: Manifest | None) -> dict[str, Any]:
    """What only a manifest says of a set, as documents tell it."""
    return {
        "skew_ms": manifest.skew_ms if manifest else None,
        "pause_ms": manifest.pause_ms if manifest else None,
        "stores": {name: _describe_store(record) for name, record in manifest.stores.items()} if manifest else {},
        "agreements": {name: each.figures for name, each in manifest.agreements.items()} if manifest else {},
    }


def _describe(entry: SetEntry, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "path": str(entry.path),
        "sequence": entry.sequence,
        "time": rfc3339(entry.time),
        "state": entry.state,
        "bytes": entry.bytes,
        "skew_ms": told["skew_ms"],
        "pause_ms": told["pause_ms"],
        "verified_at": rfc3339(entry.verified_at) if entry.verified_at else None,
        "proven_at": rfc3339(entry.proven_at) if entry.proven_at else None,
        "pinned": entry.pinned is not None and entry.pinned.holds(clock.now()),
        "stores": told["stores"],
        "agreements": told["agreements"],
    }


def described_sets(found: Listing) -> Many:
    """Every set of a listing as `describe_set` tells of it, one by one."""
    return Many(len(found), lambda: (_describe(each.entry, json.loads(each.told)) for each in found))


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

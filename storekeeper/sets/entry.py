"""A published set as it is listed: its name, and what its manifest and its records say of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from storekeeper.host.formats import NewerFormat
from storekeeper.outcomes import Refused
from storekeeper.sets.manifest import MANIFEST, BadManifest, Manifest, read_manifest
from storekeeper.sets.names import SetId
from storekeeper.sets.records import Known, Pin, Records, SetState, state_of


class SetGone(Refused):
    """The set was removed since it was listed, or there never was one."""


@dataclass(frozen=True)
class SetEntry:
    """A published set. `bytes` is what its files hold; `reason` says why it is damaged or unprovable.

    `has_manifest` is False when there is nothing that says who made the directory; `readable` when its manifest can be used.
    """

    id: str
    sequence: int
    time: datetime
    path: Path
    stack: str
    state: SetState
    bytes: int = 0
    reason: str | None = None
    verified_at: datetime | None = None
    proven_at: datetime | None = None
    pinned: Pin | None = None
    readable: bool = True
    has_manifest: bool = True

    @property
    def usable(self) -> bool:
        """Only these are backups: they alone are restored by `latest` and counted by retention."""
        return self.state in ("verified", "proven")

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, read again so that a long listing stays small in memory; None, for `reason`, where it cannot be used."""
        if not self.readable:
            return None
        return read_manifest(self.path / MANIFEST, expect_id=self.id, expect_stack=self.stack)


@dataclass(frozen=True)
class Resolved:
    """The set that was meant, and the newer ones that are no backups and were passed over."""

    entry: SetEntry
    skipped: tuple[SetEntry, ...]


def read_entry(path: Path, name: SetId, stack: str, records: Records | None) -> SetEntry:
    """Read one set's manifest and its records, where it has any. A bad or a newer manifest or record is a state, not an error."""
    return read_set(path, name, stack, records)[0]


def read_set(path: Path, name: SetId, stack: str, records: Records | None) -> tuple[SetEntry, Manifest | None]:
    """`read_entry`, and the manifest that it was read from, where it can be used."""
    pin = records.pinned(path.name) if records else None
    try:
        known = records.known(path.name) if records else Known()
        manifest = read_manifest(path / MANIFEST, expect_id=path.name, expect_stack=stack)
    except NewerFormat as error:
        said = error.message
        return SetEntry(path.name, name.sequence, name.time, path, stack, "unprovable", reason=said, pinned=pin, readable=False), None
    except BadManifest as error:
        has_manifest = os.path.lexists(path / MANIFEST)
        bad = SetEntry(
            path.name,
            name.sequence,
            name.time,
            path,
            stack,
            "damaged",
            reason=error.message,
            pinned=pin,
            readable=False,
            has_manifest=has_manifest,
        )
        return bad, None
    entry = SetEntry(
        id=path.name,
        sequence=name.sequence,
        time=name.time,
        path=path,
        stack=stack,
        state=state_of(manifest.state, known),
        bytes=manifest.size,
        reason=known.reason,
        verified_at=known.verified_at or (manifest.created if manifest.state == "verified" else None),
        proven_at=known.proven_at,
        pinned=pin,
    )
    return entry, manifest

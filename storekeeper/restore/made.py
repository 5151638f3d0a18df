"""What a reset and a recovery make to switch to: in the form of a set, which nobody has taken."""

from __future__ import annotations

from storekeeper.host import clock
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Dumped, Store
from storekeeper.stores.record import StoreRecord


def recorded(store: Store, version: str, dumped: Dumped, into: StoreFolder, started: float) -> StoreRecord:
    """Seal the folder, and say what is in it as a backup would; `started` is of the monotonic clock. Nobody had to wait for it."""
    into.seal()
    return StoreRecord(
        kind=store.kind,
        klass=dumped.klass,
        version=version,
        pinned=clock.now(),
        pause_ms=0.0,
        downtime_s=0.0,
        seconds=round(clock.monotonic() - started, 3),
        bytes=into.bytes,
        counts=dict(dumped.counts),
        digests=dict(dumped.digests),
        artefacts=into.artefacts,
        details=dumped.details,
    )

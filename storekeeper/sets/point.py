"""The point of all stores: every lock taken and every snapshot pinned before anything is copied or dumped.

Once the last store is pinned, all of them stand still at one moment, whatever their writers do. What only a lock protects is
copied, its writers go on, and the slow dumps come after, from the pinned snapshots and the copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime

from storekeeper.host import load
from storekeeper.host.progress import Progress
from storekeeper.outcomes import naming
from storekeeper.stores.protocol import Hold


@dataclass(frozen=True)
class Point:
    """When each store was pinned, how far apart (`skew_ms`), and the longest time that any store's writers waited."""

    pinned: Mapping[str, datetime]
    pauses_ms: Mapping[str, float]

    @property
    def skew_ms(self) -> float:
        moments = self.pinned.values()
        return round((max(moments) - min(moments)).total_seconds() * 1000, 3) if moments else 0.0

    @property
    def pause_ms(self) -> float:
        return max(self.pauses_ms.values(), default=0.0)


@contextmanager
def one_point(holds: Mapping[str, Hold], progress: Progress) -> Iterator[Point]:
    """Hold all stores at one moment; the block dumps them. Every hold is closed when the block ends, however it ends.

    Raises the first store's error, naming that store: then no other store is pinned any more.
    """
    with ExitStack() as open_holds:
        for hold in holds.values():
            open_holds.callback(hold.close)
        for name, hold in holds.items():
            progress.step(name, "preparing")
            with naming(name):
                hold.prepare()
        progress.step(None, "pinning one moment of all stores")
        with load.hurry():
            pinned = _pin_all(holds)
            for name, hold in holds.items():
                with naming(name):
                    hold.copy()
                    hold.release()
        load.lower()  # not before: it can never be undone, and writers have waited until here
        yield Point(pinned, {name: round(hold.pause_ms, 3) for name, hold in holds.items()})


def _pin_all(holds: Mapping[str, Hold]) -> dict[str, datetime]:
    pinned = {}
    for name, hold in sorted(holds.items(), key=lambda item: item[1].order):
        with naming(name):
            pinned[name] = hold.pin()
    return pinned

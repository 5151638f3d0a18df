"""Whether what came out of a set is what went in: counts and digests, every one, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from storekeeper.outcomes import Failed
from storekeeper.stores.protocol import Content
from storekeeper.stores.record import StoreRecord


def refuse_difference(found: Content, record: StoreRecord, what: str) -> None:
    """Raises Failed unless a restored copy has exactly the counts and digests of the set; `what` names the copy."""
    _compare("count", found.counts, record.counts, what)
    _compare("digest", found.digests, record.digests, what)


def _compare(kind: str, found: Mapping[str, object], wanted: Mapping[str, object], what: str) -> None:
    different = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if different:
        key, *others = different
        more = f" and {len(others)} more" if others else ""
        raise Failed(f"{what} differs from the set: the {kind} of {key}{more}: {found.get(key)} found, {wanted.get(key)} expected")

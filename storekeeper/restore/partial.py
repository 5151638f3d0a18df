"""What a restore of some stores leaves behind in the others: they were one moment in the set, and are two afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from storekeeper.outcomes import Problem, Severity
from storekeeper.restore.journal import spoken_time
from storekeeper.sets.manifest import Manifest

_SHOWN = 3  # objects of a store in a sentence; more are counted


def left_behind(manifest: Manifest, chosen: Collection[str], others: Mapping[str, Mapping[str, int] | None]) -> Iterator[Problem]:
    """A warning for each store that stays as it is, with its rows in the set and now. `others` has no counts for what cannot be read."""
    names = ", ".join(chosen)
    for name, now in others.items():
        said = f"only {names} will be as of {spoken_time(manifest.created)}: this store keeps what it holds now"
        held = manifest.stores[name].counts if name in manifest.stores else None
        yield Problem(f"{said}{_compared(held, now)}; what one says of the other may no longer be so", Severity.WARNING, name)


def _compared(held: Mapping[str, int] | None, now: Mapping[str, int] | None) -> str:
    if held is None:
        return ", and the set does not hold it"
    if now is None:
        return ", which cannot be counted"
    differing = [each for each in sorted({*held, *now}) if held.get(each) != now.get(each)]
    if not differing:
        return ", as many rows as in the set"
    shown = [f"{each} {_rows(held.get(each))} in the set, {_rows(now.get(each))} now" for each in differing[:_SHOWN]]
    more = [f"{len(differing) - _SHOWN} more differ"] if len(differing) > _SHOWN else []
    return f" ({'; '.join([*shown, *more])})"


def _rows(count: int | None) -> str:
    return "is not there" if count is None else f"{count:,}"

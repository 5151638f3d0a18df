"""Repairs past their time: their plans, and what they have kept for undo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from storekeeper.consistency import plans
from storekeeper.consistency.plans import Plan
from storekeeper.outcomes import Problem, Severity, StorekeeperError
from storekeeper.stores.protocol import Store

_OVER = (None, "applied", "undone")  # in any other state what is kept is all that leads on, or back


def forget_old(state: Path, stores: Mapping[str, Store], keep: timedelta, proven: datetime | None, now: datetime) -> list[Problem]:
    """Remove plans older than `keep`, with what they keep; says which.

    What an applied one has removed is only forgotten where a set that was taken after it is proven (`proven` is when the newest of these
    was taken). One that was interrupted, wherever, stays until it is applied or undone, and one that cannot be read is left to a person.
    """
    plans.sweep(state)
    said = []
    for name in plans.all_of(state):
        try:
            made = plans.opened(state, name)
            if _is_over(made, now - keep, proven):
                _forget(made, stores)
                said.append(Problem(f"removed the repair {name} and what it kept", Severity.INFO))
        except StorekeeperError as error:
            said.append(Problem(f"the repair {name} is not removed: {error.message}", Severity.WARNING, error.store, error.next))
    return said


def _is_over(made: Plan, before: datetime, proven: datetime | None) -> bool:
    step = made.state()
    if step not in _OVER or made.changed() > before:
        return False
    return step != "applied" or (proven is not None and proven > made.changed())


def _forget(made: Plan, stores: Mapping[str, Store]) -> None:
    """What is kept beside stores goes first: without its plan nobody would know whose it is."""
    if made.state() is not None:
        for name in made.stores:
            if name in stores:
                stores[name].forget_taken(made.token)
    made.remove()

"""The sides that restores have kept: which one `--back` returns to, and when their time is over."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from storekeeper.host import clock
from storekeeper.outcomes import naming
from storekeeper.restore.journal import Journal, Step, journals, spoken_time
from storekeeper.restore.walk import BACK, DONE, declared
from storekeeper.sets.context import Context


def last_change(state: Path) -> Journal | None:
    """The journal of the last walk that changed the live data for good; None where there was none."""
    found = [journal for journal in journals(state) if (journal.noted(Step.CLOSED) or {}).get("result") == DONE]
    return found[-1] if found else None


def still_kept(journal: Journal) -> bool:
    """Whether the sides that a closed walk kept are still there, whole."""
    closed = journal.noted(Step.CLOSED)
    return closed is not None and closed["kept"] is not None and journal.noted(Step.EXPIRING) is None


def kept_until(journal: Journal) -> datetime:
    """When the kept sides of a closed walk may go."""
    return clock.parse_rfc3339(str((journal.noted(Step.CLOSED) or {})["until"]))


def expire_old_sides(context: Context, now: datetime) -> list[str]:
    """Remove kept sides past their time, where the stack has a newer proven set; returns what was removed, in words.

    Raises Refused where the stack file no longer declares a store that has one. A removal that was interrupted is ended by the next call.
    """
    known = journals(context.state)
    returned_from = {
        journal.begun["undoes"] for journal in known if journal.purpose == BACK and (journal.noted(Step.CLOSED) or {}).get("result") == DONE
    }
    proven = max((entry.sequence for entry in context.sets.entries() if entry.state == "proven"), default=0)
    removed = []
    for journal in known:
        is_over = _is_past(journal, now) and journal.sequence < proven
        if is_over and journal.token not in returned_from:
            _remove(context, journal, known)
            removed.append(
                f"the side that the {journal.purpose} of {spoken_time(journal.begun_at)} kept of {', '.join(journal.begun['stores'])}"
            )
    return removed


def _is_past(journal: Journal, now: datetime) -> bool:
    """Kept, not yet removed in full, and its time is over. A clock that stands before the restore tells nothing."""
    closed = journal.noted(Step.CLOSED)
    if closed is None or closed["kept"] is None or journal.noted(Step.EXPIRED) is not None:
        return False
    return now >= kept_until(journal)


def _remove(context: Context, journal: Journal, known: list[Journal]) -> None:
    side = (journal.noted(Step.CLOSED) or {})["kept"]
    origin = next((each for each in known if each.token == journal.begun["undoes"]), journal) if journal.purpose == BACK else journal
    if journal.noted(Step.EXPIRING) is None:
        journal.write(Step.EXPIRING)
    for name, store in declared(context, journal.begun["stores"]).items():
        placed = origin.noted(Step.PLACED, name)
        if placed is not None:
            with naming(name):
                (store.discard_old if side == "old" else store.discard_stage)(dict(placed["place"]))
    journal.write(Step.EXPIRED)

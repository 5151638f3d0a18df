"""The way back after a restore that ended well: to the sides it kept, and when these are gone to its safety set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from storekeeper.host import space
from storekeeper.outcomes import Problem, Refused, Severity
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, spoken_time
from storekeeper.restore.kept import last_change, still_kept
from storekeeper.restore.plan import RestoreRequest, look_for_unreadable, make_plan, safety_need, told_space
from storekeeper.restore.restoring import Restored, begin, ended, old_side_notes, restore_set, take_safety_set
from storekeeper.restore.services import Stoppable
from storekeeper.restore.walk import BACK, Walk, declared
from storekeeper.sets.context import Context
from storekeeper.sets.repository import Resolved


def go_back(context: Context, request: RestoreRequest) -> Restored:
    """Undo the last restore, or say what undoing it would do (`request.plan`), or that it is undone already.

    Raises Refused when nothing was restored, and everything that a restore raises.
    """
    if request.only:
        raise Refused("--back returns all stores of the last restore", next=f"storekeeper restore {context.stack.stack} --back")
    change = last_change(context.state)
    if change is None:
        raise Refused(
            f"no restore of {context.stack.stack} is known here, so there is nothing to go back from",
            next=f"storekeeper list {context.stack.stack}",
        )
    if change.begun["undoes"] is not None:
        return _nothing_to_do(change)
    if still_kept(change):
        return _to_old_sides(context, request, change)
    return _to_safety_set(context, request, change)


def _nothing_to_do(change: Journal) -> Restored:
    said = f"the last restore was gone back from already, at {spoken_time(change.begun_at)}: nothing was changed"
    result = {"set": None, "safety_set": change.begun["safety_set"], "stores": {}, "back": None}
    return Restored(result, (Problem(said, Severity.INFO),))


def _to_old_sides(context: Context, request: RestoreRequest, change: Journal) -> Restored:
    stores = declared(context, change.begun["stores"])
    absent = look_for_unreadable(context, request.accept_unreadable)
    found = space.check(safety_need(context, absent), purpose="restore --back", next=f"storekeeper prune {context.stack.stack}")
    said = f"it goes back to the old sides of the restore of {change.begun['set']} at {spoken_time(change.begun_at)}"
    notes = [Problem(said, Severity.INFO)]
    if request.plan:
        each = {name: _foreseen(None if name in absent else dict(store.inspect().counts)) for name, store in stores.items()}
        plan = {"set": None, "stores": each, "services": Stoppable.of(context, stores).running(), "space": told_space(found)}
        return Restored({"plan": plan}, tuple(notes))
    safety = take_safety_set(context, "return to the old sides", absent)
    journal = begin(context, BACK, safety, absent, {"set": None, "undoes": change.token, "stores": list(stores)})
    walk = Walk(context, journal, Interruption())
    walk.finish()
    return Restored(ended(context, journal, walk), (*notes, *old_side_notes(journal)))


def _to_safety_set(context: Context, request: RestoreRequest, change: Journal) -> Restored:
    """The old sides are gone: restore what was saved before them, also from a safety set that is incomplete."""
    safety = change.begun["safety_set"]
    if safety is None:
        raise Refused("before the last restore there was nothing: no store was there to be saved")
    entry = context.sets.entry(safety)
    if not entry.usable and entry.state != "incomplete":
        raise Refused(
            f"the old sides are gone, and safety set {safety} is {entry.state}: {entry.reason}",
            next=f"storekeeper list {context.stack.stack}",
        )
    held = entry.manifest.stores if entry.manifest else {}
    only = tuple(name for name in change.begun["stores"] if name in held)
    asked = replace(request, set=safety, only=only)
    notes = [Problem(f"the old sides are gone: it goes back to safety set {safety}", Severity.INFO)]
    notes += [
        Problem("it was absent before the restore, so nothing of it was saved: it stays as it is", Severity.WARNING, name)
        for name in change.begun["stores"]
        if name not in held
    ]
    with context.sets.using(entry):
        plan = make_plan(context, asked, Resolved(entry, ()))
        if request.plan:
            return Restored({"plan": plan.to_json()}, (*notes, *plan.problems))
        restored = restore_set(context, plan, asked, undoes=change)
    return Restored(restored.result, (*notes, *restored.problems))


def _foreseen(counts: dict[str, int] | None) -> dict[str, Any]:
    return {"counts_now": counts, "counts_after": None, "bytes_needed": 0, "downtime_s": 0.0}

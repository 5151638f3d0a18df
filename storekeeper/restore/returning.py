"""The way back after a restore that ended well: to the sides it kept, and when these are gone to its safety set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from storekeeper.host import space
from storekeeper.outcomes import Problem, Refused, Severity
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, Step, spoken_time
from storekeeper.restore.kept import last_change, still_kept
from storekeeper.restore.plan import Live, RestoreRequest, add_up, look_at_live, make_plan, raw_notes, safety_need, told_space
from storekeeper.restore.restoring import Restored, begin, ended, old_side_notes, restore_set, take_safety_set
from storekeeper.restore.services import Stoppable
from storekeeper.restore.walk import BACK, MIGRATION, Walk, declared
from storekeeper.sets.context import Context
from storekeeper.sets.repository import Resolved
from storekeeper.stores.protocol import Store


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
    if change.purpose == MIGRATION:
        return _to_safety_set(context, request, change, why="a migration changes the stores in their place")
    return _to_safety_set(context, request, change)


def _nothing_to_do(change: Journal) -> Restored:
    said = f"the last restore was gone back from already, at {spoken_time(change.begun_at)}: nothing was changed"
    result: dict[str, Any] = {"set": None, "safety_set": change.safety_set, "stores": {}, "back": None}
    return Restored(result, (Problem(said, Severity.INFO),))


def _to_old_sides(context: Context, request: RestoreRequest, change: Journal) -> Restored:
    stores = declared(context, change.begun["stores"])
    live = look_at_live(context, request)
    if live.raw:
        return _past_unreadable(context, request, change, live)
    places = {name: dict((change.noted(Step.PLACED, name) or {})["place"]) for name in stores}
    back = {name: store.back_needs(places[name]) for name, store in stores.items()}
    needs = add_up([safety_need(context, live), *back.values()])
    found = space.check(needs, purpose="restore --back", next=f"storekeeper prune {context.stack.stack}")
    what = f"restore of {change.begun['set']}" if change.begun["set"] else change.purpose
    said = f"it goes back to the old sides of the {what} at {spoken_time(change.begun_at)}"
    notes = [Problem(said, Severity.INFO)]
    each = {name: _foreseen(live.word(name), store, sum(back[name].values())) for name, store in stores.items()}
    stops = Stoppable.of(context, stores).running()
    plan = {"set": None, "stores": each, "services": stops, "space": told_space(found), "disagreements": {}}
    if request.plan:
        return Restored({"plan": plan}, tuple(notes))
    context.progress.foresee(plan)
    safety, live = take_safety_set(context, "return to the old sides", live, request)
    if live.raw:
        return _past_unreadable(context, request, change, live)
    journal = begin(context, BACK, safety, live, {"set": None, "undoes": change.token, "stores": list(stores)})
    walk = Walk(context, journal, Interruption())
    walk.finish()
    return Restored(ended(context, journal, walk), (*notes, *old_side_notes(journal)))


def _past_unreadable(context: Context, request: RestoreRequest, change: Journal, live: Live) -> Restored:
    """An old side is put over what is live, which has to be read for that; a set is not."""
    restored = _to_safety_set(context, request, change, why=f"{', '.join(live.raw)} cannot be read now")
    return replace(restored, problems=tuple(dict.fromkeys((*restored.problems, *raw_notes(live)))))


def _to_safety_set(context: Context, request: RestoreRequest, change: Journal, why: str = "the old sides are gone") -> Restored:
    """Where the old sides cannot be had: restore what was saved before them, also from a safety set that is incomplete."""
    safety = change.safety_set
    if safety is None:
        raise Refused("before the last restore there was nothing: no store was there to be saved")
    entry = context.sets.entry(safety)
    if not entry.usable and entry.state != "incomplete":
        raise Refused(
            f"{why}, and safety set {safety} is {entry.state}: {entry.reason}",
            next=f"storekeeper list {context.stack.stack}",
        )
    held = entry.manifest.stores if entry.manifest else {}
    only = tuple(name for name in change.begun["stores"] if name in held)
    asked = replace(request, set=safety, only=only)
    notes = [Problem(f"{why}: it goes back to safety set {safety}", Severity.INFO)]
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


def _foreseen(word: str, store: Store, needed: int) -> dict[str, Any]:
    counts = dict(store.inspect().counts) if word == "readable" else None
    return {"now": word, "counts_now": counts, "counts_after": None, "bytes_needed": needed, "downtime_s": 0.0}

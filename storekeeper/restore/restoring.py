"""A restore from its plan to its end: safety set, stage all, compare, then the walk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Outcome, Problem, Refused, Severity, Unknown
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, spoken_time
from storekeeper.restore.kept import kept_until
from storekeeper.restore.plan import Live, Plan, RestoreRequest, raw_notes, unsaved
from storekeeper.restore.walk import RESTORE, Walk
from storekeeper.sets.context import Context
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from storekeeper.sets.verification import verify_set


@dataclass(frozen=True)
class Restored:
    """The `result` of the contract, and what to say beside it."""

    result: dict[str, Any]
    problems: tuple[Problem, ...]


def restore_set(context: Context, plan: Plan, request: RestoreRequest, *, undoes: Journal | None = None) -> Restored:
    """Make a set live. Live data is touched only when every store is staged and equal to the set.

    Raises Refused for a damaged set; Failed, with everything as it was, for what goes wrong later. `undoes` is the restore
    whose kept sides are gone, where this set is its safety set.
    """
    refuse_damaged(context, plan.entry)
    context.progress.foresee(plan.to_json())
    safety, live = take_safety_set(context, f"restore of {plan.entry.id}", plan.live, request)
    facts = {"set": plan.entry.id, "stores": list(plan.foreseen), "undoes": undoes.token if undoes else None}
    journal = begin(context, RESTORE, safety, live, facts)
    walk = Walk(context, journal, Interruption())
    try:
        walk.stage(plan.entry.path, plan.manifest.stores, request.stage_dir)
    except BaseException as error:
        raise walk.undo(error) from error
    walk.finish()
    late = [note for note in raw_notes(live) if note not in plan.problems]
    return Restored(ended(context, journal, walk), (*plan.problems, *late, *old_side_notes(journal)))


def begin(context: Context, purpose: str, safety: SetEntry | None, live: Live, facts: dict[str, Any]) -> Journal:
    """A new journal with all that `resume` and `--back` will have to know."""
    common = {
        "purpose": purpose,
        "stack": context.stack.stack,
        "absent": list(live.absent),
        "unreadable": list(live.raw),
        "safety_set": safety.id if safety else None,
        "sequence": max((entry.sequence for entry in context.sets.entries()), default=0),  # a newer proven set lets kept sides go
    }
    return Journal.create(context.state, {**common, **facts})


def take_safety_set(context: Context, purpose: str, live: Live, request: RestoreRequest) -> tuple[SetEntry | None, Live]:
    """Save what is live now, and pin it; no set where every store is absent.

    Only reading all of a store shows that it cannot be read: where the request accepts that, a raw copy is kept instead, and the
    answer's `Live` names it. Raises Refused where it does not.
    """
    present = {name: store for name, store in context.stores.items() if name not in live.absent}
    if not present:
        return None, live
    try:
        entry = take_set(replace(context, stores=present), purpose=f"the safety of a {purpose}", accept_unreadable=frozenset(live.raw))
    except (Failed, Refused, Unknown) as error:
        if error.store is None or error.store not in request.accept_unreadable or error.store in live.raw:
            raise unsaved(context, request, error) from error
        return take_safety_set(context, purpose, replace(live, raw={**live.raw, error.store: error.message}), request)
    context.sets.records.pin(entry.id, f"taken before the {purpose}", clock.now() + context.stack.restore.keep_safety)
    return entry, live


def refuse_damaged(context: Context, entry: SetEntry) -> None:
    """Read the set back and decode it before anything is made or stopped. Raises Refused, or Unknown where that could not be tried."""
    verdict = verify_set(context.sets, entry, context.stores, context.progress)
    said = [f"{each.store}: {each.message}" if each.store else each.message for each in verdict.problems if each.severity is Severity.ERROR]
    if verdict.outcome is Outcome.FAILED:
        raise Refused(f"set {entry.id} is damaged: {'; '.join(said)}", next=f"storekeeper list {context.stack.stack}")
    if verdict.outcome is not Outcome.OK:
        raise Unknown(
            f"set {entry.id} could not be verified: {'; '.join(said)}", next=f"storekeeper verify {context.stack.stack} {entry.id}"
        )


def ended(context: Context, journal: Journal, walk: Walk) -> dict[str, Any]:
    """The contract's `result` of a walk that is closed."""
    stack, safety = context.stack.stack, journal.safety_set
    undone = journal.begun["undoes"] is not None
    back = f"storekeeper restore {stack} {safety}" if undone else f"storekeeper restore {stack} --back"
    return {
        "set": journal.begun["set"],
        "safety_set": safety,
        "stores": walk.results(),
        "back": None if undone and safety is None else back,
    }


def old_side_notes(journal: Journal) -> list[Problem]:
    """What was written after the safety set and before the switch is in no set: say where it is."""
    safety = journal.safety_set
    if safety is None:
        return []
    return [
        Problem(
            f"what was written after safety set {safety} is in the side that was live, kept until {spoken_time(kept_until(journal))}",
            Severity.INFO,
        )
    ]

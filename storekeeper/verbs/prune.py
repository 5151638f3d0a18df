"""prune: remove the sets that no rule keeps, and the old sides of restores past their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storekeeper.consistency.forgetting import forget_old
from storekeeper.host import clock, load, space
from storekeeper.host.jobs import Record
from storekeeper.outcomes import Outcome, Problem, Refused, Severity, StorekeeperError
from storekeeper.restore.kept import expire_old_sides
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets import room
from storekeeper.sets.context import Context
from storekeeper.sets.pruning import MostWouldGo
from storekeeper.sets.pruning import prune as prune_sets
from storekeeper.verbs.report import Report

_GOOD = ("ok", "warning")


def prune(context: Context, runs: Sequence[Record], *, dry_run: bool, confirmed: bool = False) -> Report:
    """Apply retention by hand; with `dry_run` say what it would do and change nothing.

    Raises Refused while the newest backup failed: then what is there may be all that there will be. Where more than half of
    the sets would go, it is refused with the plan as its answer, unless it is `confirmed`.
    """
    refuse_after_failure(context, runs)
    interrupted = [] if dry_run else refuse_or_resume(context)
    load.lower()  # not before: services may have been stopped until here
    try:
        result, problems = apply_retention(context, dry_run=dry_run, confirmed=confirmed)
    except MostWouldGo as refusal:
        shown = {**refusal.plan.to_json(), "dry_run": True}
        return Report(shown, [refusal.problem(), *interrupted, *refusal.plan.problems], Outcome.REFUSED)
    sides = [] if dry_run else expire_old_sides(context, clock.now())
    expired = [Problem(f"removed {side}", Severity.INFO) for side in sides]
    expired += [] if dry_run else forget_repairs(context)
    return Report({**result, "dry_run": dry_run}, [*interrupted, *problems, *expired])


def forget_repairs(context: Context) -> list[Problem]:
    """Remove repairs whose time is over, as long as an old side is kept."""
    proven = max((entry.time for entry in context.sets.entries() if entry.state == "proven"), default=None)
    return forget_old(context.state, context.stores, context.stack.restore.keep_old, proven, clock.now())


def apply_retention(context: Context, *, dry_run: bool = False, confirmed: bool = False) -> tuple[dict[str, Any], list[Problem]]:
    """Keep what the stack's rules keep; the `retention` of a document, and its warnings. Raises as `pruning.prune` does."""
    context.progress.step(None, "applying retention")
    keep = context.stack.backup.keep
    pruned = prune_sets(context.sets, keep, clock.now(), dry_run=dry_run, confirmed=confirmed, progress=context.progress)
    return pruned.to_json(), list(pruned.problems)


def refuse_after_failure(context: Context, runs: Sequence[Record]) -> None:
    """Raises Refused when the newest backup that was tried did not end well. One that found another at work was not tried.

    One that was refused while there is too little room for it does not count: to prune is what mends that.
    """
    tried = [run for run in runs if run.verb == "backup" and not run.running and run.outcome != "busy"]
    if not tried or tried[-1].outcome in _GOOD or (tried[-1].outcome == Outcome.REFUSED and _lacks_room(context)):
        return
    last = tried[-1]
    raise Refused(
        f"the newest backup, of {last.started}, ended {last.outcome}: {last.message or 'no reason is recorded'}; nothing was removed",
        next=f"storekeeper backup {context.stack.stack}",
    )


def _lacks_room(context: Context) -> bool:
    """Whether the next backup would be refused for want of room. Stores that do not answer leave that open: it is not so."""
    try:
        return room.of_the_next(context.sets, context.stores) > space.free_bytes(context.sets.path)
    except StorekeeperError:
        return False

"""restore: replace live data by a set, or go back; plan, safety set, stage all, switch each, probe, keep the old side."""

from __future__ import annotations

from storekeeper.outcomes import Refused
from storekeeper.restore.disagreement import refuse
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.plan import RestoreRequest, allowing, make_plan
from storekeeper.restore.restoring import Restored, restore_set
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.restore.returning import go_back
from storekeeper.sets.context import Context
from storekeeper.verbs.check import checked_after
from storekeeper.verbs.report import Report

__all__ = ["RestoreRequest", "restore"]


def restore(context: Context, request: RestoreRequest) -> Report:
    """Carry out a restore, or only plan it (`request.plan`), which changes nothing at all.

    Raises Refused, Unknown or Busy while nothing was changed; Failed once it had begun, with everything as it was before,
    or with the journal open and the command that resumes it.
    """
    if (request.set is None) == (not request.back):
        raise Refused("restore takes a set, or --back", next=f"storekeeper restore {context.stack.stack} latest --plan")
    if request.plan:
        refuse_unfinished(journals(context.state))
        interrupted = []
    else:
        interrupted = refuse_or_resume(context)
    restored = go_back(context, request) if request.back else _to_set(context, request, str(request.set))
    if "plan" in restored.result:
        return Report(restored.result, restored.problems)
    agreements, found = checked_after(context) if restored.result["stores"] else ({}, [])
    return Report({**restored.result, "agreements": agreements}, [*interrupted, *restored.problems, *found])


def _to_set(context: Context, request: RestoreRequest, name: str) -> Restored:
    resolved = context.sets.resolve(name)
    with context.sets.using(resolved.entry):
        plan = make_plan(context, request, resolved)
        if not request.allow_disagreement and (request.asks or not request.plan):  # what would be refused needs no yes
            refuse(plan.disagreements, plan.foreseen, allowing(context, request))
        if request.plan:
            return Restored({"plan": plan.to_json()}, plan.problems)
        return restore_set(context, plan, request)

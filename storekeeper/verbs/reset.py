"""reset: all stores of a stack to their schema with nothing in it, together or not at all; the way back is a restore's."""

from __future__ import annotations

from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.plan import RestoreRequest
from storekeeper.restore.resetting import reset_stores
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.context import Context
from storekeeper.verbs.check import checked_after
from storekeeper.verbs.report import Report


def reset(context: Context, *, plan: bool, accept_unreadable: frozenset[str] = frozenset()) -> Report:
    """Carry out a reset, or only plan it, which changes nothing at all.

    Raises Refused, Unknown or Busy while nothing was changed; Failed once it had begun, with everything as it was before, or with the
    journal open and the command that resumes it.
    """
    request = RestoreRequest(plan=plan, accept_unreadable=accept_unreadable, reset=True)
    if plan:
        refuse_unfinished(journals(context.state))
        done = reset_stores(context, request)
        return Report(done.result, done.problems)
    interrupted = refuse_or_resume(context)
    done = reset_stores(context, request)
    agreements, found = checked_after(context)
    return Report({**done.result, "agreements": agreements}, [*interrupted, *done.problems, *found])

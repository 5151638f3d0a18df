"""recover: a damaged SQLite store made anew from what can still be read of it; the way back is a restore's."""

from __future__ import annotations

from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.recovering import recover_store
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.context import Context
from storekeeper.verbs.check import checked_after
from storekeeper.verbs.report import Report


def recover(context: Context, store: str, *, plan: bool) -> Report:
    """Carry out a recovery, or only plan it, which changes nothing at all.

    Raises Refused, Unknown or Busy while nothing was changed; Failed once it had begun, with everything as it was before, or with the
    journal open and the command that resumes it.
    """
    if plan:
        refuse_unfinished(journals(context.state))
        done = recover_store(context, store, plan=True)
        return Report(done.result, done.problems)
    interrupted = refuse_or_resume(context)
    done = recover_store(context, store, plan=False)
    agreements, found = checked_after(context)
    return Report({**done.result, "agreements": agreements}, [*interrupted, *done.problems, *found])

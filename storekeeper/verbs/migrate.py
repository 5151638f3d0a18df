"""migrate: the application's own migrations, each tried on a copy of a proven set before it is run inside a safety set on what is live."""

from __future__ import annotations

from collections.abc import Sequence

from storekeeper.restore import migrating
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.context import Context, Opened
from storekeeper.verbs.check import checked_after
from storekeeper.verbs.report import Report


def ask(context: Opened, action: str, values: Sequence[str]) -> Report:
    """What a command says that changes nothing: `current` or `history`. Raises Refused while a restore is open, Failed where it fails."""
    refuse_unfinished(journals(context.state))
    done = migrating.ask(context, action, values)
    return Report(done.result, done.problems)


def migrate(context: Context, action: str, values: Sequence[str], *, plan: bool) -> Report:
    """Carry out what a command of the stack file does, or only say what would be done.

    Raises Refused, Unknown or Busy while nothing was changed; Failed with everything as it was before, or with the journal open and the
    command that resumes it.
    """
    if plan:
        refuse_unfinished(journals(context.state))
        done = migrating.plan(context, action, values)
        return Report(done.result, done.problems)
    interrupted = refuse_or_resume(context)
    done = migrating.migrate_stores(context, action, values)
    agreements, found = checked_after(context) if done.is_changed else ({}, [])
    return Report({**done.result, "agreements": agreements}, [*interrupted, *done.problems, *found])

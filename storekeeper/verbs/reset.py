"""reset: all stores of a stack to their schema with nothing in it, together or not at all; the way back is a restore's."""

from __future__ import annotations

from collections.abc import Iterator

from storekeeper.outcomes import Problem, Severity, StorekeeperError
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.plan import RestoreRequest
from storekeeper.restore.resetting import reset_stores
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.context import Context
from storekeeper.verbs.check import CheckRequest, check
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
    return Report(done.result, [*interrupted, *done.problems, *_agreement(context)])


def _agreement(context: Context) -> Iterator[Problem]:
    """What the stack's rules say of the emptied stores. The reset is done whatever they say."""
    if not context.stack.consistency:
        return
    again = f"storekeeper check {context.stack.stack}"
    try:
        checked = check(context, CheckRequest())
    except StorekeeperError as error:
        yield Problem(f"whether the stores agree now could not be found out: {error.message}", Severity.WARNING, error.store, again)
        return
    for problem in checked.problems:
        yield Problem(problem.message, min(problem.severity, Severity.WARNING, key=_GRAVITY.index), problem.store, problem.next or again)
    for name, rule in checked.result["rules"].items():
        if rule["outcome"] == "ok":
            yield Problem(f"{name}: the stores agree, on {rule['documents']} documents", Severity.INFO)


_GRAVITY = [Severity.INFO, Severity.WARNING, Severity.ERROR]

"""resume: finish a restore that was interrupted, or return all its stores to where they were."""

from __future__ import annotations

from storekeeper.outcomes import Problem, Severity
from storekeeper.restore.restoring import ended
from storekeeper.restore.resuming import take_up
from storekeeper.restore.walk import ABANDONED, DONE
from storekeeper.sets.context import Context
from storekeeper.verbs.check import checked_after
from storekeeper.verbs.report import Report


def resume(context: Context) -> Report:
    """End what is open. Raises Failed when it could not be finished: it went back then, or stays open and says so."""
    resumed = take_up(context)
    if resumed is None:
        return Report({"ended": None}, [Problem(f"no restore of {context.stack.stack} is open", Severity.INFO)])
    result = {"ended": resumed.how, **ended(context, resumed.journal, resumed.walk)}
    agreements, found = checked_after(context) if resumed.how != ABANDONED else ({}, [])
    told = {**result, "agreements": agreements}
    return Report(told if resumed.how == DONE else {**told, "back": None}, [resumed.problem, *found])

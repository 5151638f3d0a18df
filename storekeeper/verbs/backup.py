"""backup: take, verify and publish one set of all stores; then retention."""

from __future__ import annotations

from typing import Any

from storekeeper.outcomes import Problem, Severity, StorekeeperError, said_by_the_system
from storekeeper.restore.kept import last_change
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.restore.walk import RESET
from storekeeper.sets.context import Context
from storekeeper.sets.pruning import MostWouldGo
from storekeeper.sets.publishing import take_set
from storekeeper.verbs.documents import describe_set
from storekeeper.verbs.prune import apply_retention
from storekeeper.verbs.report import Report


def backup(context: Context, accept_shrink: frozenset[str] = frozenset()) -> Report:
    """Publish one verified set, then remove what the declared retention keeps no longer.

    Raises the first store's error when nothing was published; retention does not run then. Retention that fails is a warning.
    """
    interrupted = refuse_or_resume(context)
    entry = take_set(context, purpose="backup", accept_shrink=accept_shrink | _emptied(context))
    retention, problems = _retention(context)
    warnings = list(entry.manifest.problems) if entry.manifest else []
    return Report({"set": describe_set(entry), "retention": retention}, [*interrupted, *warnings, *problems])


def _emptied(context: Context) -> frozenset[str]:
    """The stores that a reset has emptied since the last good set: that they hold less now was confirmed by a person."""
    change, newest = last_change(context.state), context.sets.newest_usable()
    if change is None or change.purpose != RESET or newest is None or newest.sequence > change.sequence:
        return frozenset()
    return frozenset(change.begun["stores"])


def _retention(context: Context) -> tuple[dict[str, Any] | None, list[Problem]]:
    """What retention did; a warning where it could not: the set is published whatever becomes of the older ones."""
    try:
        return apply_retention(context)
    except MostWouldGo as refusal:
        return None, [Problem(refusal.message, Severity.WARNING, next=f"storekeeper prune {context.stack.stack} --dry-run")]
    except StorekeeperError as error:
        return None, [Problem(f"retention did not run to its end: {error.message}", Severity.WARNING, error.store, error.next)]
    except OSError as error:
        return None, [Problem(f"retention did not run to its end: {said_by_the_system(error)}", Severity.WARNING)]

"""backup: take, verify and publish one set of all stores; then retention."""

from __future__ import annotations

from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.context import Context
from storekeeper.sets.publishing import take_set
from storekeeper.verbs.documents import describe_set
from storekeeper.verbs.prune import apply_retention
from storekeeper.verbs.report import Report


def backup(context: Context, accept_shrink: frozenset[str] = frozenset()) -> Report:
    """Publish one verified set, then remove what the declared retention keeps no longer.

    Raises the first store's error when nothing was published; retention does not run then.
    """
    interrupted = refuse_or_resume(context)
    entry = take_set(context, purpose="backup", accept_shrink=accept_shrink)
    retention, problems = apply_retention(context, dry_run=False)
    warnings = list(entry.manifest.problems) if entry.manifest else []
    return Report({"set": describe_set(entry), "retention": retention}, [*interrupted, *warnings, *problems])

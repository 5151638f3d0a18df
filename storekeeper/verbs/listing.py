"""list: the sets of a stack, oldest first, each with its last proof."""

from __future__ import annotations

from storekeeper.outcomes import Problem, Severity
from storekeeper.sets.listing import Listing
from storekeeper.sets.repository import StackSets
from storekeeper.verbs.documents import described_sets, told_of
from storekeeper.verbs.report import Report


def list_sets(stack: str, sets: StackSets | None) -> Report:
    """Every published set. That there is none is said as a problem, and is an answer all the same."""
    found = Listing(sets, told_of) if sets is not None else ()
    if isinstance(found, Listing) and len(found):
        return Report({"sets": described_sets(found)})
    return Report({"sets": []}, [Problem("there is no set", Severity.INFO, next=f"storekeeper backup {stack}")])

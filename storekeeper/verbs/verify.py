"""verify: read sets back, byte by byte, and decode what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storekeeper.host import load
from storekeeper.outcomes import Outcome, Problem, Refused
from storekeeper.sets.context import Context
from storekeeper.sets.repository import SetEntry, SetGone
from storekeeper.sets.verification import SetVerdict, verify_set
from storekeeper.verbs.report import Report


def verify(context: Context, set_name: str | None = None, *, all: bool = False, subset: tuple[int, int] | None = None) -> Report:
    """Verify one set (the newest of any state when none is named), or all; the verdicts are recorded beside the sets.

    One bad store makes the outcome failed; a store that could not be tried makes it unknown. Raises Refused where there is no such set.
    """
    load.lower()
    verdicts = []
    for entry in _chosen(context, set_name, all=all):
        try:
            verdicts.append(verify_set(context.sets, entry, context.stores, context.progress, subset=subset))
        except SetGone:
            if not all:
                raise  # of all sets, one that retention removed meanwhile is no longer one of them
    problems = [_naming(verdict, problem) for verdict in verdicts for problem in verdict.problems]
    return Report({"sets": [_describe(verdict) for verdict in verdicts]}, problems, _worst(verdicts))


def _chosen(context: Context, set_name: str | None, *, all: bool) -> Sequence[SetEntry]:
    if not all:
        return [context.sets.resolve(set_name or "latest", usable=False).entry]
    entries = context.sets.entries()
    if not entries:
        stack = context.stack.stack
        raise Refused(f"there is no set of {stack} to verify", next=f"storekeeper backup {stack}")
    return entries


def _describe(verdict: SetVerdict) -> dict[str, Any]:
    stores = {name: {"outcome": each.outcome, "seconds": each.seconds} for name, each in verdict.stores.items()}
    return {"id": verdict.id, "state": verdict.state, "stores": stores}


def _naming(verdict: SetVerdict, problem: Problem) -> Problem:
    return problem if verdict.id in problem.message else replace(problem, message=f"set {verdict.id}: {problem.message}")


def _worst(verdicts: Sequence[SetVerdict]) -> Outcome | None:
    outcomes = {verdict.outcome for verdict in verdicts}
    return next((outcome for outcome in (Outcome.FAILED, Outcome.UNKNOWN) if outcome in outcomes), None)

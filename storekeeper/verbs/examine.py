"""examine: a look inside every store of a stack, or one. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from storekeeper.host import clock, load
from storekeeper.outcomes import Outcome, Problem, Severity, StorekeeperError
from storekeeper.sets.context import Opened
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stores.examination import Examination, Flaw
from storekeeper.verbs.report import Report

_SAID = 20  # flaws of a store that are said in sentences; the result lists more


def examine(context: Opened, only: str | None = None) -> Report:
    """What is wrong inside the stores is a warning; what could not be looked at makes the outcome unknown."""
    load.lower()
    told: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, store in context.stores.items():
        if only in (None, name):
            context.progress.step(name, "looking inside")
            told[name] = _one(context, name, problems)
            told[name]["kind"] = store.kind
    outcomes = {each["outcome"] for each in told.values()}
    outcome = next((each for each in (Outcome.UNKNOWN, Outcome.WARNING) if each in outcomes), None)
    return Report({"stores": told}, problems, outcome)


def _one(context: Opened, name: str, problems: list[Problem]) -> dict[str, Any]:
    began = clock.monotonic()
    try:
        with scratch_directory(context) as work:
            found = context.stores[name].examine(work)
    except StorekeeperError as error:
        problems.append(error.about(name).problem())
        found = Examination()
        outcome = Outcome.UNKNOWN
    else:
        problems += _problems(context, name, found)
        outcome = Outcome.UNKNOWN if found.unknown else Outcome.WARNING if found.flaws else Outcome.OK
    return {
        "kind": "",
        "outcome": outcome,
        "seconds": round(clock.monotonic() - began, 3),
        "figures": dict(found.figures),
        "counts": None if found.counts is None else dict(found.counts),
        "flaws": [_told(context, name, each) for each in found.flaws],
        "left_out": found.left_out,
        "users": None
        if found.users is None
        else [{"pid": each.pid, "program": each.program, "lock": each.lock, "waits": each.waits} for each in found.users],
    }


def _told(context: Opened, name: str, flaw: Flaw) -> dict[str, Any]:
    return {"kind": flaw.kind, "object": flaw.object, "message": flaw.message, "next": _next(context, name, flaw)}


def _next(context: Opened, name: str, flaw: Flaw) -> str | None:
    """What to do where the store itself knows nothing better: damaged data is replaced by good data."""
    if flaw.next is None and flaw.kind in ("damage", "vectors"):
        return f"storekeeper restore {context.stack.stack} latest --only {name} --plan"
    return flaw.next


def _problems(context: Opened, name: str, found: Examination) -> Iterator[Problem]:
    for error in found.unknown:
        yield Problem(error.message, Severity.ERROR, name, error.next)
    for flaw in found.flaws[:_SAID]:
        yield Problem(flaw.message, Severity.WARNING, name, _next(context, name, flaw))
    if (more := len(found.flaws) + found.left_out - _SAID) > 0:
        again = f"storekeeper examine {context.stack.stack} --store {name} --json"
        yield Problem(f"and {more:,} more", Severity.WARNING, name, again)
    for note in found.notes:
        yield Problem(note, Severity.INFO, name)

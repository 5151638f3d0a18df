"""check: what the stores of a stack disagree about, by rule; nothing is changed but what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from storekeeper.consistency import keeping, log
from storekeeper.consistency.checking import Checking, Look
from storekeeper.consistency.findings import Class, Finding
from storekeeper.host import load
from storekeeper.outcomes import Busy, Outcome, Problem, Refused, Severity, StorekeeperError, Unknown, said_by_the_system
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.sets.context import Opened
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stack.mistakes import suggestion
from storekeeper.stack.rules import Rule
from storekeeper.verbs.report import Report

_TRIES = 3
MOST_TOLD = 10_000  # findings of one rule in a document; `--lines` tells all of any number


@dataclass(frozen=True)
class CheckRequest:
    """Which rules, documents and owners are told of: all where None. All of every rule is read whatever is told."""

    rule: str | None = None
    document: str | None = None
    owner: str | None = None
    stats: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether what is found is all that there is of each rule."""
        return self.document is None and self.owner is None

    def wants(self, found: Finding) -> bool:
        return self.document in (None, found.document) and self.owner in (None, found.owner)


def check(context: Opened, request: CheckRequest, tell: Callable[[Mapping[str, Any]], None] | None = None) -> Report:
    """Look at the rules of a stack. A look at all of a rule is remembered, and logged; `tell` is given each finding as it is told.

    Findings are a warning. A place that could not be read makes the outcome unknown, and nothing is said of it. Raises Refused for a stack
    without rules, and for a rule that there is not.
    """
    load.lower()
    rules = chosen(context, request.rule)
    told: dict[str, Any] = {}
    problems: list[Problem] = []
    with scratch_directory(context) as work:
        checking = Checking(context.stores, context.state, work, context.progress)
        for name, rule in rules.items():
            look = looked(context, checking, name, rule)
            if request.is_whole:
                problems += _remembered(context, checking, name, rule, look)
            told[name] = _Telling(name, look, request, tell).told()
            problems += [*look.problems, *_about(context, name, told[name])]
            if request.stats:
                told[name]["stats"] = _stats(look)
        stores = {name: _size(context, name, problems) for name in context.stores} if request.stats else {}
    with suppress(OSError):  # the next look tries again
        keeping.forget_undeclared(context.state, context.stack.consistency)
    outcomes = {each["outcome"] for each in told.values()}
    outcome = next((each for each in (Outcome.UNKNOWN, Outcome.WARNING) if each in outcomes), None)
    return Report({"rules": told, **({"stores": stores} if request.stats else {})}, problems, outcome)


def checked_after(context: Opened) -> tuple[dict[str, Any], list[Problem]]:
    """What the rules say once live data was replaced: a word and counts of each, and a warning where stores disagree or cannot be read.

    Nothing that is found, or cannot be found out, undoes what was done. Nothing is said of a stack without rules.
    """
    told: dict[str, Any] = {}
    problems: list[Problem] = []
    if not context.stack.consistency:
        return told, problems
    try:
        with scratch_directory(context) as work:
            checking = Checking(context.stores, context.state, work, context.progress)
            for name, rule in context.stack.consistency.items():
                look = looked(context, checking, name, rule)
                problems += _remembered(context, checking, name, rule, look)
                found = _Telling(name, look, CheckRequest(), None).told()
                problems += [replace(each, severity=Severity.WARNING) for each in look.problems]
                problems += _about(context, name, found)
                told[name] = {key: found[key] for key in ("outcome", "documents", "counts")}
    except (StorekeeperError, OSError) as error:
        said = error.message if isinstance(error, StorekeeperError) else said_by_the_system(error)
        following = f"storekeeper check {context.stack.stack}"
        problems.append(Problem(f"whether the stores agree now could not be found out: {said}", Severity.WARNING, next=following))
    return told, problems


def chosen(context: Opened, wanted: str | None) -> Mapping[str, Rule]:
    """One rule, or all. Raises Refused where there is none."""
    rules, stack = context.stack.consistency, context.stack.stack
    if not rules:
        raise Refused(
            f"{stack} declares no rule, so nothing says what its stores must agree on", next="declare `consistency:` in its stack file"
        )
    if wanted is None:
        return rules
    if wanted not in rules:
        near = suggestion(wanted, list(rules))
        raise Refused(f"there is no rule {wanted[:60]!r}; there are {', '.join(rules)}", next=near and f"did you mean {near}?")
    return {wanted: rules[wanted]}


def looked(context: Opened, checking: Checking, name: str, rule: Rule) -> Look:
    """A look during which nothing was restored: stores are switched one after the other, and in between they disagree.

    Raises Refused while a restore is open, Busy where one after the other came between.
    """
    for _ in range(_TRIES):
        before = journals(context.state)
        refuse_unfinished(before)
        look = checking.look(name, rule)
        if [journal.path for journal in journals(context.state)] == [journal.path for journal in before]:
            return look
    raise Busy("stores were restored while they were compared, again and again", next=f"storekeeper check {context.stack.stack}")


def remember(context: Opened, checking: Checking, name: str, rule: Rule, look: Look) -> None:
    """Keep the look for the next, and log it; nothing of both where another run has looked since. Raises as `Checking.remember`."""
    if checking.remember(name, rule, look):
        log.tell(context.state, name, look)


def _remembered(context: Opened, checking: Checking, name: str, rule: Rule, look: Look) -> Iterator[Problem]:
    """Keep the look; a warning where that failed: what was found is told all the same."""
    try:
        remember(context, checking, name, rule, look)
    except (OSError, Unknown) as error:
        said = error.message if isinstance(error, Unknown) else said_by_the_system(error)
        yield Problem(f"{name}: what was found could not be kept for the next look: {said}", Severity.WARNING)


class _Telling:
    """One rule's findings on their way into the document, or past it."""

    def __init__(self, rule: str, look: Look, request: CheckRequest, tell: Callable[[Mapping[str, Any]], None] | None) -> None:
        self._rule = rule
        self._look = look
        self._request = request
        self._tell = tell

    def told(self) -> dict[str, Any]:
        look, tally = self._look, self._look.tally
        wanted = (each for each in look.findings if self._request.wants(each))
        counts = {str(kind): 0 for kind in Class}
        shown: list[dict[str, Any]] = []
        count = 0
        for each in wanted:
            counts[str(each.kind)] += 1
            count += 1
            if self._tell is not None:
                self._tell({"rule": self._rule, **each.to_json()})
            elif count <= MOST_TOLD:
                shown.append(each.to_json())
        outcome = look.outcome if look.outcome is Outcome.UNKNOWN else Outcome.WARNING if count else Outcome.OK
        return {
            "outcome": outcome,
            "documents": None if tally is None else tally.documents,
            "counts": {**counts, "in_flight": 0 if tally is None else tally.in_flight},
            "findings": shown,
            "left_out": count - len(shown),
            "unread": list(look.unread),
            "unchanged": list(look.unchanged),
        }


def _about(context: Opened, name: str, told: Mapping[str, Any]) -> Iterator[Problem]:
    found = {kind: count for kind, count in told["counts"].items() if count and kind != "in_flight"}
    if not found:
        return
    stores = sorted({each["store"] for each in islice(told["findings"], MOST_TOLD)})
    where = f" in {', '.join(stores)}" if stores else ""
    said = ", ".join(f"{count:,} {kind}" for kind, count in found.items())
    yield Problem(f"{name}: {said}{where}", Severity.WARNING, next=f"storekeeper check {context.stack.stack} --rule {name} --lines")


def _stats(look: Look) -> dict[str, Any] | None:
    if look.figures is None:
        return None
    held = {place: {"documents": documents, "chunks": chunks} for place, (documents, chunks) in look.figures.held.items()}
    return {"owners": look.figures.owners, "states": dict(look.figures.states), "places": held}


def _size(context: Opened, name: str, problems: list[Problem]) -> dict[str, Any] | None:
    """What a store says of itself; null, with a problem, where it says nothing."""
    try:
        found = context.stores[name].inspect()
    except StorekeeperError as error:
        problems.append(error.about(name).problem())
        return None
    return {"bytes": found.bytes, "counts": dict(found.counts)}

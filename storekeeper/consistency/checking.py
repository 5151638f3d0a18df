"""One look at a rule: every place read, compared, and what is new looked at a second time before anybody is told.

An application works while its stores are read one after the other, so that one reading finds what never was: a document that came
between two reads. The second time the authority is read before the replicas and after them, and only what disagrees with it each of the
three times is told. A document that comes during the first reading and goes during the second is in the authority between them, and one
that is processed again from the first to the second is seen at work: what is told for nothing must have come or gone twice, in step with
the reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from storekeeper.consistency import looks
from storekeeper.consistency.comparison import Tally
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.keeping import Figures, kept_of
from storekeeper.consistency.looks import Counted
from storekeeper.consistency.places import authority_of, replicas_of
from storekeeper.consistency.reading import Reading
from storekeeper.consistency.spool import Spool, in_both
from storekeeper.host import clock
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Outcome, Problem
from storekeeper.stack.rules import Rule
from storekeeper.stores.protocol import Store

PAUSE_S = 1.0  # between the two looks at what is new: what an application was just doing is done


@dataclass(frozen=True)
class Changes:
    """What differs from the look before, the first of each for the log, and how many there are."""

    new: list[Finding] = field(default_factory=list)
    gone: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"new": 0, "gone": 0})


@dataclass(frozen=True)
class Look:
    """What a look found. `tally` and `figures` are None where the authority could not be read: then there is no finding either."""

    at: datetime
    outcome: Outcome
    findings: Spool
    counted: Counted
    tally: Tally | None
    figures: Figures | None
    unread: tuple[str, ...]
    changes: Changes
    problems: tuple[Problem, ...]
    unchanged: tuple[str, ...] = ()  # places that hold what they held when they were read before, and were not read again


_MOST_IN_LOG = 1000


class Checking:
    """Looks at the rules of one stack. `work` is an empty directory for scratch files, `state` the stack's own."""

    def __init__(self, stores: Mapping[str, Store], state: Path, work: Path, progress: Progress, pause_s: float = PAUSE_S) -> None:
        self._stores = stores
        self._state = state
        self._work = work
        self._progress = progress
        self._pause_s = pause_s

    def look(self, name: str, rule: Rule) -> Look:
        """Look at one rule; nothing is remembered before `remember`. What cannot be read is in `unread`, with its problem."""
        digest = rule.digest
        with kept_of(self._state, name, rule) as keeping:
            first = Reading(self._stores, self._work, self._progress, name, rule, keeping=keeping)
            if first.findings.count and self._any_new(name, digest, first.findings):
                time.sleep(self._pause_s)
                second = Reading(self._stores, self._work, self._progress, name, rule, twice=True, keeping=keeping)
                found = Spool(self._work / f"{name}.both", in_both(first.findings, second.findings))
                last, problems = second, _once([*first.problems, *second.problems])
            else:
                found, last, problems = first.findings, first, first.problems
        unchanged = tuple(place for place in first.unchanged if place in last.unchanged)
        unread = frozenset(first.unread) | frozenset(last.unread)
        counted, changes = Counted(), Changes()
        told = Spool(self._work / f"{name}.told", self._since(name, digest, found, unread, counted, changes, last.at))
        outcome = Outcome.UNKNOWN if unread or last.tally is None else Outcome.WARNING if told.count else Outcome.OK
        return Look(last.at, outcome, told, counted, last.tally, last.figures, tuple(sorted(unread)), changes, tuple(problems), unchanged)

    def still(self, name: str, rule: Rule, at: datetime) -> Look:
        """Look at stores that stand still, such as the restored copies of a set taken at that moment: what one reading finds is so.

        Nothing of it is compared with the looks at live stores, or kept for them.
        """
        reading = Reading(self._stores, self._work, self._progress, name, rule, at=at)
        counted = Counted()
        for each in reading.findings:
            counted.add(each)
        is_known = not reading.unread and reading.tally is not None
        outcome = Outcome.UNKNOWN if not is_known else Outcome.WARNING if reading.findings.count else Outcome.OK
        unread, problems = tuple(sorted(set(reading.unread))), tuple(reading.problems)
        return Look(at, outcome, reading.findings, counted, reading.tally, reading.figures, unread, Changes(), problems)

    def remember(self, name: str, rule: Rule, look: Look) -> bool:
        """Keep what a look found for the next; durable when this returns. False, and nothing is kept, where another run has looked since.

        What was found before in a place that could not be read is kept too, and in all places where the authority could not be. Raises
        OSError where it cannot be written, Unknown while another run writes for longer than a minute.
        """
        digest, tally = rule.digest, look.tally
        unread = frozenset(look.unread if tally is not None else [place.name for place in replicas_of(rule)])
        documents, flying = (None, None) if tally is None else (tally.documents, tally.in_flight)
        head = looks.Head(
            look.at, digest, documents, flying, look.counted.by_class, look.unread or (authority_of(rule).name,) * (tally is None)
        )
        with looks.turn(self._state):
            known = looks.newest(self._state, name)
            if known is not None and look.at < known.at <= clock.now():
                return False
            with looks.opened(self._state, name, digest) as before:
                kept = [each for each, how in looks.joined(before, look.findings, look.at, unread) if how == "kept"] if unread else []
            looks.write(self._state, name, head, _in_order(kept, look.findings))
        return True

    def _any_new(self, name: str, digest: str, found: Spool) -> bool:
        with looks.opened(self._state, name, digest) as before:
            return any(how == "new" for _, how in looks.joined(before, found, clock.now(), frozenset()))

    def _since(
        self, name: str, digest: str, found: Spool, unread: frozenset[str], counted: Counted, changes: Changes, at: datetime
    ) -> Iterator[Finding]:
        with looks.opened(self._state, name, digest) as before:
            for each, how in looks.joined(before, found, at, unread):
                if how in changes.counts:
                    changes.counts[how] += 1
                    told = changes.new if how == "new" else changes.gone
                    if len(told) < _MOST_IN_LOG:
                        told.append(each)
                if how in ("new", "seen"):
                    counted.add(each)
                    yield each


def _in_order(kept: Sequence[Finding], found: Spool) -> Iterator[Finding]:
    waiting = iter(kept)
    old = next(waiting, None)
    for each in found:
        while old is not None and old.key < each.key:
            yield old
            old = next(waiting, None)
        yield each
    while old is not None:
        yield old
        old = next(waiting, None)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))

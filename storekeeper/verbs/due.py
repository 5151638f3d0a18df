"""due: carry out once what a schedule asked for while this host could not: it was off, asleep, or another run was in the way.

For each entry of the schedule a moment is kept up to which nothing is owed. It moves on when a run of that time is on record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, formats, jobs
from storekeeper.outcomes import Failed, Outcome, Problem, Severity
from storekeeper.stack.outline import OutlineEntry
from storekeeper.verbs.following import Wanted
from storekeeper.verbs.report import Report

GRACE = timedelta(minutes=5)  # after its time, and its spread, a run that has not begun is one that was missed
SCHEMA = 1
STEPS: Mapping[int, formats.Step] = {}
_SETTLED = "due.json"


@dataclass(frozen=True)
class Entry:
    """One line of the schedule, and what a record of its run says."""

    declared: OutlineEntry
    wanted: Wanted

    @property
    def text(self) -> str:
        return " ".join([self.declared.at.text, self.declared.verb, *self.declared.arguments])


@dataclass(frozen=True)
class Owed:
    """A run that was missed, and when it should have been."""

    entry: Entry
    planned: datetime


def due(
    state: Path, folder: Path, entries: Sequence[Entry], zone: tzinfo | None, spread: timedelta, run: Callable[[Entry], jobs.Record]
) -> Report:
    """Carry out what was missed, one after the other, each once however often it was missed. `run` follows it to its end.

    Raises Failed where it cannot be read what was carried out before, OSError or ValueError for records of runs that cannot.
    """
    carried_out = []
    problems = []
    for owed in missed(state, entries, jobs.records(folder), zone, spread):
        record = run(owed.entry)
        carried_out.append(_described(owed, record))
        if record.outcome not in (Outcome.OK, Outcome.WARNING):
            said = f"the {record.verb} that was missed at {clock.rfc3339(owed.planned)} ended {record.outcome}"
            problems.append(
                Problem(f"{said}: {record.message or 'no reason is recorded'}", Severity.WARNING, next=f"storekeeper jobs {record.stack}")
            )
    return Report({"runs": carried_out}, problems)


def missed(state: Path, entries: Sequence[Entry], records: Sequence[jobs.Record], zone: tzinfo | None, spread: timedelta) -> list[Owed]:
    """What is owed now. An entry that is seen for the first time owes nothing of the time before."""
    now = clock.now()
    path = state / _SETTLED
    before = _settled(path)
    after = {}
    owed = []
    for entry in entries:
        settled = before.get(entry.text, now)
        planned = entry.declared.at.latest_until(now - GRACE - spread, zone)
        if planned is not None and planned > settled:
            if any(_is_run_of(record, entry, planned) for record in records):
                settled = planned
            else:
                owed.append(Owed(entry, planned))
        after[entry.text] = settled
    if after != before:
        durable.write_json(path, {"schema": SCHEMA, "settled": {text: clock.rfc3339(at) for text, at in after.items()}})
    return owed


def _is_run_of(record: jobs.Record, entry: Entry, planned: datetime) -> bool:
    """Whether it is the run of that time: one that was turned away because another was at work, or was cut off, is none."""
    begun = clock.parse_rfc3339(record.started)
    return entry.wanted.is_that_of(record) and begun >= planned and record.outcome != Outcome.BUSY and not record.interrupted


def _settled(path: Path) -> dict[str, datetime]:
    try:
        found = json.loads(path.read_bytes())
        found = formats.upgraded(found, formats.number_of(found), SCHEMA, STEPS, what=str(path))
        return {str(text): clock.parse_rfc3339(at) for text, at in found["settled"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"{path} does not say what was carried out: nothing that was missed can be told", next=f"rm {path}") from error


def _described(owed: Owed, record: jobs.Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "verb": record.verb,
        "arguments": list(owed.entry.declared.arguments),
        "planned": clock.rfc3339(owed.planned),
        "outcome": record.outcome,
    }

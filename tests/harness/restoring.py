"""What the tests of a restore ask for and read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Severity
from storekeeper.restore.journal import journals
from storekeeper.restore.kept import expire_old_sides
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.report import Report
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.stacks import Lab

FIRST, LIVE = "first", "second"


def to(entry: SetEntry, **more: Any) -> RestoreRequest:
    return RestoreRequest(set=entry.id, **more)


def said(report: Report, severity: Severity | None = None) -> str:
    return "\n".join(problem.message for problem in report.problems if severity in (None, problem.severity))


def record_proof(lab: Lab, entry: SetEntry) -> None:
    """As `prove` does."""
    lab.context.sets.records.add(entry.id, "prove", "ok", clock.now())


def two_sides(lab: Lab) -> SetEntry:
    """A set of FIRST, beside which LIVE is live."""
    entry = lab.take(FIRST)
    lab.write(LIVE)
    return entry


def lines_of(lab: Lab, word: bytes = b"") -> list[int]:
    """The numbers of the lines of the newest journal with this word."""
    lines = journals(lab.context.state)[-1].path.read_bytes().splitlines()
    return [number for number, line in enumerate(lines, 1) if word in line]


def line_of_a_restore(lab: Lab, entry: SetEntry, step: str, which: int = 0) -> int:
    """The line at which a whole restore wrote this step for one of its stores; LIVE is live again."""
    restore(lab.context, to(entry))
    line = lines_of(lab, f'"step":"{step}"'.encode())[which]
    lab.write(LIVE)
    return line


def breaking(lab: Lab, name: str, method: str = "switch", times: int = 1_000) -> None:
    """From now on this real store fails, that many times, where it would have finished."""
    store, left = lab.context.stores[name], times

    def fail(*_: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Failed("the disk of this store is on fire")
        delattr(store, method)
        getattr(store, method)(*_)

    setattr(store, method, fail)


def watch(lab: Lab, name: str, method: str) -> list[list[bool]]:
    """A list that is told, each time this real store does that, which services run."""
    store, seen = lab.context.stores[name], []
    real = getattr(store, method)

    def watched(*words: Any) -> None:
        seen.append(running(lab))
        real(*words)

    setattr(store, method, watched)
    return seen


def running(lab: Lab) -> list[bool]:
    return [service.is_running() for service in lab.services]


def let_old_sides_expire(lab: Lab) -> int:
    """There is a newer proven set, and the time that they are kept for is over. Of how many restores they are gone."""
    record_proof(lab, take_set(lab.context, purpose="backup"))
    return len(expire_old_sides(lab.context, clock.now() + timedelta(days=8)))

"""What of a stack needs somebody's attention, judged from its sets, its runs and its journals alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from storekeeper.host.jobs import Record
from storekeeper.outcomes import Problem, Severity, StorekeeperError, Unknown
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.outline import Outline

if TYPE_CHECKING:
    from storekeeper.consistency.looks import Head
    from storekeeper.restore.journal import Journal

SLACK = timedelta(hours=2)  # a run may be this late, or take this long, before its absence is news
_JUDGED_VERBS = ("backup", "verify", "prove", "prune", "check")  # a restore is judged by its journal


@dataclass
class Findings:
    """What was found of one stack: alerts in the order of their making, and whether anything could not be found out."""

    stack: str
    alerts: list[Problem] = field(default_factory=list)
    is_unknown: bool = False

    def alert(self, message: str, *, store: str | None = None, next: str | None = None) -> None:
        self.alerts.append(Problem(message, Severity.WARNING, store, next, self.stack))

    def unknown(self, error: StorekeeperError | OSError, store: str | None = None) -> None:
        self.is_unknown = True
        if isinstance(error, StorekeeperError):
            self.alerts.append(Problem(error.message, Severity.ERROR, error.store or store, error.next, self.stack))
        else:
            said = f"{error.filename or 'what is recorded'} cannot be read: {error.strerror}"
            self.alerts.append(Problem(said, Severity.ERROR, store, "storekeeper doctor", self.stack))


def limit(declared: Outline | None, verb: str) -> timedelta | None:
    """How old the newest result of a scheduled verb may be; None where it has no schedule."""
    gaps = [entry.at.gap() for entry in declared.schedule if entry.verb == verb] if declared is not None else []
    return min(gaps) + SLACK if gaps else None


@dataclass
class Tally:
    """What all sets of a stack come to, counted one by one, oldest first."""

    sets: int = 0
    usable: int = 0
    proven: int = 0
    bytes: int = 0
    newest: SetEntry | None = None
    newest_usable: SetEntry | None = None
    newest_proven: SetEntry | None = None
    bad: dict[str, tuple[int, SetEntry]] = field(default_factory=dict)  # damaged, unprovable: how many, and the newest

    def add(self, entry: SetEntry) -> None:
        self.sets += 1
        self.bytes += entry.bytes
        self.newest = entry
        if entry.usable:
            self.usable += 1
            self.newest_usable = entry
        if entry.state == "proven":
            self.proven += 1
            self.newest_proven = entry
        if entry.state in ("damaged", "unprovable"):
            self.bad[entry.state] = (self.bad.get(entry.state, (0, entry))[0] + 1, entry)


def judge_sets(tally: Tally, declared: Outline | None, now: datetime, findings: Findings) -> None:
    """Is there a backup, is it young enough, does it restore, and is any set bad."""
    usable, proven = tally.newest_usable, tally.newest_proven
    backup, prove = f"storekeeper backup {findings.stack}", f"storekeeper prove {findings.stack}"
    if usable is None:
        findings.alert("there is no usable backup", next=backup)
    else:
        _judge_age("the newest backup", usable.time, limit(declared, "backup"), now, backup, findings)
    if usable is not None and proven is None:
        findings.alert("no backup has been proven to restore", next=prove)
    if proven is not None and proven.proven_at is not None:
        _judge_age("the newest proof", proven.proven_at, limit(declared, "prove"), now, prove, findings)
    for state in ("damaged", "unprovable"):
        if state in tally.bad:
            number, newest = tally.bad[state]
            count = f"set {newest.id} is" if number == 1 else f"{number} sets are, the newest {newest.id},"
            findings.alert(f"{count} {state}: {newest.reason or 'its records say so'}", next=f"storekeeper list {findings.stack}")
    if tally.newest is not None and tally.newest.time > now + SLACK:
        findings.alert(f"set {tally.newest.id} is dated after now: is the clock right?", next="date -u")


def judge_agreement(agreement: Mapping[str, Head | None], declared: Outline | None, now: datetime, findings: Findings) -> None:
    """Did the stores agree when they were last looked at, was all of them read, and is that young enough."""
    command = f"storekeeper check {findings.stack}"
    for rule, head in agreement.items():
        if head is None:
            findings.alert(f"whether the stores agree on {rule} was never looked at", next=command)
            continue
        if head.unread:
            findings.unknown(Unknown(f"{rule}: {', '.join(head.unread)} could not be read, so nothing is known of it", next=command))
        counts = {kind: sum(stores.values()) for kind, stores in head.counts.items()}
        if any(counts.values()):
            stores = sorted({store for found in head.counts.values() for store in found})
            said = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
            findings.alert(f"{rule}: {said} in {', '.join(stores)}", next=f"{command} --rule {rule} --lines")
        _judge_age(f"the newest look at {rule}", head.at, limit(declared, "check"), now, command, findings)


def judge_runs(runs: Sequence[Record], findings: Findings) -> None:
    """Did the newest run of each regular verb go well, and is one skipped again and again because another is at work."""
    for verb in _JUDGED_VERBS:
        of_verb = [run for run in runs if run.verb == verb and not run.running]
        skipped = _count_trailing_busy(of_verb)
        if skipped >= 2:
            findings.alert(f"the last {skipped} runs of {verb} were skipped, another run was at work", next="storekeeper jobs")
        done = of_verb[: len(of_verb) - skipped]
        if done and done[-1].outcome in (("failed", "unknown", "refused") if verb == "backup" else ("failed", "unknown")):
            last = done[-1]
            findings.alert(
                f"the {verb} of {last.started} ended {last.outcome}: {last.message or 'no reason is recorded'}",
                next=f"storekeeper jobs {findings.stack}",
            )


def judge_journal(journal: Journal | None, runs: Sequence[Record], findings: Findings) -> None:
    """Was a restore interrupted. One that is under way is none."""
    if journal is not None and not any(run.running for run in runs):
        findings.alert(f"a {journal.purpose} was interrupted and is unfinished", next=f"storekeeper resume {findings.stack}")


def _judge_age(what: str, at: datetime, allowed: timedelta | None, now: datetime, next: str, findings: Findings) -> None:
    if allowed is not None and now - at > allowed:
        hours, most = (now - at).total_seconds() / 3600, allowed.total_seconds() / 3600
        findings.alert(f"{what} is {hours:,.0f} h old, its schedule allows {most:,.0f} h", next=next)


def _count_trailing_busy(runs: Sequence[Record]) -> int:
    count = 0
    while count < len(runs) and runs[-1 - count].outcome == "busy":
        count += 1
    return count

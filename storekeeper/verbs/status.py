"""status: one screen of truth, from what was last recorded: sets, proofs and runs. `live` asks the stores as well.

Nothing is loaded here that a frequent look can do without: stack files come from their checked outline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from storekeeper.host import clock, space
from storekeeper.outcomes import Outcome, Problem, Severity, StorekeeperError, Unknown
from storekeeper.sets.listing import Listing
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.config import Places, stack_names
from storekeeper.stack.outline import Outline, OutlineRule, outline
from storekeeper.verbs import attention
from storekeeper.verbs.attention import Findings, Tally
from storekeeper.verbs.directories import known_sets
from storekeeper.verbs.documents import told_of
from storekeeper.verbs.jobs import records_of
from storekeeper.verbs.report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from storekeeper.consistency.looks import Head
    from storekeeper.restore.journal import Journal
    from storekeeper.stores.protocol import Inspection, Store

Found = TypeVar("Found")


def status(places: Places, stack: str | None, *, live: bool = False) -> Report:
    """The state of one stack, or of all: attention is a warning, what could not be found out is unknown."""
    names = stack_names(places) if stack is None else (stack,)
    described: dict[str, Any] = {}
    problems: list[Problem] = []
    is_unknown = False
    for name in names:
        findings = Findings(name)
        described[name] = _described(places, name, findings, live=live)
        problems += findings.alerts
        is_unknown = is_unknown or findings.is_unknown
    if not names:
        problems.append(Problem(f"no stack is declared in {places.stacks}", Severity.WARNING, next="storekeeper doctor"))
    outcome = Outcome.UNKNOWN if is_unknown else Outcome.WARNING if problems else Outcome.OK
    return Report({"stacks": described}, problems, outcome)


def _described(places: Places, name: str, findings: Findings, *, live: bool) -> dict[str, Any]:
    """One stack. What could not be read is null, with its reason among the alerts."""
    now = clock.now()
    declared = _tried(lambda: outline(places, name), findings)
    tally = _tried(lambda: _tally(places, name), findings)
    runs = _tried(lambda: records_of(places, name), findings)
    journal = _tried(lambda: _unfinished(places.state_of(name)), findings)
    asked = _asked(places, name, findings) if live and declared is not None else {}
    if tally is not None:
        attention.judge_sets(tally, declared, now, findings)
    attention.judge_runs(runs or (), findings)
    attention.judge_journal(journal, runs or (), findings)
    agreement = _agreement(places.state_of(name), declared, findings)
    attention.judge_agreement({rule.name: head for rule, head in agreement.items()}, declared, now, findings)
    usable, proven = (tally.newest_usable, tally.newest_proven) if tally is not None else (None, None)
    return {
        "stores": _stores(declared, usable, proven, asked, now),
        "last_backup": None if usable is None else _aged(usable.id, usable.time, now, _seconds(declared, "backup")),
        "last_proof": _proof(proven, declared, now),
        "next_run": _next_run(declared, now),
        "findings": _findings(agreement),
        "agreement": {rule.name: None if head is None else _told(rule, head) for rule, head in agreement.items()},
        "alerts": [{"store": each.store, "message": each.message, "next": each.next} for each in findings.alerts],
        "backups": _numbers(places, tally),
        **(_migrations(places, name, findings) if live and declared is not None else {}),
    }


def _agreement(state: Path, declared: Outline | None, findings: Findings) -> dict[OutlineRule, Head | None]:
    """What the last look at each declared rule found; None for one that was never looked at as it is declared now. One whose look cannot
    be read is left out, and is among the findings."""
    if declared is None or not declared.rules:
        return {}
    from storekeeper.consistency import looks  # noqa: PLC0415 of stacks with rules only

    found: dict[OutlineRule, Head | None] = {}
    for rule in declared.rules:
        try:
            head = looks.newest(state, rule.name)
        except StorekeeperError as error:
            findings.unknown(error)
        else:
            found[rule] = head if head is not None and head.rule == rule.digest else None
    return found


def _findings(agreement: Mapping[OutlineRule, Head | None]) -> dict[str, int] | None:
    """Counts by class over all rules; None where one is unknown: what was not looked at is not in agreement."""
    heads = [head for head in agreement.values() if head is not None]
    if len(heads) < len(agreement) or not heads or any(head.unread for head in heads):
        return None
    counts: dict[str, int] = {}
    for head in heads:
        for kind, stores in head.counts.items():
            counts[kind] = counts.get(kind, 0) + sum(stores.values())
    return counts


def _told(rule: OutlineRule, head: Head) -> dict[str, Any]:
    counts = {kind: dict(stores) for kind, stores in head.counts.items()}
    return {
        "at": clock.rfc3339(head.at),
        "stores": list(rule.stores),
        "documents": head.documents,
        "counts": counts,
        "unread": list(head.unread),
    }


def _unfinished(state: Path) -> Journal | None:
    """The journal of an interrupted restore."""
    if not (state / "journals").is_dir():
        return None
    from storekeeper.restore.journal import unfinished  # noqa: PLC0415 most stacks were never restored

    return unfinished(state)


def _tried(read: Callable[[], Found], findings: Findings) -> Found | None:
    try:
        return read()
    except (StorekeeperError, OSError) as error:
        findings.unknown(error)
        return None


def _tally(places: Places, name: str) -> Tally:
    """What the sets come to; none where this host has never had a repository. Raises Unknown for one that cannot be read."""
    tally = Tally()
    try:
        sets = known_sets(places, name)
        for listed in Listing(sets, told_of) if sets is not None else ():
            tally.add(listed.entry)
    except StorekeeperError as error:
        raise Unknown(error.message, next=error.next) from error
    return tally


def _stores(
    declared: Outline | None, usable: SetEntry | None, proven: SetEntry | None, asked: Mapping[str, Inspection | None], now: datetime
) -> dict[str, Any]:
    """Each declared store, with its figures from the newest backup, or from the store itself where it was asked."""
    if declared is None:
        return {}
    held = usable.manifest.stores if usable is not None and usable.manifest is not None else {}
    in_proof = proven.manifest.stores if proven is not None and proven.manifest is not None else {}
    found = {}
    for name, kind in declared.stores.items():
        record, inspection = held.get(name), asked.get(name)
        figures = inspection or record
        found[name] = {
            "kind": kind,
            "state": None if name not in asked else "up" if inspection else "unknown",
            "bytes": figures.bytes if figures else None,
            "counts": dict(figures.counts) if figures else None,
            "as_of": clock.rfc3339(now) if inspection else clock.rfc3339(record.pinned) if record else None,
            "last_proof": _proof(proven, declared, now) if name in in_proof else None,
        }
    return found


def _proof(proven: SetEntry | None, declared: Outline | None, now: datetime) -> dict[str, Any] | None:
    if proven is None or proven.proven_at is None:
        return None
    return _aged(proven.id, proven.proven_at, now, _seconds(declared, "prove"))


def _aged(set_id: str, at: datetime, now: datetime, limit: int | None) -> dict[str, Any]:
    return {"set": set_id, "at": clock.rfc3339(at), "age_s": max(0, int((now - at).total_seconds())), "limit_s": limit}


def _seconds(declared: Outline | None, verb: str) -> int | None:
    allowed = attention.limit(declared, verb)
    return None if allowed is None else int(allowed.total_seconds())


def _next_run(declared: Outline | None, now: datetime) -> str | None:
    """When the next scheduled backup begins; None where none is scheduled."""
    runs = (
        [entry.at.next_after(now, declared.zone) for entry in declared.schedule if entry.verb == "backup"] if declared is not None else []
    )
    return clock.rfc3339(min(runs)) if runs else None


def _numbers(places: Places, tally: Tally | None) -> dict[str, Any] | None:
    """How many sets there are, what they hold (files that sets share count in each), and the room that is left."""
    if tally is None:
        return None
    return {"usable": tally.usable, "proven": tally.proven, "bytes": tally.bytes, "free": space.free_bytes(places.repository)}


def _asked(places: Places, name: str, findings: Findings) -> dict[str, Inspection | None]:
    """Every store's own answer; None, and unknown, for one that gave none."""
    opened = _tried(lambda: _open(places, name), findings)
    found: dict[str, Inspection | None] = {}
    for store_name, store in (opened or {}).items():
        try:
            found[store_name] = store.inspect()
        except StorekeeperError as error:
            found[store_name] = None
            findings.unknown(error, store_name)
    return found


def _migrations(places: Places, name: str, findings: Findings) -> dict[str, Any]:
    """The newest migration that the application has applied, and how many; nothing of a stack that does not declare how to ask."""
    from storekeeper.stack.queries import MOST_ROWS  # noqa: PLC0415 for a live look only
    from storekeeper.stores.questions import Question  # noqa: PLC0415
    from storekeeper.verbs import opening  # noqa: PLC0415

    stack = _tried(lambda: opening.declared(places, name), findings)
    if stack is None or stack.migration is None or stack.migration.applied is None:
        return {}
    asked = stack.migration.applied
    try:
        found = opening.open_store_of(stack, asked.store, places).answer(Question(asked.query, {}, MOST_ROWS))
    except StorekeeperError as error:
        findings.unknown(error, asked.store)
        return {"migrations": None}
    newest = found.rows[0][0] if found.rows else None
    return {"migrations": {"newest": None if newest is None else str(newest), "count": len(found.rows), "more": found.more}}


def _open(places: Places, name: str) -> Mapping[str, Store]:
    from storekeeper.verbs import opening  # noqa: PLC0415 the libraries of the stores, for a live look only

    return opening.open_stores(opening.declared(places, name), places)

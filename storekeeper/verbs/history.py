"""history: in which sets one document is, and whether it is whole in them, by the ids that every set recorded at its moment."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from storekeeper.consistency.agreement import Agreement
from storekeeper.consistency.comparison import State, words_of
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.recording import declared_in, document_in
from storekeeper.host.clock import rfc3339
from storekeeper.outcomes import Busy, Outcome, Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.sets.manifest import BadManifest, Manifest
from storekeeper.sets.repository import SetEntry, SetGone, StackSets
from storekeeper.stores.identities import Identity
from storekeeper.verbs.report import Report

WHOLE, INCOMPLETE, IN_FLIGHT, FAILED, ORPHAN, ABSENT, UNKNOWN = "whole", "incomplete", "in_flight", "failed", "orphan", "absent", "unknown"
_USABLE = ("verified", "proven")


def history(stack: str, sets: StackSets | None, document: str, rule: str | None) -> Report:
    """Every set, oldest first, with what it holds of the document by rule; nothing is read but ids.

    A usable set whose ids cannot be read makes the outcome unknown: whether the document is in it is not known. Of a damaged set nothing is
    known, and it is no backup either. Raises Refused for a rule under which no set was taken.
    """
    if not document:
        raise Refused("an id is at least one sign long", next=f"storekeeper history {stack} ID")
    told = [each for entry in (sets.entries() if sets else ()) if sets for each in _of_set(sets, entry, document, rule)]
    if rule is not None and told and not any(each["rules"] or each["why"] for each in told):
        known = sorted({name for entry in (sets.entries() if sets else ()) for name in _agreements(entry)})
        raise Refused(f"no set was taken under a rule {rule[:60]!r}; there are {', '.join(known) or 'none'}")
    newest = next((each["id"] for each in reversed(told) if _is_whole(each)), None)
    unread = [why for each in told if each["state"] in _USABLE for why in _unknown(each)]
    problems = [Problem(why, Severity.ERROR, next=f"storekeeper verify {stack} {name}") for name, why in unread[-1:]]
    if newest is None and not unread:
        problems.append(
            Problem(f"no set that can be restored holds all of {document[:80]!r}", Severity.INFO, next=f"storekeeper list {stack}")
        )
    command = None if newest is None else f"storekeeper restore {stack} {newest} --document {shlex.quote(document)}"
    result = {"document": document, "sets": told, "newest_whole": newest, "restore": command}
    return Report(result, problems, Outcome.UNKNOWN if unread else None)


def _unknown(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The set with each reason why something of it is not known."""
    for each in (told, *told["rules"].values()):
        if each["why"]:
            yield told["id"], f"set {told['id']}: {each['why']}"


def _of_set(sets: StackSets, entry: SetEntry, document: str, rule: str | None) -> Iterator[dict[str, Any]]:
    with suppress(SetGone, Busy), sets.using(entry):  # one that is removed meanwhile is none any more
        told: dict[str, Any] = {"id": entry.id, "time": rfc3339(entry.time), "state": entry.state, "why": None, "rules": {}}
        try:
            manifest = entry.manifest
        except BadManifest as error:
            yield {**told, "why": error.message}
            return
        if manifest is None:
            yield {**told, "why": entry.reason or "its manifest cannot be read"}
            return
        wanted = {name: agreement for name, agreement in manifest.agreements.items() if rule in (None, name)}
        yield {**told, "rules": {name: _of_rule(name, agreement, manifest, document, entry) for name, agreement in wanted.items()}}


def _agreements(entry: SetEntry) -> Mapping[str, Agreement]:
    return entry.manifest.agreements if entry.manifest else {}


def _of_rule(name: str, agreement: Agreement, manifest: Manifest, document: str, entry: SetEntry) -> dict[str, Any]:
    try:
        if entry.state == "damaged":
            raise Unknown(f"it is damaged: {entry.reason or 'no reason is recorded'}")
        mine, findings = document_in(name, agreement, entry.path, manifest.stores, document, entry.time)
    except StorekeeperError as error:
        return {"is": UNKNOWN, "owner": None, "findings": [], "why": error.message}
    word = _word(agreement, mine, findings)
    return {"is": word, "owner": mine.owner if mine else None, "findings": [each.to_json() for each in findings], "why": None}


def _word(agreement: Agreement, mine: Identity | None, findings: list[Finding]) -> str:
    if mine is None:
        return ORPHAN if findings else ABSENT
    words = words_of(declared_in(agreement).states)
    state = State.COMPLETE if words is None else words.get(mine.state or "", State.IN_FLIGHT)
    if state is State.COMPLETE:
        return INCOMPLETE if findings else WHOLE
    return FAILED if state is State.FAILED else IN_FLIGHT


def _is_whole(told: Mapping[str, Any]) -> bool:
    return told["state"] in _USABLE and any(each["is"] == WHOLE for each in told["rules"].values())

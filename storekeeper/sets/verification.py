"""Verifying a published set: read back every byte, decode every artefact, and write down what was found.

A file that is shared between sets (a hard link) is bad in all of them: they are marked with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from storekeeper.host import clock
from storekeeper.host.formats import NewerFormat
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Outcome, Problem, Severity, StorekeeperError
from storekeeper.sets.artefacts import Fault, Findings, Subset, look_around
from storekeeper.sets.manifest import BadManifest, Manifest
from storekeeper.sets.readahead import ReadAhead
from storekeeper.sets.records import SetState, Verdict
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.stores.protocol import Store
from storekeeper.stores.record import StoreRecord

_BAD_CONTENT = ("truncated", "extended", "altered", "replaced", "unreadable")


@dataclass(frozen=True)
class StoreVerdict:
    """One store of a set: ok, failed, or unknown where it could not be tried."""

    outcome: Outcome
    seconds: float
    problems: tuple[Problem, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class SetVerdict:
    """A set after it was verified. `shared` are other sets that were marked as damaged with it."""

    id: str
    outcome: Outcome
    state: SetState
    stores: Mapping[str, StoreVerdict]
    problems: tuple[Problem, ...]
    shared: tuple[str, ...] = ()


def verify_set(
    sets: StackSets, entry: SetEntry, stores: Mapping[str, Store], progress: Progress, *, subset: Subset | None = None
) -> SetVerdict:
    """Read a set back, decode it, and record the verdict; the set cannot be removed meanwhile.

    With `subset` (n, t) only the n-th of t parts is read and nothing is decoded: it can find damage, and vouches for nothing.
    A store that is not declared any more is read back but not decoded, and the verdict says so. Raises SetGone or Busy.
    """
    with sets.using(entry):
        try:
            manifest = entry.manifest
        except BadManifest as error:
            return _unusable(replace(entry, state="damaged", reason=error.message))
        if manifest is None:
            return _unusable(entry)
        return _Verification(sets, entry, manifest, stores, progress, subset=subset).run()


class _Verification:
    def __init__(
        self,
        sets: StackSets,
        entry: SetEntry,
        manifest: Manifest,
        stores: Mapping[str, Store],
        progress: Progress,
        *,
        subset: Subset | None,
    ) -> None:
        self._sets = sets
        self._entry = entry
        self._manifest = manifest
        self._stores = stores
        self._progress = progress
        self._subset = subset
        self._sharing: dict[str, str] = {}
        self._others = [each for each in sets.entries() if each.id != entry.id]

    def run(self) -> SetVerdict:
        around = look_around(self._entry.path, self._manifest)
        verdicts = self._verify_stores()
        problems = [*_fault_problems(around), *self._open_to_others(around)]
        problems += [problem for each in verdicts.values() for problem in each.problems]
        outcome = _worst([each.outcome for each in verdicts.values()] + [Outcome.FAILED] * bool(around.faults))
        self._record(outcome, verdicts, problems)
        state = self._sets.entry(self._entry.id).state
        shared = self._mark_sharing()
        problems += [Problem(f"set {each} shares a damaged file with it and is damaged too") for each in shared]
        return SetVerdict(self._entry.id, outcome, state, verdicts, tuple(problems), shared)

    def _open_to_others(self, around: Findings) -> list[Problem]:
        if not around.exposed:
            return []
        path = self._entry.path
        return [Problem(f"{path} belongs to another user or can be reached by others", Severity.WARNING, next=f"chmod 0700 {path}")]

    def _verify_stores(self) -> dict[str, StoreVerdict]:
        with ReadAhead(self._entry.path, self._manifest, self._progress, subset=self._subset, on_fault=self._find_sharing) as ahead:
            verdicts = {name: self._verify_store(name, self._manifest.stores[name], ahead) for name in ahead.order}
        return {name: verdicts[name] for name in self._manifest.stores}

    def _verify_store(self, name: str, record: StoreRecord, ahead: ReadAhead) -> StoreVerdict:
        started = clock.monotonic()
        verdict = partial(_verdict, started)
        try:
            findings = ahead.findings(name)
            faults = tuple(self._name_origin(fault) for fault in findings.faults)
            if faults:
                return verdict(Outcome.FAILED, _fault_problems(replace(findings, faults=list(faults))), faults)
            return verdict(Outcome.OK, self._decode(name, record) + _exposure(name, findings))
        except StorekeeperError as error:
            outcome = Outcome.FAILED if isinstance(error, Failed) else Outcome.UNKNOWN
            return verdict(outcome, [error.about(name).problem()])

    def _decode(self, name: str, record: StoreRecord) -> list[Problem]:
        """Raises the store's error when its artefacts cannot be decoded, or when that cannot be tried."""
        if self._subset is not None:
            return []
        if record.is_raw:
            return [Problem("it is a raw copy of what could not be read: its files were compared, not decoded", Severity.WARNING, name)]
        store = self._stores.get(name)
        if store is None or store.kind != record.kind:
            what = "is not declared any more" if store is None else f"is declared as {store.kind} now, the set holds {record.kind}"
            return [Problem(f"{what}: its files were compared, not decoded", Severity.WARNING, name)]
        self._progress.step(name, "decoding")
        store.verify(self._entry.path / name, record)
        return []

    def _name_origin(self, fault: Fault) -> Fault:
        """Say so when what was found instead is another artefact that we wrote."""
        if fault.sha256 is None:
            return fault
        for set_id, manifest in self._manifests():
            for store, record in manifest.stores.items():
                for artefact in record.artefacts:
                    if artefact.sha256 == fault.sha256:
                        origin = f"{store}/{artefact.path} of set {set_id}"
                        return replace(fault, kind="replaced", message=f"{ascii(fault.path)[1:-1]} was replaced: it holds {origin}")
        return fault

    def _manifests(self) -> list[tuple[str, Manifest]]:
        return [(each.id, manifest) for each in (self._entry, *self._others) if (manifest := _manifest_of(each)) is not None]

    def _find_sharing(self, fault: Fault) -> None:
        """Other sets whose file of the same path is the same inode: that is how unchanged files are shared."""
        if fault.kind not in _BAD_CONTENT:
            return
        identity = _inode(self._entry.path / fault.path)
        for other in self._others:
            if identity is not None and other.id not in self._sharing and _inode(other.path / fault.path) == identity:
                self._sharing[other.id] = fault.path

    def _mark_sharing(self) -> tuple[str, ...]:
        marked = []
        for other in self._others:
            path = self._sharing.get(other.id)
            if path is not None and other.state != "damaged":
                reason = f"{ascii(path)[1:-1]} is one file with that of set {self._entry.id}, where it was found damaged"
                self._sets.records.add(other.id, "verify", "failed", clock.now(), reason=reason, part=True)
                marked.append(other.id)
        return tuple(marked)

    def _record(self, outcome: Outcome, verdicts: Mapping[str, StoreVerdict], problems: list[Problem]) -> None:
        verdict: Verdict = "ok" if outcome is Outcome.OK else "failed" if outcome is Outcome.FAILED else "unknown"
        errors = [each for each in problems if each.severity is Severity.ERROR]
        facts: dict[str, Any] = {
            "stores": {name: {"outcome": each.outcome.value, "seconds": each.seconds} for name, each in verdicts.items()},
            "problems": [each.message for each in errors],
        }
        reason = _sentence(errors[0]) if verdict == "failed" and errors else None
        self._sets.records.add(self._entry.id, "verify", verdict, clock.now(), reason=reason, part=self._subset is not None, facts=facts)


def _sentence(problem: Problem) -> str:
    return f"{problem.store}: {problem.message}" if problem.store else problem.message


def _unusable(entry: SetEntry) -> SetVerdict:
    """A set whose manifest cannot be used: bad, or beyond this version."""
    outcome = Outcome.UNKNOWN if entry.state == "unprovable" else Outcome.FAILED
    return SetVerdict(entry.id, outcome, entry.state, {}, (Problem(entry.reason or "its manifest cannot be read"),))


def _verdict(started: float, outcome: Outcome, problems: list[Problem], faults: tuple[Fault, ...] = ()) -> StoreVerdict:
    return StoreVerdict(outcome, round(clock.monotonic() - started, 3), tuple(problems), faults)


def _fault_problems(findings: Findings) -> list[Problem]:
    problems = [Problem(fault.message, store=fault.store) for fault in findings.faults]
    if findings.total > len(findings.faults):
        problems.append(Problem(f"{findings.total - len(findings.faults)} more faults", store=findings.faults[0].store))
    return problems


def _exposure(name: str, findings: Findings) -> list[Problem]:
    if findings.first_exposed is None:
        return []
    first = ascii(findings.first_exposed)[1:-1]
    message = f"{findings.exposed} of its files belong to another user or can be reached by others, the first is {first}"
    return [Problem(message, Severity.WARNING, name)]


def _worst(outcomes: list[Outcome]) -> Outcome:
    for bad in (Outcome.FAILED, Outcome.UNKNOWN):
        if bad in outcomes:
            return bad
    return Outcome.OK


def _manifest_of(entry: SetEntry) -> Manifest | None:
    try:
        return entry.manifest
    except (BadManifest, NewerFormat):
        return None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino

"""Plans of repairs: what a look found that may be removed, and what has to be taken in again; a private directory each, sealed.

state/STACK/repairs/ID/plan.json        counts, samples, the rules it was made under; ID ends with the first digits of its sha256
state/STACK/repairs/ID/entries.jsonl    what is to be removed, a finding a line; its sha256 stands in plan.json
state/STACK/repairs/ID/reingest.jsonl   what is missing or not whole, a document a line, for the application to take in again
state/STACK/repairs/ID/kept/N.jsonl     what apply took away, with all that undo needs
state/STACK/repairs/ID/journal.jsonl    how far apply and undo have come
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from storekeeper.consistency.findings import Class, Finding
from storekeeper.host import clock, durable, formats, locks
from storekeeper.outcomes import Failed, Refused
from storekeeper.stack.rules import Rule
from storekeeper.stores.lines import read_lines, to_line

FORMAT = 1
_FOLDER, _PLAN, _ENTRIES, _REINGEST, _JOURNAL, _KEPT = "repairs", "plan.json", "entries.jsonl", "reingest.jsonl", "journal.jsonl", "kept"
_MAKING = ".making-"  # before a name of its own, of a plan that is being made
_GONE = ".gone-"  # before the name of a plan that is being removed
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
_SAMPLES = 10
REMOVABLE = (Class.ORPHAN, Class.LEFTOVER)
REINGESTED = (Class.MISSING, Class.PARTIAL)


@dataclass(frozen=True)
class Scope:
    """What a plan was made of: all where None."""

    rule: str | None = None
    document: str | None = None
    owner: str | None = None
    at_once: bool = False
    declared: bool = False  # only classes that the rule declares as `automatic`

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "document": self.document, "owner": self.owner, "at_once": self.at_once, "declared": self.declared}

    def takes(self, kind: Class, rule: Rule) -> bool:
        """Whether findings of this class may be planned to be removed."""
        return kind in REMOVABLE and (not self.declared or kind in rule.automatic)


@dataclass
class Sorting:
    """Findings sorted by what becomes of them. `waiting` are younger than the grace, `by_hand` no repair removes or takes in again."""

    removals: Counter[str] = field(default_factory=Counter)  # by store
    documents: dict[str, int] = field(default_factory=dict)  # to be removed from somewhere, by rule
    reingest: int = 0
    waiting: int = 0
    by_hand: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def removed(
        self, rule: str, found: Iterable[Finding], rules: Rule, now: datetime, scope: Scope, immovable: frozenset[str]
    ) -> Iterator[bytes]:
        """The lines of what is to be removed. A place in `immovable` declares no rows, so that nobody can remove anything there."""
        last = None
        for each in found:
            if not scope.takes(each.kind, rules):
                self.by_hand += each.kind not in REINGESTED
                continue
            if each.place in immovable:
                self.by_hand += 1
                continue
            if not scope.at_once and (each.since is None or each.since > now - rules.grace):
                self.waiting += 1
                continue
            self.removals[each.store] += 1
            self.documents[rule] = self.documents.get(rule, 0) + (each.document != last)
            last = each.document
            line = {"rule": rule, **each.to_json()}
            if len(self.samples) < _SAMPLES:
                self.samples.append(line)
            yield to_line(line)

    def reingested(self, rule: str, found: Iterable[Finding]) -> Iterator[bytes]:
        """A line for each document that has to be taken in again, with the places where something of it is missing."""
        waiting: dict[str, Any] | None = None
        for each in found:
            if each.kind not in REINGESTED:
                continue
            if waiting is None or waiting["document"] != each.document:
                if waiting is not None:
                    yield to_line(waiting)
                waiting = {"rule": rule, "document": each.document, "owner": each.owner, "places": []}
                self.reingest += 1
            waiting["places"].append({"place": each.place, "class": str(each.kind), "detail": each.detail})
        if waiting is not None:
            yield to_line(waiting)


@dataclass(frozen=True)
class Plan:
    """A plan as it was written down. `path` is its directory."""

    path: Path
    document: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def token(self) -> str:
        """8 hexadecimal digits of its own."""
        return self.id[-8:] if self.restores is None else str(self.restores["token"])

    @property
    def restores(self) -> Mapping[str, Any] | None:
        """Of a plan that brings a document back out of a set: `set`, `document`, `rule`, `stores`, `token`. Its entries are what comes."""
        found = self.document.get("restores")
        return None if found is None else dict(found)

    @property
    def stores(self) -> Sequence[str]:
        """Whose data it changes: something may be kept beside each of them."""
        return list(self.removals if self.restores is None else self.restores.get("stores", ()))

    @property
    def removals(self) -> Mapping[str, int]:
        return dict(self.document["removals"])

    @property
    def documents(self) -> Mapping[str, int]:
        return dict(self.document["documents"])

    @property
    def reingest_file(self) -> Path:
        return self.path / _REINGEST

    def missing(self, rule: str) -> Generator[dict[str, Any], None, None]:
        """What of a rule has to be taken in again, a document each, in order."""
        with closing(read_lines(self.reingest_file)) as lines:
            yield from (line for line in lines if line["rule"] == rule)

    @property
    def kept_folder(self) -> Path:
        return self.path / _KEPT

    def entries(self) -> Generator[tuple[str, Finding], None, None]:
        """What is to be removed, with its rule."""
        for line in read_lines(self.path / _ENTRIES):
            yield str(line["rule"]), Finding.from_json(line)

    def lines(self) -> Generator[dict[str, Any], None, None]:
        """The entries as they were written."""
        return read_lines(self.path / _ENTRIES)

    @property
    def created(self) -> datetime:
        return clock.parse_rfc3339(str(self.document["created"]))

    def state(self) -> str | None:
        """The last step: applying, applied, undoing, undone, and of a document that is brought back laid between the first two; None where
        nothing was begun."""
        last = self._last_line()
        return None if last is None else str(last["step"])

    def changed(self) -> datetime:
        """When the last step was begun; when it was made where none was."""
        last = self._last_line()
        return self.created if last is None else clock.parse_rfc3339(str(last["at"]))

    def _last_line(self) -> Mapping[str, Any] | None:
        """Raises Failed for a journal that rotted."""
        try:
            lines = (self.path / _JOURNAL).read_bytes().split(b"\n")
            steps = [line for line in lines[:-1] if line]  # what was torn by a power cut had not begun
            found = json.loads(steps[-1]) if steps else None
            return None if found is None else {"step": str(found["step"]), "at": str(found["at"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"the journal of the plan {self.path} cannot be read: {type(error).__name__}") from error

    def remove(self) -> None:
        """Remove it with all that it keeps. Its name goes first, so that a kill in between leaves no plan that cannot be read."""
        gone = self.path.with_name(f"{_GONE}{self.id}")
        durable.rename(self.path, gone)
        durable.remove_tree(gone)

    def note(self, step: str) -> None:
        """Write a step down; durable when this returns."""
        line = to_line({"step": step, "at": clock.rfc3339(clock.now())})
        descriptor = os.open(
            self.path / _JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, durable.PRIVATE_FILE
        )
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        durable.sync_directory(self.path)


@contextmanager
def making(state: Path) -> Iterator[Making]:
    """A plan in the making, in a directory of its own: others may be made at the same time. It is gone afterwards unless it was published.

    What a killed run left is removed first. Raises Unknown while another run does that for longer than a minute.
    """
    folder = state / _FOLDER
    path = folder / f"{_MAKING}{secrets.token_hex(4)}"
    durable.ensure_directory(folder)
    with ExitStack() as held:
        with locks.turn(folder):  # so that nobody sees one between its making and its lock
            for left in folder.glob(f"{_MAKING}*"):
                with suppress(FileNotFoundError), locks.hold_directory(left) as is_dead:
                    if is_dead:
                        durable.remove_tree(left)
            durable.make_directory(path)
            held.enter_context(locks.hold_directory(path))
        try:
            yield Making(path)
        finally:
            durable.remove_tree(path)


class Making:
    """What `making` gives: it gets the name of a plan when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests = {name: hashlib.sha256() for name in (_ENTRIES, _REINGEST)}

    def add(self, entries: Iterable[bytes], reingest: Iterable[bytes]) -> None:
        for name, lines in ((_ENTRIES, entries), (_REINGEST, reingest)):
            with open(self._path / name, "ab") as file:
                for line in lines:
                    file.write(line)
                    self._digests[name].update(line)
                file.flush()
                os.fsync(file.fileno())

    def publish(self, facts: Mapping[str, Any], now: datetime) -> Plan:
        """Seal it and give it its name."""
        document = {"format": FORMAT, **facts, **{name: digest.hexdigest() for name, digest in self._digests.items()}}
        durable.write_json(self._path / _PLAN, document)
        name = f"{now:%Y%m%dT%H%M%SZ}-{_seal(document)}"
        durable.rename(self._path, self._path.with_name(name))
        return Plan(self._path.with_name(name), document)


def opened(state: Path, name: str) -> Plan:
    """A plan by its id, below the stack's own `state`. Raises Refused where there is none, and for one that is not as it was written."""
    path = state / _FOLDER / name
    if not _NAME.fullmatch(name) or not path.is_dir():
        raise Refused(f"there is no plan {name[:60]!r}", next=f"storekeeper repair plan {state.name}")
    try:
        document = json.loads((path / _PLAN).read_bytes())
        formats.refuse_newer(formats.number_of(document, key="format"), FORMAT, what="the plan")
        sums = {each: _sum_of(path / each) for each in (_ENTRIES, _REINGEST)}
        altered = _seal(document) != name[-12:] or any(document[each] != sums[each] for each in sums)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"the plan {path} cannot be read: {type(error).__name__}") from error
    if altered:
        raise Refused(f"the plan {name} was altered after it was made: nothing was changed", next="make a new one")
    return Plan(path, document)


def sweep(state: Path) -> None:
    """End the removals that were killed."""
    folder = state / _FOLDER
    for path in sorted(folder.glob(f"{_GONE}*")) if folder.is_dir() else []:
        durable.remove_tree(path)


def all_of(state: Path) -> Sequence[str]:
    """The ids of all plans, oldest first."""
    folder = state / _FOLDER
    return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name)) if folder.is_dir() else []


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def _sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

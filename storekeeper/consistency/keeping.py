"""What was read of a rule's places, and what came out, kept for the next look: `STACK/kept/RULE/` in the state directory.

It stands beside the marks that the places had before they were read and after. A place with that mark is not read again, for a day at
most; where anything about what is kept is not as it was written, it is as if there were nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from storekeeper import __version__
from storekeeper.consistency.comparison import Stream, Tally
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.places import Place
from storekeeper.consistency.spool import Spool
from storekeeper.host import clock, durable, locks
from storekeeper.host.stamps import Clock
from storekeeper.outcomes import Problem, Severity, StorekeeperError
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Kept, Sorted
from storekeeper.stores.lines import read_lines

LONGEST = timedelta(hours=24)  # then everything is read again, whatever is promised
_FOLDER, _INDEX, _FINDINGS = "kept", "index.json", "findings.jsonl"
_ROOM = 20  # times the size of what is kept that must be free
_NOT_AS_WRITTEN = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Figures:
    """The authority's owners and states, and what each place holds: documents, and chunks where it counts them."""

    owners: int
    states: Mapping[str, int]
    held: Mapping[str, tuple[int, int | None]]


@dataclass(frozen=True, kw_only=True)
class Read(Stream):
    """A place with its identities as they were at a moment, and the mark that it had before and after; None where these differ."""

    identities: Sorted
    mark: str | None
    nameless: int
    at: datetime
    is_kept: bool = False


@dataclass(frozen=True)
class KeptPlace:
    """A place as an earlier look read it."""

    file: Path
    digest: str
    mark: str
    nameless: int
    ends: tuple[str, ...]
    at: datetime

    def opened(self, held: ExitStack, place: Place) -> Read:
        found = held.enter_context(Kept(self.file))
        return Read(place=place, identities=found, ends=self.ends, mark=self.mark, nameless=self.nameless, at=self.at, is_kept=True)

    def to_json(self) -> dict[str, Any]:
        named = {"file": self.file.name, "digest": self.digest, "mark": self.mark, "nameless": self.nameless, "ends": list(self.ends)}
        return {**named, "at": clock.rfc3339(self.at)}

    @classmethod
    def from_json(cls, folder: Path, document: Mapping[str, Any]) -> KeptPlace:
        name = str(document["file"])
        ends = tuple(str(end) for end in document["ends"])
        at = clock.parse_rfc3339(document["at"])
        return cls(folder / Path(name).name, str(document["digest"]), str(document["mark"]), int(document["nameless"]), ends, at)


@dataclass(frozen=True)
class Compared:
    """What came out when all places were compared; until then nothing but a change of a place can make it another."""

    found: Spool | Path
    tally: Tally
    figures: Figures
    problems: Sequence[Problem]
    until: datetime | None

    def findings(self) -> Iterator[Finding]:
        return (Finding.from_json(line) for line in read_lines(self.found)) if isinstance(self.found, Path) else iter(self.found)

    def to_json(self) -> dict[str, Any]:
        tally, figures = self.tally, self.figures
        return {
            "documents": tally.documents,
            "in_flight": tally.in_flight,
            "held": dict(tally.held),
            "chunks": dict(tally.chunks),
            "owners": figures.owners,
            "states": dict(figures.states),
            "figures": {name: list(each) for name, each in figures.held.items()},
            "problems": [[each.message, str(each.severity), each.store, each.next] for each in self.problems],
            "until": None if self.until is None else clock.rfc3339(self.until),
        }

    @classmethod
    def from_json(cls, folder: Path, document: Mapping[str, Any]) -> Compared:
        tally = Tally(int(document["documents"]), int(document["in_flight"]), Counter(document["held"]), Counter(document["chunks"]))
        held = {name: (int(documents), chunks) for name, (documents, chunks) in document["figures"].items()}
        problems = [Problem(message, Severity(severity), store, following) for message, severity, store, following in document["problems"]]
        until = None if document["until"] is None else clock.parse_rfc3339(document["until"])
        return cls(folder / _FINDINGS, tally, Figures(int(document["owners"]), document["states"], held), problems, until)


@contextmanager
def kept_of(state: Path, name: str, rule: Rule) -> Iterator[Keeping | None]:
    """What is kept of a rule, for one look; None while another run looks: what that one has read and this one has must not be mixed."""
    folder = state / _FOLDER
    with ExitStack() as held:
        try:
            durable.ensure_directory(folder)
            is_ours = held.enter_context(locks.hold_directory(folder))
        except OSError:  # no room: then nothing could be kept
            is_ours = False
        yield Keeping(folder / name, rule) if is_ours else None


class Keeping:
    """What is kept of one rule. Asked before a look reads, and told afterwards what it has read."""

    def __init__(self, folder: Path, rule: Rule) -> None:
        self._folder = folder
        self._digest = rule.digest
        self._places: dict[str, KeptPlace] = {}
        self._compared: Compared | None = None
        self._findings = ""  # their digest
        self._clock = Clock.now()
        with suppress(*_NOT_AS_WRITTEN):
            self._load(json.loads((self._folder / _INDEX).read_bytes()))

    def knows(self, name: str, mark: str | None, now: datetime) -> bool:
        """Whether it is known what a place holds that has this mark: it had it when it was read, less than a day ago."""
        kept = self._places.get(name)
        return kept is not None and kept.mark == mark and timedelta() <= now - kept.at < LONGEST

    def place(self, name: str, mark: str | None, now: datetime) -> KeptPlace | None:
        """What a place with this mark holds; None where that is not known."""
        kept = self._places[name] if self.knows(name, mark, now) else None
        return kept if kept is not None and self._is_whole(kept.file, kept.digest) else None

    def compared(self, now: datetime) -> Compared | None:
        """What came out of all places as they are kept; None where time alone may have changed it."""
        known = self._compared
        if known is None or (known.until is not None and now > known.until) or not self._is_whole(self._folder / _FINDINGS, self._findings):
            return None
        return known

    def keep(self, read: Sequence[Read], compared: Compared | None) -> None:
        """Keep what stood still while it was read, instead of what was kept. Nothing is said where there is no room for it: the next look
        reads again.
        """
        found, places = compared, dict[str, KeptPlace]()
        self._places, self._compared = {}, None
        try:
            durable.ensure_directory(self._folder)
            for number, each in enumerate(read):
                if each.mark is not None:
                    places[each.place.name] = self._kept(each, self._folder / f"{number}.db")
            if found is not None and len(places) == len(read):
                self._write_findings(found)
            else:
                found = None
            self._write(places, found)
        except (OSError, StorekeeperError):
            self.forget()

    def forget(self) -> None:
        """Keep nothing."""
        self._places, self._compared = {}, None
        with suppress(OSError):
            durable.remove_tree(self._folder)

    def _load(self, document: Mapping[str, Any]) -> None:
        before = Clock.from_json(document["clock"])
        if document["version"] != __version__ or document["rule"] != self._digest or not before.goes_on(self._clock):
            return
        self._clock = max(before, self._clock, key=lambda each: each.ahead)
        self._places = {name: KeptPlace.from_json(self._folder, each) for name, each in document["places"].items()}
        if document["compared"] is not None:
            self._findings = str(document["findings"])
            self._compared = Compared.from_json(self._folder, document["compared"])

    def _kept(self, each: Read, path: Path) -> KeptPlace:
        if not each.is_kept:
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            each.identities.keep(new)
            os.chmod(new, durable.PRIVATE_FILE)
            if shutil.disk_usage(self._folder).free < _ROOM * new.stat().st_size:
                raise OSError(f"{self._folder} has too little room")
            os.rename(new, path)
        return KeptPlace(path, _digest_of(path), str(each.mark), each.nameless, each.ends, each.at)

    def _write_findings(self, compared: Compared) -> None:
        path = self._folder / _FINDINGS
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        Spool(new, compared.findings())
        os.chmod(new, durable.PRIVATE_FILE)
        os.rename(new, path)
        self._findings = _digest_of(path)

    def _write(self, places: Mapping[str, KeptPlace], compared: Compared | None) -> None:
        document = {
            "version": __version__,
            "rule": self._digest,
            "clock": self._clock.to_json(),
            "places": {name: each.to_json() for name, each in places.items()},
            "compared": None if compared is None else compared.to_json(),
            "findings": self._findings,
        }
        durable.write_json(self._folder / _INDEX, document)
        self._places = dict(places)
        self._compared = None if compared is None else Compared.from_json(self._folder, compared.to_json())

    def _is_whole(self, path: Path, digest: str) -> bool:
        try:
            return _digest_of(path) == digest
        except OSError:
            return False


def forget_undeclared(state: Path, declared: Collection[str]) -> None:
    """Remove what is kept of rules that the stack does not have any more, unless another run looks. Raises OSError."""
    with suppress(FileNotFoundError), locks.hold_directory(state / _FOLDER) as is_ours:
        for path in sorted((state / _FOLDER).iterdir()) if is_ours else ():
            if path.name not in declared:
                durable.remove_tree(path)


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

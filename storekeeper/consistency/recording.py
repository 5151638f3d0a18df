"""The ids of every rule as a set holds them: written down within the hold, compared, and found again for one document.

Each place of a rule is one artefact of its store, `ids-RULE-N.jsonl`: the authority is number 0, the replicas follow in their order. Its
lines are sorted by id as bytes, one identity each, so that a document is found by bisection in a file of any size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from storekeeper.consistency.agreement import Agreement, number_or_none
from storekeeper.consistency.comparison import Comparison, Stream
from storekeeper.consistency.findings import Class, Finding
from storekeeper.consistency.places import Place, authority_of, places_of
from storekeeper.host import clock
from storekeeper.outcomes import Problem, Severity, StorekeeperError, Unknown
from storekeeper.stack.rules import Rule
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, Remarks, Sorted, key_of
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.protocol import Store
from storekeeper.stores.record import StoreRecord

_LONGEST_LINE = 1 << 20  # bytes: an id and an owner of the longest, each sign escaped
_AROUND = 2  # lines on either side of what is looked for: one that rotted is out of order with its neighbours


def declared_in(agreement: Agreement) -> Rule:
    """The rule that a set was taken under. Raises Unknown for one that this version does not know; what it found stands in `counts`."""
    try:
        return Rule.model_validate_json(json.dumps(agreement.rule))
    except ValidationError as error:
        raise Unknown("the rule that the set was taken under is none that this version knows") from error


class Recording:
    """The ids of a set in the making. `work` is an empty directory for scratch files."""

    def __init__(self, rules: Mapping[str, Rule], work: Path) -> None:
        self.problems: list[Problem] = []
        self._rules = rules
        self._work = work
        self._unread: dict[str, list[str]] = {name: [] for name in rules}
        self._ends: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in rules}

    def write(self, store: Store, hold: Any, folder: StoreFolder) -> None:
        """Write what the pinned moment of one store says, for every place that it has in a rule.

        A place that cannot be read is a warning, and its rule's agreement unknown: the data itself is in the set all the same.
        """
        for name, rule in self._rules.items():
            for number, place in enumerate(places_of(rule)):
                if place.store == store.name:
                    self._write_place(name, number, place, store, hold, folder)

    def agreements(self, folders: Mapping[str, Path]) -> dict[str, Agreement]:
        """What was written, compared. A store without a folder is unread."""
        return {name: self._agreement(name, rule, folders) for name, rule in self._rules.items()}

    def _write_place(self, name: str, number: int, place: Place, store: Store, hold: Any, folder: StoreFolder) -> None:
        """A place that fails half way leaves no file: one that the manifest does not know would fail the whole set."""
        remarks = Remarks()
        try:
            found = store.dumped_identities(hold, folder.path, place.source, remarks)
            with Sorted(found, self._work, f"{name}.{number}") as kept:
                folder.write(ids_of(name, number), map(_line, kept))
        except StorekeeperError as error:
            (folder.path / ids_of(name, number)).unlink(missing_ok=True)
            self._unread[name].append(place.name)
            said = f"{name}: the ids of {place.name} could not be recorded: {error.message}"
            self.problems.append(Problem(said, Severity.WARNING, place.store, error.next))
            return
        self._ends[name][place.name] = remarks.ends

    def _agreement(self, name: str, rule: Rule, folders: Mapping[str, Path]) -> Agreement:
        ends, said = self._ends[name], rule.model_dump(mode="json", exclude_unset=True)
        unread = [*self._unread[name], *(place.name for place in places_of(rule) if place.store not in folders)]
        if unread:
            return Agreement(said, None, None, None, tuple(unread), ends)
        counts = dict.fromkeys(map(str, Class), 0)
        comparison = Comparison(rule.states, rule.grace, clock.now())
        try:
            authority, *replicas = streams_of(name, rule, folders, ends)
            for each in comparison.findings(authority, replicas):
                counts[each.kind] += 1
        except StorekeeperError as error:
            self.problems.append(Problem(f"{name}: {error.message}", Severity.WARNING, error.store, error.next))
            return Agreement(said, None, None, None, (authority_of(rule).name,), ends)
        return Agreement(said, comparison.tally.documents, comparison.tally.in_flight, counts, (), ends)


def ids_of(rule: str, number: int) -> str:
    """The artefact that holds the ids of a rule's place."""
    return f"ids-{rule}-{number}.jsonl"


class Recorded:
    """The identities of one artefact, in order; iterated as often as one likes. Raises Unknown for a file that cannot be understood, and
    for one whose lines are not in order: it is not what was written, and what is not found in it may have been in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Identity]:
        last = b""
        try:
            for line in read_lines(self._path):
                each = _identity(line)
                last = _in_order(last, key_of(each.id))
                yield each
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def of(self, document: str, size: int) -> list[Identity]:
        """What there is of one document, found by bisection in a file of that size. Rot that lies elsewhere, and rot that leaves the
        lines in order, is for `verify` to find.
        """
        try:
            with open(self._path, "rb") as file:
                if (found := os.fstat(file.fileno()).st_size) != size:
                    raise ValueError(f"it has {found:,} bytes, and had {size:,}")
                return list(_lines_of(file, key_of(document), size))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def size_in(self, records: Mapping[str, StoreRecord]) -> int:
        """How many bytes the manifest says that it has. Raises Unknown where that does not know it."""
        store = records.get(self._path.parent.name)
        for each in store.artefacts if store is not None else ():
            if each.path == self._path.name:
                return each.size
        raise Unknown(f"{self._path.name} is not in the manifest")

    def _unreadable(self, error: Exception) -> Unknown:
        return Unknown(f"{self._path.name} cannot be read: {error}")


@dataclass(frozen=True)
class RecordedStream(Stream):
    identities: Recorded


def document_in(
    name: str, agreement: Agreement, path: Path, records: Mapping[str, StoreRecord], document: str, at: datetime
) -> tuple[Identity | None, list[Finding]]:
    """One document in the set at this path: what the authority says of it (None: nothing), and what was wrong with it at the set's
    moment `at`. `records` are those of the set's manifest.

    Raises Unknown where a place of the rule was not recorded, or cannot be read.
    """
    if agreement.unread:
        raise Unknown(f"{name}: the ids of {', '.join(agreement.unread)} were not recorded in it")
    rule = declared_in(agreement)
    streams = streams_of(name, rule, {store: path / store for store in records}, agreement.ends)
    found = [each.identities.of(document, each.identities.size_in(records)) for each in streams]
    authority, *replicas = [Stream(each.place, mine, each.ends) for each, mine in zip(streams, found, strict=True)]
    findings = list(Comparison(rule.states, rule.grace, at).findings(authority, replicas))
    return next(iter(authority.identities), None), findings


def streams_of(name: str, rule: Rule, folders: Mapping[str, Path], ends: Mapping[str, Sequence[str]]) -> list[RecordedStream]:
    """What a set holds of a rule, the authority first, for a comparison."""
    return [
        RecordedStream(place, Recorded(folders[place.store] / ids_of(name, number)), tuple(ends.get(place.name, ())))
        for number, place in enumerate(places_of(rule))
    ]


def _line(each: Identity) -> bytes:
    said: dict[str, Any] = {"id": each.id, "owner": each.owner, "state": each.state, "chunks": each.chunks}
    said["at"] = None if each.at is None else clock.rfc3339(each.at)
    return to_line({key: value for key, value in said.items() if value is not None})


def _identity(line: Mapping[str, Any]) -> Identity:
    at = line.get("at")
    return Identity(
        str(line["id"]),
        line.get("owner"),
        line.get("state"),
        None if at is None else clock.parse_rfc3339(at),
        number_or_none(line.get("chunks")),
    )


def _lines_of(file: IO[bytes], key: bytes, size: int) -> Iterator[Identity]:
    """The identities with this key in a file of sorted lines: the first line that is not before it is bisected for.

    Raises ValueError where the lines that are come past, two on both sides among them, are not in order.
    """
    low, high, below, above = 0, size, b"", None
    while low < high:
        start = _line_start(file, (low + high) // 2, low)
        file.seek(start)
        line = file.readline(_LONGEST_LINE)
        found = _in_order(below, key_of(_identity(json.loads(line)).id))
        if above is not None:
            _in_order(found, above)
        if found < key:
            low, below = start + len(line), found
        else:
            high, above = start, found
    file.seek(_lines_before(file, low, _AROUND))
    last, beyond = b"", 0
    while beyond < _AROUND and (line := file.readline(_LONGEST_LINE)):
        each = _identity(json.loads(line))
        last = _in_order(last, key_of(each.id))
        if last == key:
            yield each
        beyond += last > key


def _in_order(last: bytes, key: bytes) -> bytes:
    """The key. Raises ValueError where it should have come before the last."""
    if key < last:
        raise ValueError("its lines are not in order")
    return key


def _lines_before(file: IO[bytes], offset: int, count: int) -> int:
    """Where the line begins that stands so many lines before the one at this offset; the first where there are fewer."""
    for _ in range(count):
        offset = _line_start(file, max(0, offset - 1), 0)
    return offset


def _line_start(file: IO[bytes], offset: int, low: int) -> int:
    """Where the line begins that holds this offset; `low` is the beginning of a line before it."""
    begin = offset
    while begin > low:
        step = max(low, begin - 4096)
        file.seek(step)
        found = file.read(begin - step).rfind(b"\n")
        if found >= 0:
            return step + found + 1
        begin = step
    return low

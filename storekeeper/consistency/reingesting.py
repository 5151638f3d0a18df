"""Documents that the application takes in again: which of a plan have to be still, and what became of those that it was asked for.

All of it is merged from sorted streams and lies in scratch files, so that any number of documents takes the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storekeeper.consistency.comparison import State, words_of
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.places import authority_of
from storekeeper.consistency.plans import REINGESTED
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Identity, Remarks, Sorted, key_of
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.protocol import Store

_MOST_SKIPPED = 1000
_UNSAYABLE = ("\n", "\r", "\0")  # in an id that has a line to itself


@dataclass
class Skipped:
    """Documents of a plan that the application is not asked for, and why; at most a thousand are named."""

    named: list[dict[str, str]] = field(default_factory=list)
    left_out: int = 0

    def add(self, document: str, why: str) -> None:
        if len(self.named) < _MOST_SKIPPED:
            self.named.append({"document": document, "why": why})
        else:
            self.left_out += 1

    @property
    def count(self) -> int:
        return len(self.named) + self.left_out


@dataclass
class Became:
    """What a look afterwards says of the documents of one rule that the application was asked for; each is one of these."""

    asked: int = 0
    whole: int = 0
    in_flight: int = 0
    failed: int = 0
    gone: int = 0  # the authority does not name it any more
    missing: int = 0

    def to_json(self) -> dict[str, int]:
        return dict(vars(self))


def still_missing(planned: Iterable[Mapping[str, Any]], found: Iterable[Finding], skipped: Skipped) -> Iterator[Mapping[str, Any]]:
    """The lines of a plan, of one rule, whose documents a look finds missing or not whole now; both are in order."""
    missing = _Ahead(each.document for each in found if each.kind in REINGESTED)
    for line in planned:
        if missing.has(line["document"]):
            yield line
        else:
            skipped.add(line["document"], "it is not missing any more")


def written(path: Path, wanted: Iterable[Mapping[str, Any]], *, ids: bool, skipped: Skipped) -> tuple[Path, Path, int]:
    """Two files in a new directory, what the application reads, a line of JSON or an id each, and the ids in order; and how many."""
    told, asked, count = path / "told", path / "asked", 0
    path.mkdir()
    with open(told, "wb") as first, open(asked, "wb") as second:
        for line in wanted:
            document = line["document"]
            if ids and any(sign in document for sign in _UNSAYABLE):
                skipped.add(document, "its id has a line end or NUL in it, and the command reads an id a line: declare `input: lines`")
                continue
            first.write(key_of(document) + b"\n" if ids else to_line(line))
            second.write(to_line({"document": document}))
            count += 1
    return told, asked, count


def became(asked: Path, rule: Rule, stores: Mapping[str, Store], found: Iterable[Finding], work: Path) -> Became:
    """What became of the documents in `asked`, by a look that was made after the application had been asked. Raises as reading does."""
    words, result, authority = words_of(rule.states), Became(), authority_of(rule)
    with ExitStack() as held:
        known = held.enter_context(Sorted(stores[authority.store].identities(authority.source, Remarks()), work, "authority"))
        records = _Records(known)
        missing = _Ahead(each.document for each in found if each.kind in REINGESTED)
        for line in read_lines(asked):
            document = str(line["document"])
            mine, is_missing = records.of(document), missing.has(document)
            state = State.COMPLETE if words is None or mine is None else words.get(mine.state or "", State.IN_FLIGHT)
            result.asked += 1
            if mine is None:
                result.gone += 1
            elif state is State.IN_FLIGHT:
                result.in_flight += 1
            elif state is State.FAILED:
                result.failed += 1
            elif is_missing:
                result.missing += 1
            else:
                result.whole += 1
    return result


class _Ahead:
    """Whether a sorted stream of ids has this one; asked for ids in the same order."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = iter(documents)
        self._head = next(self._documents, None)

    def has(self, document: str) -> bool:
        key = key_of(document)
        while self._head is not None and key_of(self._head) < key:
            self._head = next(self._documents, None)
        return self._head == document


class _Records:
    """The authority's record of a document; asked for in order."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._identities = iter(identities)
        self._head = next(self._identities, None)

    def of(self, document: str) -> Identity | None:
        key = key_of(document)
        while self._head is not None and key_of(self._head.id) < key:
            self._head = next(self._identities, None)
        return self._head if self._head is not None and self._head.id == document else None

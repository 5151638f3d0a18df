"""The merge of an authority with its replicas: sorted streams of identities in, disagreements out, memory flat at any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from itertools import groupby

from storekeeper.consistency.findings import Class, Finding
from storekeeper.consistency.places import Place
from storekeeper.outcomes import Unknown
from storekeeper.stack.rules import States
from storekeeper.stores.identities import Identity, key_of, merged

_MOST_OWNERS = 3  # of one document, that are named
_MOST_WORDS = 5  # states that are declared nowhere, and are said


class State(Enum):
    COMPLETE = "complete"
    FAILED = "failed"
    IN_FLIGHT = "in_flight"


@dataclass
class Tally:
    """What a comparison came past: documents of the authority, and what each place holds."""

    documents: int = 0
    in_flight: int = 0
    held: Counter[str] = field(default_factory=Counter)  # documents by place
    chunks: Counter[str] = field(default_factory=Counter)  # by place, where it counts any
    unknown_states: set[str] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        """What was counted of other documents."""
        self.documents += other.documents
        self.in_flight += other.in_flight
        self.held += other.held
        self.chunks += other.chunks
        self.unknown_states |= other.unknown_states


@dataclass(frozen=True)
class Stream:
    """A place with what it holds, sorted, to be iterated as often as one likes; `ends` are texts that no id can hold there."""

    place: Place
    identities: Iterable[Identity]
    ends: tuple[str, ...] = ()


class Comparison:
    """One rule's comparison. A document that failed longer than `grace` before `now` should have nothing left."""

    def __init__(self, states: States | None, grace: timedelta, now: datetime) -> None:
        self.tally = Tally()
        self.until: datetime | None = None  # when time alone makes a leftover of what failed
        self._grace = grace
        self._before = now - grace
        self._words = words_of(states)

    def findings(self, authority: Stream, replicas: Sequence[Stream]) -> Iterator[Finding]:
        """Every disagreement, in the order of their keys.

        Raises Unknown where the authority names a document twice, and where an id holds what a pattern takes for its end: then nothing
        can be said of any.
        """
        for document, held in _side_by_side([authority, *replicas]):
            mine, others = held[0], held[1:]
            if not authority.place.counts:  # what it counts are its own rows, and says nothing of chunks
                mine = [each._replace(chunks=None) for each in mine]
            if len(mine) > 1:
                raise Unknown(f"{authority.place.name} names document {document[:80]!r} {len(mine)} times", store=authority.place.store)
            if mine:
                _refuse_unsayable(document, replicas)
            self._count(mine, others, replicas)
            found = self._of_document(document, mine[0] if mine else None, others, replicas)
            yield from sorted(found, key=lambda each: each.key)

    def _of_document(
        self, document: str, mine: Identity | None, held: Sequence[list[Identity]], replicas: Sequence[Stream]
    ) -> Iterator[Finding]:
        state = None if mine is None else self._state(mine)
        if state is State.IN_FLIGHT:
            self.tally.in_flight += 1
            return
        for _, group in groupby(zip(replicas, held, strict=True), key=lambda each: each[0].place.replica):
            places = list(group)
            if mine is None:
                yield from _orphans(document, places)
            elif state is State.COMPLETE:
                yield from _of_complete(document, mine, places)
            elif mine.at is None or mine.at < self._before:
                yield from _leftovers(document, mine, places)
            else:
                self.until = min(self.until or mine.at + self._grace, mine.at + self._grace)

    def _state(self, mine: Identity) -> State:
        if self._words is None:
            return State.COMPLETE
        word = mine.state or ""
        if word not in self._words and len(self.tally.unknown_states) < _MOST_WORDS:
            self.tally.unknown_states.add(word)
        return self._words.get(word, State.IN_FLIGHT)

    def _count(self, mine: list[Identity], held: Sequence[list[Identity]], replicas: Sequence[Stream]) -> None:
        tally = self.tally
        tally.documents += len(mine)
        for stream, found in zip(replicas, held, strict=True):
            name = stream.place.name
            tally.held[name] += bool(found)
            if stream.place.counts:
                tally.chunks[name] += sum(each.chunks or 0 for each in found)


def words_of(states: States | None) -> dict[str, State] | None:
    """What each declared word for a state means; None where none is declared."""
    if states is None:
        return None
    named = ((states.complete, State.COMPLETE), (states.failed, State.FAILED), (states.in_flight, State.IN_FLIGHT))
    return {word: state for words, state in named for word in words}


def _side_by_side(streams: Sequence[Stream]) -> Iterator[tuple[str, list[list[Identity]]]]:
    """Each id with what every stream holds of it; of replicas only what holds anything (a count of 0 is nothing)."""
    authority, *replicas = streams
    iterators = [iter(authority.identities), *(merged(stream.identities) for stream in replicas)]
    heads = [next(each, None) for each in iterators]
    while (document := _least(heads)) is not None:
        held: list[list[Identity]] = []
        for number, iterator in enumerate(iterators):
            found = []
            head = heads[number]
            while head is not None and head.id == document:
                if number == 0 or head.chunks is None or head.chunks > 0:
                    found.append(head)
                head = next(iterator, None)
            heads[number] = head
            held.append(found)
        if any(held):
            yield document, held


def _least(heads: Sequence[Identity | None]) -> str | None:
    """The first id of several streams; mostly it is the same of all."""
    first = heads[0]
    if first is not None and all(head is not None and head.id == first.id for head in heads):
        return first.id
    return min((head.id for head in heads if head is not None), key=key_of, default=None)


def _refuse_unsayable(document: str, replicas: Sequence[Stream]) -> None:
    for stream in replicas:
        for end in stream.ends:
            if end in document:
                raise Unknown(
                    f"document {document[:80]!r} holds {end!r}, which ends an id in {stream.place.name}: whose it is cannot be told",
                    store=stream.place.store,
                    next="declare a pattern in which something else follows {id}",
                )


def _orphans(document: str, places: list[tuple[Stream, list[Identity]]]) -> Iterator[Finding]:
    for stream, found in places:
        for each in found:
            yield _finding(document, each.owner, Class.ORPHAN, stream, _holding(each, stream))


def _leftovers(document: str, mine: Identity, places: list[tuple[Stream, list[Identity]]]) -> Iterator[Finding]:
    for stream, found in places:
        if found:
            finding = _finding(document, mine.owner, Class.LEFTOVER, stream, f"{mine.state}, {_holding(found[0], stream)}")
            yield finding if mine.at is None else finding.seen(mine.at)


def _of_complete(document: str, mine: Identity, places: list[tuple[Stream, list[Identity]]]) -> Iterator[Finding]:
    """`places` are the collections of one declaration, or one place."""
    has_any = any(found for _, found in places)
    for stream, found in places:
        own = [each for each in found if each.owner is None or mine.owner is None or each.owner == mine.owner]
        if foreign := [f"{_holding(each, stream)} under {each.owner}" for each in found if each not in own]:
            yield _finding(document, mine.owner, Class.FOREIGN, stream, ", ".join(foreign[:_MOST_OWNERS]))
        if not found and (has_any or not stream.place.optional):
            kind = Class.PARTIAL if has_any else Class.MISSING
            yield _finding(document, mine.owner, kind, stream, "nothing there" if kind is Class.MISSING else "nothing in this collection")
        elif own and stream.place.counts and mine.chunks is not None:
            count = sum(each.chunks or 0 for each in own)
            if count != mine.chunks:
                yield _finding(document, mine.owner, Class.PARTIAL, stream, f"{count:,} of {mine.chunks:,} chunks")


def _finding(document: str, owner: str | None, kind: Class, stream: Stream, detail: str) -> Finding:
    return Finding(document, owner, kind, stream.place.store, stream.place.name, detail)


def _holding(found: Identity, stream: Stream) -> str:
    if found.chunks is None:
        return "is there"
    what = "chunk" if stream.place.counts else "entry"
    many = "chunks" if stream.place.counts else "entries"
    return f"{found.chunks:,} {what if found.chunks == 1 else many}"

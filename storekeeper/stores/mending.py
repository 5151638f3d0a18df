"""What a repair asks of a store: take what a place holds of documents away, with all that putting it back needs; and have what a set
holds of a document stand in its place.

A *grip* is one step of a repair: some documents of one place, looked at in the store's own transaction where it has one. What is found
is handed out as pieces, the caller keeps them durably, and only then are they removed. A piece is a JSON-able mapping of the store's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from storekeeper.stores.lines import to_line

Piece = dict[str, Any]
VECTOR = "vector"  # of what is told of a piece: numbers that are equal when they are nearly equal
_ROUNDING = 1e-4  # relative: what a cosine index makes of a vector that it normalises and scales back


@dataclass(frozen=True)
class Wanted:
    """A document of a place; with an owner, only what is there under that owner, or under none."""

    document: str
    owner: str | None = None


class Grip(Protocol):
    """The documents of one step, as they are now."""

    def pieces(self, document: str) -> Sequence[Piece]:
        """All that the place holds of it, in the order in which it is put back. Empty where there is nothing any more."""

    def remove(self, documents: Collection[str]) -> None:
        """Remove the pieces of these documents, exactly those, when the block of the grip ends without an error.

        Raises Refused where something undeclared refers to them: then nothing is removed.
        """

    def exchange(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        """Have `here` stand where `away` stands, and read the place again for `pieces`. What has gone or come already is passed over, so
        that it is safe to repeat.

        Raises Refused where another thing is in the way, where something undeclared refers to what goes, and where what comes refers to
        what is not there. A store with transactions is unchanged then, and whenever the block ends with an error.
        """

    def rehearse(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:
        """Raises Refused where `exchange` would, as far as that can be told, and changes nothing."""


class Mender(Protocol):
    """One place, opened for a run. `at_once` is how many documents a grip of it is made for."""

    at_once: int

    def grip(self, wanted: Sequence[Wanted]) -> AbstractContextManager[Grip]:
        """Look at these documents. What is removed in the block is durable when it ends."""

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        """Put pieces back where they are not there already: safe to repeat. Yields a sentence for each that cannot be, because something
        else is in its place by now; that is left as it is. What is put back is durable at the end.
        """

    def told(self, piece: Piece) -> Piece:
        """A piece as it is compared with others, wherever they stand: `name` says what it is called in the place."""

    def brought(self, pieces: Sequence[Piece], origin: Mender) -> list[Piece]:
        """What a mender of a copy of this store found, as pieces of this place. Only looks. Raises Refused for what cannot be made here."""

    def receive(self, pieces: Sequence[Piece], origin: Mender) -> None:
        """Lay beside the place what such pieces need for `exchange`, durable. Safe to repeat, until the first of them is in its place."""

    def drop(self) -> None:
        """Remove what `receive` laid, but for what is in its place. Safe to repeat."""


class Carried:
    """For menders whose pieces hold all that they stand for."""

    def brought(self, pieces: Sequence[Piece], origin: Mender) -> list[Piece]:  # noqa: ARG002 - the protocol's
        return list(pieces)

    def receive(self, pieces: Sequence[Piece], origin: Mender) -> None:
        """Nothing: it is in them."""

    def drop(self) -> None:
        """Nothing was laid."""


class Matched(NamedTuple):
    """What was found and is wanted, what was found beside it, and what was not found; the first two as they were found."""

    both: list[Piece]
    rest: list[Piece]
    beyond: list[Piece]


def matched(found: Sequence[Piece], wanted: Sequence[Piece], told: Callable[[Piece], Piece]) -> Matched:
    """Compare pieces by what is told of them, each with one other."""
    left: dict[bytes, list[tuple[Piece, Any]]] = {}
    for piece in found:
        mark, vector = _mark(told(piece))
        left.setdefault(mark, []).append((piece, vector))
    both, beyond = [], []
    for piece in wanted:
        mark, vector = _mark(told(piece))
        some = left.get(mark, [])
        same = next((number for number, (_, each) in enumerate(some) if _nearly(each, vector)), None)
        if same is None:
            beyond.append(piece)
        else:
            both.append(some.pop(same)[0])
    gone = set(map(id, both))
    return Matched(both, [piece for piece in found if id(piece) not in gone], beyond)


def _mark(told: Piece) -> tuple[bytes, Any]:
    return to_line({key: value for key, value in told.items() if key != VECTOR}), told.get(VECTOR)


def _nearly(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two vectors are equal but for rounding; one that was not looked at is equal to any."""
    if one is None or other is None:
        return True
    allowed = _ROUNDING * max(map(abs, one), default=0.0)
    return len(one) == len(other) and all(abs(mine - its) <= allowed for mine, its in zip(one, other, strict=True))

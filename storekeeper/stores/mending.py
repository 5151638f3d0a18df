"""What a repair asks of a store: take what a place holds of documents away, with all that putting it back needs.

A *grip* is one step of a repair: some documents of one place, looked at in the store's own transaction where it has one. What is found
is handed out as pieces, the caller keeps them durably, and only then are they removed. A piece is a JSON-able mapping of the store's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Piece = dict[str, Any]


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


class Mender(Protocol):
    """One place, opened for a run. `at_once` is how many documents a grip of it is made for."""

    at_once: int

    def grip(self, wanted: Sequence[Wanted]) -> AbstractContextManager[Grip]:
        """Look at these documents. What is removed in the block is durable when it ends."""

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        """Put pieces back where they are not there already: safe to repeat. Yields a sentence for each that cannot be, because something
        else is in its place by now; that is left as it is. What is put back is durable at the end.
        """

"""What was found of a document in a place, in the words of docs/consistency.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from storekeeper.host import clock
from storekeeper.stores.identities import key_of


class Class(StrEnum):
    """How a place can disagree with the authority. In flight is none of them: it is counted, and never wrong."""

    ORPHAN = "orphan"  # the authority has no such document
    MISSING = "missing"  # a complete document of which the replica has nothing
    PARTIAL = "partial"  # a complete document of which the replica has less, or more, than all
    LEFTOVER = "leftover"  # a document that failed longer than the grace ago, of which something is still there
    FOREIGN = "foreign"  # what is there stands under another owner


class Key(NamedTuple):
    """What makes two findings of two looks the same one. Findings are sorted by it."""

    document: bytes
    place: str
    kind: str
    owner: str


@dataclass(frozen=True)
class Finding:
    """`since` is when it was first seen, without a look between that did not see it; of a leftover, when the document failed."""

    document: str
    owner: str | None
    kind: Class
    store: str
    place: str
    detail: str
    since: datetime | None = None

    @property
    def key(self) -> Key:
        return Key(key_of(self.document), self.place, str(self.kind), self.owner or "")

    def seen(self, since: datetime) -> Finding:
        return replace(self, since=since)

    def to_json(self) -> dict[str, Any]:
        """As documents, plans and looks have it. An id that is no UTF-8 stands with PEP 383 escapes, which JSON keeps."""
        return {
            "document": self.document,
            "owner": self.owner,
            "class": str(self.kind),
            "store": self.store,
            "place": self.place,
            "detail": self.detail,
            "since": None if self.since is None else clock.rfc3339(self.since),
        }

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Finding:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""
        since = line["since"]
        return cls(
            str(line["document"]),
            None if line["owner"] is None else str(line["owner"]),
            Class(line["class"]),
            str(line["store"]),
            str(line["place"]),
            str(line["detail"]),
            None if since is None else clock.parse_rfc3339(since),
        )

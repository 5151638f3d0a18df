"""What a manifest says about one store of a set: frozen, and read back strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from storekeeper.host.clock import parse_rfc3339, rfc3339

RAW_COPY = "raw-copy"  # the class of a store that could not be read: its files as they were, without counts and digests
RESCUED = "rescued"  # the class of what a recovery switches to, which is in no set
EMPTIED = "emptied"  # the class of what a reset switches to, which is in no set


@dataclass(frozen=True)
class Artefact:
    """A file of a set, named relative to its store's folder.

    `lists` names the folder whose files this artefact lists, one JSON object a line with `path`, `size` and `sha256`.
    """

    path: str
    size: int
    sha256: str
    lists: str | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"path": self.path, "size": self.size, "sha256": self.sha256}
        return document if self.lists is None else {**document, "lists": self.lists}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Artefact:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` did not write."""
        lists = document.get("lists")
        return cls(str(document["path"]), _number(document["size"]), _digest(document["sha256"]), None if lists is None else str(lists))


@dataclass(frozen=True)
class StoreRecord:
    """One store at its pinned moment. `bytes` is what its files hold in the set; `details` is the kind's own."""

    kind: str
    klass: str
    version: str
    pinned: datetime
    pause_ms: float
    downtime_s: float
    seconds: float
    bytes: int
    counts: Mapping[str, int]
    digests: Mapping[str, str]
    artefacts: tuple[Artefact, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_raw(self) -> bool:
        """Whether nothing is known of it but its bytes: it was never decoded, and cannot be."""
        return self.klass == RAW_COPY

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "class": self.klass,
            "version": self.version,
            "pinned": rfc3339(self.pinned),
            "pause_ms": self.pause_ms,
            "downtime_s": self.downtime_s,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "counts": dict(self.counts),
            "digests": dict(self.digests),
            "artefacts": [artefact.to_json() for artefact in self.artefacts],
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> StoreRecord:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` did not write."""
        return cls(
            kind=str(document["kind"]),
            klass=str(document["class"]),
            version=str(document["version"]),
            pinned=parse_rfc3339(document["pinned"]),
            pause_ms=float(document["pause_ms"]),
            downtime_s=float(document["downtime_s"]),
            seconds=float(document["seconds"]),
            bytes=_number(document["bytes"]),
            counts={str(name): _number(count) for name, count in document["counts"].items()},
            digests={str(name): str(digest) for name, digest in document["digests"].items()},
            artefacts=tuple(Artefact.from_json(each) for each in document["artefacts"]),
            details=dict(document["details"]),
        )


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a number, found {value!r}")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError(f"expected a sha256 in hexadecimal, found {value!r}")
    return value

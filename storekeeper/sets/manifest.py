"""The manifest of a set: what it holds, sealed with a sha256 over itself so that an edit is found.

One JSON object in `manifest.json`. `seal` is the sha256 of the canonical form (sorted keys, no spaces, ASCII) of everything
else in it. It finds rot and edits; it is no signature, since who can write it can also seal it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from storekeeper.consistency.agreement import Agreement
from storekeeper.host import formats
from storekeeper.host.clock import parse_rfc3339, rfc3339
from storekeeper.outcomes import Failed, Problem, Refused, Severity
from storekeeper.sets.names import parse_id, shown
from storekeeper.sets.smallfiles import read_small
from storekeeper.stores.record import StoreRecord

MANIFEST = "manifest.json"
SCHEMA = 1
STEPS: Mapping[int, formats.Step] = {}  # from each older schema to the next
LARGEST = 4 << 20  # bytes; a usual one has a few thousand

State = Literal["verified", "incomplete"]


class BadManifest(Refused):
    """The manifest is missing, altered, or another set's: the set cannot be used."""


@dataclass(frozen=True)
class Manifest:
    """What a set holds. `stack`, `id` and `sequence` are also in its place in the repository, and must be equal there."""

    stack: str
    id: str
    sequence: int
    created: datetime
    host: str
    version: str
    skew_ms: float
    pause_ms: float
    stores: Mapping[str, StoreRecord]
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    previous: str | None = None
    state: State = "verified"
    problems: Sequence[Problem] = ()
    schema: int = SCHEMA

    @property
    def size(self) -> int:
        """What the files of all its stores hold, in bytes."""
        return sum(record.bytes for record in self.stores.values())

    def to_bytes(self) -> bytes:
        """The sealed document. Raises Failed when it would be larger than what is read back."""
        document = {
            "schema": self.schema,
            "stack": self.stack,
            "id": self.id,
            "sequence": self.sequence,
            "created": rfc3339(self.created),
            "host": self.host,
            "version": self.version,
            "skew_ms": self.skew_ms,
            "pause_ms": self.pause_ms,
            "stores": {name: record.to_json() for name, record in self.stores.items()},
            "agreements": {name: agreement.to_json() for name, agreement in self.agreements.items()},
            "previous": self.previous,
            "state": self.state,
            "problems": [asdict(problem) for problem in self.problems],
        }
        sealed = {**document, "seal": _seal(document)}
        data = (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode("ascii")
        if len(data) > LARGEST:
            raise Failed(f"the manifest would have {len(data)} bytes, more than the {LARGEST} that are read back")
        return data


def read_manifest(path: Path, *, expect_id: str | None = None, expect_stack: str | None = None) -> Manifest:
    """Read a manifest and believe it only if it is whole, sealed, and of this set.

    Raises BadManifest, or NewerFormat with both schema numbers.
    """
    return checked(_read(path), expect_id=expect_id, expect_stack=expect_stack)


def checked(data: bytes, *, expect_id: str | None = None, expect_stack: str | None = None) -> Manifest:
    """As `read_manifest`, of a manifest that came some other way."""
    document = _parse(data)
    schema = _schema(document)
    formats.refuse_newer(schema, SCHEMA, what=MANIFEST)  # before the seal, which a newer one may compute in another way
    if document.get("seal") != _seal({key: value for key, value in document.items() if key != "seal"}):
        raise BadManifest("manifest.json was altered after it was sealed")
    manifest = _from_json(document, schema)
    for what, found, expected in (("id", manifest.id, expect_id), ("stack", manifest.stack, expect_stack)):
        if expected is not None and found != expected:
            raise BadManifest(f"manifest.json is another set's: its {what} is {shown(found)}, not {expected}")
    return manifest


def _seal(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return read_small(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise BadManifest("manifest.json is missing") from None
    except OSError as error:
        raise BadManifest(f"manifest.json cannot be read: {error.strerror}") from error


def _parse(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("ascii"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"manifest.json cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BadManifest("manifest.json holds no object")
    return document


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _schema(document: Mapping[str, Any]) -> int:
    try:
        return formats.number_of(document)
    except ValueError:
        raise BadManifest("manifest.json says no schema") from None


def _from_json(sealed: dict[str, Any], schema: int) -> Manifest:
    try:
        document = formats.upgraded(sealed, schema, SCHEMA, STEPS, what=MANIFEST)
        manifest = Manifest(
            schema=schema,
            stack=str(document["stack"]),
            id=str(document["id"]),
            sequence=int(document["sequence"]),
            created=parse_rfc3339(document["created"]),
            host=str(document["host"]),
            version=str(document["version"]),
            skew_ms=float(document["skew_ms"]),
            pause_ms=float(document["pause_ms"]),
            stores={str(name): StoreRecord.from_json(record) for name, record in document["stores"].items()},
            agreements={str(name): Agreement.from_json(each) for name, each in document.get("agreements", {}).items()},
            previous=None if document["previous"] is None else str(document["previous"]),
            state=_state(document["state"]),
            problems=tuple(_problem(each) for each in document["problems"]),
        )
        if parse_id(manifest.id).sequence != manifest.sequence:
            raise ValueError(f"sequence {manifest.sequence} is not the one in {manifest.id}")
        _check_names(manifest.stores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadManifest(f"manifest.json cannot be understood: {type(error).__name__} {error}") from error
    return manifest


def _check_names(stores: Mapping[str, StoreRecord]) -> None:
    """Every name that becomes part of a path is one plain word."""
    for store, record in stores.items():
        for name in (store, *(word for each in record.artefacts for word in (each.path, each.lists) if word is not None)):
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                raise ValueError(f"{shown(name)} is no name of a file in a set")


def _state(text: str) -> State:
    if text == "verified":
        return "verified"
    if text == "incomplete":
        return "incomplete"
    raise ValueError(f"unknown state {shown(str(text))}")


def _problem(document: Mapping[str, Any]) -> Problem:
    return Problem(str(document["message"]), Severity(document["severity"]), document["store"], document["next"])

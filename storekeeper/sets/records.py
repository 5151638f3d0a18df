"""What became known of a set after it was published: each verify and each proof is a new file beside the set, never in it.

`.records/<set>/verify-TIME-n.json`, `prove-TIME-n.json` and `pin.json`. The number n counts the records of one set: their
order is n, not the clock. A set's state follows from its manifest and these.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from storekeeper.host import durable, formats
from storekeeper.host.clock import SET_STAMP, parse_rfc3339, rfc3339
from storekeeper.sets.smallfiles import read_small

RECORDS = ".records"
PIN = "pin.json"
SCHEMA = 1  # of records and pins
STEPS: Mapping[int, formats.Step] = {}  # from each older schema to the next
_LARGEST = 4 << 20
_NAME = re.compile(r"(verify|prove)-([0-9]{8}T[0-9]{6}Z)-([0-9]{6,12})\.json", re.ASCII)

Kind = Literal["verify", "prove"]
Verdict = Literal["ok", "failed", "unknown"]
_VERDICTS: dict[Any, Verdict] = {"ok": "ok", "failed": "failed", "unknown": "unknown"}
SetState = Literal["verified", "proven", "damaged", "unprovable", "incomplete"]


@dataclass(frozen=True)
class Pin:
    """A set that no rule may remove, for ever or until a moment."""

    reason: str
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True)
class Record:
    """One later look at a set. A part is one of a subset's files: it can find damage, and vouches for nothing."""

    time: datetime
    outcome: Verdict
    reason: str | None
    part: bool


@dataclass(frozen=True)
class Known:
    """What the records of a set say together."""

    damaged: bool = False
    proof: Literal["ok", "failed"] | None = None
    verified_at: datetime | None = None
    proven_at: datetime | None = None
    reason: str | None = None


class Records:
    """The records of one stack's sets, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        set_id: str,
        kind: Kind,
        outcome: Verdict,
        now: datetime,
        *,
        reason: str | None = None,
        part: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a new record of a set; durable when this returns.

        `reason` is the sentence of a failure, `facts` are the caller's own, such as what each store said.
        """
        number = 1 + max((number for number, _ in self._numbered(set_id)), default=0)
        path = self.folder / set_id / f"{kind}-{now.strftime(SET_STAMP)}-{number:06d}.json"
        document = {"schema": SCHEMA, "set": set_id, "kind": kind, "time": rfc3339(now), "outcome": outcome, "reason": reason, "part": part}
        durable.ensure_directory(path.parent)
        durable.write_json(path, {**document, "facts": dict(facts or {})}, durable.SEALED_FILE)
        return path

    def known(self, set_id: str) -> Known:
        """What holds of a set now: the newest look that could tell decides, one that could not be tried changes nothing.

        Raises NewerFormat where a newer version of the program has looked: it may have found anything.
        """
        looks = sorted(self._numbered(set_id), reverse=True)
        verify, verified_at = _newest(self._read_each(set_id, looks, "verify"))
        proof, proven_at = _newest(self._read_each(set_id, looks, "prove"))
        damaged = verify is not None and verify.outcome == "failed"
        reasons = [each.reason for each in (verify, proof) if each is not None and each.outcome == "failed"]
        return Known(
            damaged=damaged,
            proof=None if proof is None else "ok" if proof.outcome == "ok" else "failed",
            verified_at=verified_at,
            proven_at=proven_at,
            reason=reasons[0] if reasons else None,
        )

    def pin(self, set_id: str, reason: str, until: datetime | None = None) -> Pin:
        """Pin a set. A pin is never shortened by another: the one that lasts longer stays."""
        before = self.pinned(set_id)
        if before is not None and _outlasts(before, until):
            return before
        durable.ensure_directory(self.folder / set_id)
        document = {"schema": SCHEMA, "set": set_id, "reason": reason, "until": None if until is None else rfc3339(until)}
        durable.write_json(self.folder / set_id / PIN, document)
        return Pin(reason, until)

    def unpin(self, set_id: str) -> bool:
        """Take a set's pin away; False when it had none. Raises NewerFormat for a pin of a newer version."""
        path = self.folder / set_id / PIN
        if not os.path.lexists(path):
            return False
        with contextlib.suppress(OSError, ValueError, TypeError):  # what cannot be read can be taken away
            _read(path)
        path.unlink()
        durable.sync_directory(path.parent)
        return True

    def pinned(self, set_id: str) -> Pin | None:
        """A set's pin. One that cannot be read holds for ever: it was put there to keep the set."""
        path = self.folder / set_id / PIN
        if not os.path.lexists(path):
            return None
        try:
            document = _read(path)
            until = document["until"]
            return Pin(str(document["reason"]), None if until is None else parse_rfc3339(until))
        except formats.NewerFormat as error:
            return Pin(error.message)
        except (OSError, ValueError, KeyError, TypeError):
            return Pin("its pin cannot be read")

    def remove(self, set_id: str) -> None:
        """Remove all that is recorded of a set that is gone."""
        durable.remove_tree(self.folder / set_id)

    def sets(self) -> Iterator[str]:
        """The names in the folder, for the removal of what belongs to no set any more."""
        if self.folder.is_dir():
            with os.scandir(self.folder) as found:
                yield from (entry.name for entry in found if entry.is_dir(follow_symlinks=False))

    def _read_each(self, set_id: str, looks: Sequence[tuple[int, str]], kind: Kind) -> Iterator[Record]:
        return (_record(self.folder / set_id / name) for _, name in looks if name.startswith(kind))

    def _numbered(self, set_id: str) -> list[tuple[int, str]]:
        try:
            names = os.listdir(self.folder / set_id)
        except FileNotFoundError:
            return []
        return [(int(found[3]), name) for name in names if (found := _NAME.fullmatch(name))]


def state_of(published_as: Literal["verified", "incomplete"], known: Known) -> SetState:
    """Damage before everything; a set without all its stores stays incomplete; then the newest proof."""
    if known.damaged:
        return "damaged"
    if published_as == "incomplete":
        return "incomplete"
    if known.proof is None:
        return "verified"
    return "proven" if known.proof == "ok" else "unprovable"


def _newest(records: Iterator[Record]) -> tuple[Record | None, datetime | None]:
    """The newest record of one kind that could tell, and when the newest good one was made. Reads no further than it must."""
    newest = None
    for record in records:
        tells = record.outcome == "failed" or (record.outcome == "ok" and not record.part)
        if newest is None and tells:
            newest = record
        if tells and record.outcome == "ok":
            return newest, record.time
    return newest, None


def _record(path: Path) -> Record:
    """A record that cannot be read counts as one that found the set bad: it may have said so. Raises NewerFormat."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path.name} is no record's name")
    try:
        document = _read(path)
        reason = None if document["reason"] is None else str(document["reason"])
        return Record(parse_rfc3339(document["time"]), _VERDICTS[document["outcome"]], reason, bool(document["part"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        time = datetime.strptime(found[2], SET_STAMP).replace(tzinfo=UTC)
        return Record(time, "failed", f"its record {path.name} cannot be read ({type(error).__name__})", part=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_small(path, _LARGEST))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(document, dict):
        raise TypeError(f"{path.name} holds no object")
    return formats.upgraded(document, formats.number_of(document), SCHEMA, STEPS, what=f"its record {path.name}")


def _outlasts(pin: Pin, until: datetime | None) -> bool:
    return pin.until is None or (until is not None and pin.until >= until)

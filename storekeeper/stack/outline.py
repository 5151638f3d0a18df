"""What the frequent verbs need of a stack file, from a checked copy: reading and checking the file itself takes far longer.

The copy is made from the checked stack file and used only while the file's sha256 and the program's version are those it
was made from. This module must stay free of the libraries that it saves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from storekeeper import __version__
from storekeeper.host import durable
from storekeeper.stack.config import Places
from storekeeper.stack.cron import CronTime
from storekeeper.stack.source import read_source

_COPY = "declared.json"


@dataclass(frozen=True)
class OutlineEntry:
    """One line of the schedule."""

    verb: str
    arguments: tuple[str, ...]
    at: CronTime


@dataclass(frozen=True)
class OutlineRule:
    """One rule of what the stores must agree on: the stores that must follow, and the digest of all that it says."""

    name: str
    stores: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Outline:
    """A stack's name, its stores with their kinds in the order declared, its services, its schedule and what starts it."""

    name: str
    stores: Mapping[str, str]
    services: tuple[str, ...]
    schedule: tuple[OutlineEntry, ...]
    zone: tzinfo | None  # in which its times are meant; the host's own where it is None
    spread: timedelta
    rules: tuple[OutlineRule, ...] = ()


def outline(places: Places, name: str) -> Outline:
    """What the stack file declares. Raises StackFileErrors or Refused as `load_stack` does, never anything for a bad copy."""
    file = places.stack_file(name)
    data = read_source(file)
    digest = hashlib.sha256(data).hexdigest()
    copy = places.state_of(name) / _COPY
    known = _read(copy, digest)
    if known is not None:
        return known
    made = _check(data, file)
    # Somebody who may only look writes no copy: it saves time, and nothing rests on it.
    with contextlib.suppress(OSError):
        durable.write_json(copy, {"version": __version__, "sha256": digest, **_to_json(made)})
    return made


def _read(copy: Path, digest: str) -> Outline | None:
    """None when there is no copy of exactly this file by exactly this program."""
    try:
        document = json.loads(copy.read_bytes())
        if document["sha256"] != digest or document["version"] != __version__:
            return None
        return _from_json(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the stack file itself is read instead


def _check(data: bytes, file: Path) -> Outline:
    from storekeeper.stack.loader import check_bytes  # noqa: PLC0415 the libraries that the copy saves

    stack = check_bytes(data, str(file), file.stem)
    return Outline(
        name=stack.stack,
        stores={name: store.kind for name, store in stack.stores.items()},
        services=tuple(service.systemd for service in stack.services),
        schedule=tuple(OutlineEntry(entry.verb, entry.arguments, entry.at) for entry in stack.schedule),
        zone=ZoneInfo(stack.scheduler.zone) if stack.scheduler.zone else None,
        spread=stack.scheduler.spread or timedelta(),
        rules=tuple(OutlineRule(name, rule.stores, rule.digest) for name, rule in stack.consistency.items()),
    )


def _to_json(made: Outline) -> dict[str, Any]:
    return {
        "stack": made.name,
        "stores": [[name, kind] for name, kind in made.stores.items()],
        "services": list(made.services),
        "schedule": [{"verb": entry.verb, "arguments": list(entry.arguments), "at": entry.at.text} for entry in made.schedule],
        "zone": str(made.zone) if made.zone else None,
        "spread_s": int(made.spread.total_seconds()),
        "rules": [{"name": rule.name, "stores": list(rule.stores), "digest": rule.digest} for rule in made.rules],
    }


def _from_json(document: Mapping[str, Any]) -> Outline:
    return Outline(
        name=str(document["stack"]),
        stores={str(name): str(kind) for name, kind in document["stores"]},
        services=tuple(str(unit) for unit in document["services"]),
        schedule=tuple(
            OutlineEntry(str(entry["verb"]), tuple(str(word) for word in entry["arguments"]), CronTime.parse(entry["at"]))
            for entry in document["schedule"]
        ),
        zone=ZoneInfo(document["zone"]) if document["zone"] else None,
        spread=timedelta(seconds=int(document["spread_s"])),
        rules=tuple(
            OutlineRule(str(rule["name"]), tuple(str(store) for store in rule["stores"]), str(rule["digest"])) for rule in document["rules"]
        ),
    )

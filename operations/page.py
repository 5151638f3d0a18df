"""What the report shows of each host and stack, worked out from what the hosts answered. Knows no pyinfra and no HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

WIDTH = 640  # of a chart, in its own units
_ROWS = 160  # sets shown of a host, shared by its stacks; the report stays small however many there are
_MOST = 30
_LEAST = 7
_PROBLEMS = 12  # shown of a stack: the host itself has the rest
CLASSES = ("orphan", "missing", "partial", "leftover", "foreign")  # the rows of a heat table, in this order
_MOST_HEAT = 4  # the shade of a cell: one for each digit of its count
_UNITS = {"chroma": "vectors", "files": "files"}  # what a store of a kind holds; the others hold rows

Json = Mapping[str, Any]


def fleet(
    overviews: Mapping[str, Json | None],
    wanted: Mapping[str, Sequence[str]],
    made: datetime,
    heard: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """The whole report: hosts that need somebody first. `wanted` is what the inventory declares for each host, `heard` when each
    answered last, as far as earlier reports know.
    """
    hosts = [_host(name, overview, wanted.get(name, ()), made, (heard or {}).get(name)) for name, overview in overviews.items()]
    hosts.sort(key=lambda host: (-_gravity(host["verdict"]), host["name"]))
    stacks = [stack for host in hosts for stack in host["stacks"]]
    return {
        "made": spoken_moment(made),
        "verdict": max((host["verdict"] for host in hosts), key=_gravity, default="unknown"),
        "hosts": hosts,
        "dead": [host["name"] for host in hosts if not host["is_read"]],
        "stacks": len(stacks),
        "well": sum(stack["verdict"] == "ok" for stack in stacks),
    }


def _gravity(verdict: str) -> int:
    return ("ok", "attention", "unknown").index(verdict)


def _host(name: str, overview: Json | None, wanted: Sequence[str], made: datetime, heard: str | None) -> dict[str, Any]:
    if overview is None:
        silent = f"it last answered {ago(heard, made)}" if heard is not None else "no earlier report has heard of it"
        return {"name": name, "is_read": False, "verdict": "unknown", "stacks": [], "at": None, "uname": None, "silent": silent}
    status = overview["status"]
    found = status["result"]["stacks"]
    names = sorted({*found, *wanted})
    rows = max(_LEAST, min(_MOST, _ROWS // max(1, len(names))))
    stacks = [_stack(each, status, overview["sets"].get(each), made, rows) for each in names]
    verdict = max((stack["verdict"] for stack in stacks), key=_gravity, default="attention")
    asked = datetime.fromisoformat(status["started"])
    return {"name": name, "is_read": True, "verdict": verdict, "stacks": stacks, "at": spoken_moment(asked), "uname": status["host"]}


def _stack(name: str, status: Json, listed: Json | None, made: datetime, rows: int) -> dict[str, Any]:
    """One stack. Sets that could not be listed are None, which is not the same as there being none."""
    found = status["result"]["stacks"].get(name)
    problems = [each for each in status["problems"] if each["stack"] == name]
    sets = listed["result"]["sets"] if listed is not None and listed["result"] is not None else None
    if found is None:
        problems = [*problems, _noted("declared in the inventory, not on this host", "pyinfra INVENTORY deploys/site.py")]
    elif listed is None:
        problems = [*problems, _noted("kept on this host, not declared in the inventory: its sets were not asked for", None)]
    elif sets is None:
        problems += [each for each in listed["problems"] if each not in problems]
    is_unknown = any(each["severity"] == "error" for each in problems) or (listed is not None and found is not None and sets is None)
    shown = (sets or [])[-rows:]
    return {
        "name": name,
        "verdict": "unknown" if is_unknown else "attention" if problems else "ok",
        "problems": problems[:_PROBLEMS],
        "more_problems": max(0, len(problems) - _PROBLEMS),
        "proof": _aged((found or {}).get("last_proof")),
        "backup": _aged((found or {}).get("last_backup")),
        "next_run": _until((found or {}).get("next_run"), made),
        "numbers": (found or {}).get("backups"),
        "stores": [_store(each, store) for each, store in sorted(((found or {}).get("stores") or {}).items())],
        "rules": [_rule(each, look, made) for each, look in sorted(((found or {}).get("agreement") or {}).items())],
        "is_listed": sets is not None,
        "sets": [_set(each, made) for each in reversed(shown)],
        "older": len(sets or ()) - len(shown),
        "chart": chart(shown),
    }


def _noted(message: str, next: str | None) -> dict[str, Any]:
    return {"severity": "warning", "store": None, "message": message, "next": next}


def _aged(recorded: Json | None) -> dict[str, Any] | None:
    """An age against its limit; `share` is how much of the limit is used up, in percent, None without a limit."""
    if recorded is None:
        return None
    age, limit = recorded["age_s"], recorded["limit_s"]
    return {
        "set": recorded["set"],
        "age": spoken_seconds(age),
        "limit": spoken_seconds(limit) if limit else None,
        "share": min(100, round(100 * age / limit)) if limit else None,
        "is_late": bool(limit and age > limit),
    }


def _store(name: str, store: Json) -> dict[str, Any]:
    counts = store["counts"]
    proof = _aged(store["last_proof"])
    size = None if store["bytes"] is None else spoken_size(store["bytes"])
    return {"name": name, "kind": store["kind"], "size": size, "holds": _holds(store["kind"], counts), "proof": proof}


def _holds(kind: str, counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "not known"
    objects = {name: count for name, count in counts.items() if name != "bytes" or kind != "files"}
    count, unit = sum(objects.values()), _UNITS.get(kind, "rows")
    total = f"{count:,} {unit if count != 1 else unit.removesuffix('s')}"
    return total if kind == "files" or len(objects) == 1 else f"{total} in {len(objects)}"


def _rule(name: str, look: Json | None, made: datetime) -> dict[str, Any]:
    """What the last look at a rule found, class by store. Of a rule that was never looked at nothing is known: it has no table."""
    if look is None:
        return {"name": name, "is_looked_at": False}
    counts = look["counts"]
    counted = {store for stores in counts.values() for store in stores}
    stores = list(dict.fromkeys([*look["stores"], *sorted(counted)]))
    is_blind = look["documents"] is None  # without the authority nothing is known of any
    unread = set(stores) if is_blind else {place.partition("/")[0] for place in look["unread"]}
    kinds = [*CLASSES, *sorted(set(counts) - set(CLASSES))]
    total = sum(sum(found.values()) for found in counts.values())
    return {
        "name": name,
        "is_looked_at": True,
        "at": spoken_moment(datetime.fromisoformat(look["at"])),
        "ago": ago(look["at"], made),
        "documents": look["documents"],
        "found": total,
        "unread": look["unread"],
        "stores": stores,
        "rows": [{"kind": kind, "cells": [_cell(store, counts.get(kind, {}), unread) for store in stores]} for kind in kinds],
    }


def _cell(store: str, found: Mapping[str, int], unread: Collection[str]) -> dict[str, Any]:
    """A count, or UNKNOWN where the store, or one of its places, could not be read: then what was found is not all that there is."""
    count = found.get(store, 0)
    if store in unread:
        return {"store": store, "said": f"UNKNOWN, at least {count:,}" if count else "UNKNOWN", "heat": "unknown"}
    return {"store": store, "said": f"{count:,}", "heat": f"heat-{min(_MOST_HEAT, len(str(count)))}" if count else ""}


def _set(each: Json, made: datetime) -> dict[str, Any]:
    return {
        "id": each["id"],
        "state": each["state"],
        "size": spoken_size(each["bytes"]),
        "stores": ", ".join(sorted(each["stores"])) or "not known",
        "pinned": each["pinned"],
        "verified": ago(each["verified_at"], made),
        "proven": ago(each["proven_at"], made),
    }


def chart(sets: Sequence[Json]) -> dict[str, Any] | None:
    """One bar a set, oldest first: its place, height (0 to 100) and what its title says. None where there is nothing to draw."""
    if not sets:
        return None
    largest = max(each["bytes"] for each in sets) or 1
    step = WIDTH / max(len(sets), 8)
    bars = [
        {
            "x": round(index * step + step * 0.1, 1),
            "width": round(step * 0.8, 1),
            "height": max(2, round(100 * each["bytes"] / largest)),
            "state": each["state"],
            "title": f"{each['id']}: {spoken_size(each['bytes'])}, {each['state']}",
        }
        for index, each in enumerate(sets)
    ]
    return {
        "bars": bars,
        "largest": spoken_size(largest),
        "states": [state for state in _STATES if state in {bar["state"] for bar in bars}],
    }


_STATES = ("proven", "verified", "incomplete", "unprovable", "damaged")


def spoken_size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def ago(moment: str | None, now: datetime) -> str:
    return "never" if moment is None else f"{spoken_seconds((now - datetime.fromisoformat(moment)).total_seconds())} ago"


def spoken_seconds(seconds: float) -> str:
    minutes = max(0, int(seconds)) // 60
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days"


def spoken_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _until(moment: str | None, now: datetime) -> str | None:
    if moment is None:
        return None
    at = datetime.fromisoformat(moment)
    return f"in {spoken_seconds((at - now).total_seconds())}" if at > now else f"due since {spoken_moment(at)}"

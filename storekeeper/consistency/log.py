"""The log of looks, for people: a line for each finding that is new or gone, and a line for each look. `state/STACK/findings.log`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from storekeeper.consistency.checking import Look
from storekeeper.consistency.findings import Finding
from storekeeper.host import clock, durable

NAME = "findings.log"
_LARGEST = 8 << 20  # bytes; one older file is kept beside it


def tell(state: Path, rule: str, look: Look) -> None:
    """Append what a look found to the log. Raises OSError where it cannot be written."""
    _append(state, (f"{clock.rfc3339(look.at)} {rule} {line}\n" for line in _lines(look)))


def say(state: Path, line: str) -> None:
    """Append a line of its own. Raises OSError where it cannot be written."""
    _append(state, [f"{clock.rfc3339(clock.now())} {line}\n"])


def _append(state: Path, lines: Iterable[str]) -> None:
    path = state / NAME
    _turn_over(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, durable.PRIVATE_FILE), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(lines)


def _lines(look: Look) -> Iterator[str]:
    for word, found in (("new", look.changes.new), ("gone", look.changes.gone)):
        yield from (f"{word} {_spoken(each)}" for each in found)
        if (more := look.changes.counts[word] - len(found)) > 0:
            yield f"{word} {more} more"
    counts = ", ".join(f"{look.counted.of(kind)} {kind}" for kind in sorted(look.counted.by_class)) or "agreement"
    documents = "unknown" if look.tally is None else f"{look.tally.documents} documents, {look.tally.in_flight} in flight"
    unread = f"; not read: {', '.join(look.unread)}" if look.unread else ""
    yield f"look {look.outcome}: {documents}; {counts}{unread}"


def _spoken(found: Finding) -> str:
    """One line whatever an id holds: as JSON writes it."""
    owner = "" if found.owner is None else f" owner={json.dumps(found.owner)}"
    return f"{found.kind} {json.dumps(found.place)} document={json.dumps(found.document)}{owner}: {json.dumps(found.detail)[1:-1]}"


def _turn_over(path: Path) -> None:
    try:
        if os.lstat(path).st_size > _LARGEST:
            os.rename(path, path.with_name(f"{path.name}.1"))
    except FileNotFoundError:
        return

"""What the last look at a rule found, and since when: one file a rule in the stack's state, replaced whole.

A first line says when the look was and of what rule; then come its findings, sorted, a line of JSON each. A finding that the next look
sees again keeps its `since`; one that a look did not see begins anew. A place that could not be read tells nothing: what was last found
there stands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from storekeeper.consistency.findings import Finding
from storekeeper.host import clock, durable, formats, locks
from storekeeper.outcomes import Failed
from storekeeper.stores.lines import to_line

FORMAT = 1
_FOLDER = "looks"


@dataclass(frozen=True)
class Head:
    """The first line. `unread` are places that could not be read; `counts` are findings by class, then by store."""

    at: datetime
    rule: str
    documents: int | None
    in_flight: int | None
    counts: Mapping[str, Mapping[str, int]]
    unread: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "at": clock.rfc3339(self.at),
            "rule": self.rule,
            "documents": self.documents,
            "in_flight": self.in_flight,
            "counts": {kind: dict(stores) for kind, stores in self.counts.items()},
            "unread": list(self.unread),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Head:
        """Raises KeyError, TypeError, ValueError or AttributeError for what `to_json` did not write, NewerFormat for a later one's."""
        formats.refuse_newer(formats.number_of(line, key="format"), FORMAT, what="a look")
        return cls(
            clock.parse_rfc3339(line["at"]),
            str(line["rule"]),
            None if line["documents"] is None else int(line["documents"]),
            None if line["in_flight"] is None else int(line["in_flight"]),
            {str(kind): {str(store): int(count) for store, count in stores.items()} for kind, stores in line["counts"].items()},
            tuple(str(place) for place in line["unread"]),
        )


@dataclass
class Counted:
    """Findings by class and store."""

    by_class: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        stores = self.by_class.setdefault(str(finding.kind), {})
        stores[finding.store] = stores.get(finding.store, 0) + 1

    def of(self, kind: str) -> int:
        return sum(self.by_class.get(kind, {}).values())

    @property
    def total(self) -> int:
        return sum(map(self.of, self.by_class))


def file_of(state: Path, rule: str) -> Path:
    return state / _FOLDER / f"{rule}.jsonl"


def newest(state: Path, rule: str) -> Head | None:
    """The first line of a rule's last look; None where there was none. Raises Failed for one that cannot be read."""
    path = file_of(state, rule)
    try:
        with open(path, encoding="ascii") as file:
            return _head(path, file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def opened(state: Path, rule: str, digest: str) -> Iterator[Iterator[Finding]]:
    """The findings of the last look at exactly this rule, in order; none where there was none. Raises Failed as `newest` does."""
    path = file_of(state, rule)
    if not path.exists():
        yield iter(())
        return
    with open(path, encoding="ascii") as file:
        head = _head(path, file)
        if head.rule != digest or head.at > clock.now():  # dated after now: how long ago anything was cannot be told
            yield iter(())
            return
        with closing(_findings(path, file)) as found:
            yield found


@contextmanager
def turn(state: Path) -> Iterator[None]:
    """While the block runs, no other run replaces a look. Raises Unknown where one takes longer than a minute."""
    durable.ensure_directory(state / _FOLDER)
    with locks.turn(state / _FOLDER):
        yield


def write(state: Path, rule: str, head: Head, found: Iterable[Finding]) -> None:
    """Replace a rule's look, within a turn; durable when this returns."""
    path = file_of(state, rule)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, durable.PRIVATE_FILE), "wb") as file:
        file.write(to_line(head.to_json()))
        file.writelines(to_line(finding.to_json()) for finding in found)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    durable.sync_directory(path.parent)


def joined(before: Iterator[Finding], now: Iterable[Finding], at: datetime, unread: frozenset[str]) -> Iterator[tuple[Finding, str]]:
    """Both looks side by side, sorted: each finding with `since`, and whether it is `new`, `seen` again, `kept` for a place that could
    not be read, or `gone`.
    """
    old = next(before, None)
    for each in now:
        while old is not None and old.key < each.key:
            yield old, "kept" if old.place in unread else "gone"
            old = next(before, None)
        if old is not None and old.key == each.key:
            yield each.seen(each.since or old.since or at), "seen"
            old = next(before, None)
        else:
            yield each.seen(each.since or at), "new"
    while old is not None:
        yield old, "kept" if old.place in unread else "gone"
        old = next(before, None)


def _head(path: Path, file: IO[str]) -> Head:
    try:
        return Head.from_json(json.loads(file.readline()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error


def _findings(path: Path, file: IO[str]) -> Generator[Finding, None, None]:
    for line in file:
        try:
            yield Finding.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error


def _damaged(path: Path) -> Failed:
    return Failed(f"what was last seen, {path}, is damaged: since when anything disagrees is not known", next=f"rm {path}")

"""How sets are named, and how a person names one: `latest`, an id, a time, or the start of an id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from storekeeper.host.clock import SET_STAMP
from storekeeper.outcomes import Refused

LATEST = "latest"
_DIGITS = 6  # of a sequence number; longer ones follow after 999,999

_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-([0-9]{6,12})", re.ASCII)
_START = re.compile(r"[0-9]{1,8}|[0-9]{8}T[0-9]{0,6}|[0-9]{8}T[0-9]{6}Z(-[0-9]{0,12})?", re.ASCII)
_TIME = re.compile(r"([0-9]{8})[_T]([0-9]{6})Z?", re.ASCII)
_SHOWN = 60  # characters of a refused name that are repeated


@dataclass(frozen=True)
class SetId:
    """What an id says: when the set was begun (UTC, whole seconds), and its place in the order of all sets of its stack."""

    time: datetime
    sequence: int


def format_id(time: datetime, sequence: int) -> str:
    """`20250109T030000Z-000123`."""
    return f"{time.astimezone(UTC).strftime(SET_STAMP)}-{sequence:0{_DIGITS}d}"


def parse_id(text: str) -> SetId:
    """The inverse of `format_id`. Raises ValueError for anything that it would not write."""
    if found := _ID.fullmatch(text):
        time = _stamped(found[1])
        if time is not None and format_id(time, int(found[2])) == text:
            return SetId(time, int(found[2]))
    raise ValueError(f"{shown(text)} is no set's id")


def read_id(text: str) -> SetId | None:
    """`parse_id`, with None for a name that is no id: what a directory holds beside sets."""
    try:
        return parse_id(text)
    except ValueError:
        return None


def _stamped(text: str) -> datetime | None:
    """A time as ids hold it; None for the 13th month and its like. By hand: strptime would be half of a listing's time."""
    date, clock = (int(text[0:4]), int(text[4:6]), int(text[6:8])), (int(text[9:11]), int(text[11:13]), int(text[13:15]))
    try:
        return datetime(*date, *clock, tzinfo=UTC)
    except ValueError:
        return None


@dataclass(frozen=True)
class Wanted:
    """A set as a person named it."""

    name: str
    start: str | None  # None: the latest

    def matches(self, set_id: str) -> bool:
        """Whether an id is meant by this name. Every id is meant by `latest`: the caller takes the newest."""
        return self.start is None or set_id.startswith(self.start)


def wanted(name: str) -> Wanted:
    """Read a name. Raises Refused for anything that is no `latest`, id, time (`20250109_030000`, `20250109T030000Z`) or start of an id."""
    if name == LATEST:
        return Wanted(name, None)
    if found := _TIME.fullmatch(name):
        return Wanted(name, f"{found[1]}T{found[2]}Z-")
    if _START.fullmatch(name):
        return Wanted(name, name)
    raise Refused(
        f"{shown(name)} names no set: expected latest, an id such as 20250109T030000Z-000123, its start, or a time such as 20250109_030000",
    )


def shown(text: str) -> str:
    """A name that may be hostile, as it can be printed: escaped, in quotes, at most 60 characters of it."""
    escaped = ascii(text[: _SHOWN + 1])[1:-1]
    return f"'{escaped}'" if len(escaped) <= _SHOWN else f"'{escaped[: _SHOWN - 3]}...'"

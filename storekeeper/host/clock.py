"""Time as the program uses it: always UTC, always whole and comparable."""

from __future__ import annotations

import time
from datetime import UTC, datetime

SET_STAMP = "%Y%m%dT%H%M%SZ"


def now() -> datetime:
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go back, comparable between the processes of one host (CLOCK_MONOTONIC)."""
    return time.monotonic()


def rfc3339(moment: datetime) -> str:
    """`2025-01-09T03:00:00Z`; fractions are kept where there are any."""
    text = moment.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """The inverse of `rfc3339`. Raises ValueError for anything without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)

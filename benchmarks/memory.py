"""The peak memory of each verb over stores of each kind, and over ten times the data.

    python -m benchmarks.memory [--times 10] [--only chroma]

The program runs as people run it. A figure is the peak of its own memory; in brackets stands the largest process of the run where that
was another one: pg_dump, a scratch server, or the interpreter in which Chroma reads a scratch copy.
"""

from __future__ import annotations

from typing import Any

from benchmarks.measuring import Found, command, show, weighed
from tests.harness.memory import LOCKS, VERBS, Kind, Peak, kinds, peaks, temporary
from tests.harness.postgresql import start_server

__all__ = ["TITLE", "measure", "show"]
TITLE = "Memory"
GOAL = 1.25  # ten times the data to the data


def measure(times: int = 10, only: str = "", rounds: int = 1) -> Found:  # noqa: ARG001 - a peak does not vary between runs
    """A row for each verb and kind, its large size beside its small one."""
    rows: list[dict[str, Any]] = []
    with start_server(settings=LOCKS) as server, temporary() as root:
        for name, kind in kinds(server).items():
            if only in ("", name):
                few, many = (peaks(root / str(count), kind, count) for count in (kind.large, times * kind.large))
                rows += [_row(verb, kind, (kind.large, few[verb]), (times * kind.large, many[verb])) for verb in VERBS]
    note = (
        "A table is a word of the manifest, with its count and its digest: many tables are the one thing that a little memory is held of."
    )
    return {"rows": rows, "notes": [note]}


def _row(verb: str, kind: Kind, few: tuple[int, Peak], many: tuple[int, Peak]) -> dict[str, Any]:
    (few_count, small), (count, large) = few, many
    others = f"its largest process {large.largest:.0f} MB" if large.largest > large.own + 1 else ""
    what = f"`{verb}` of {kind.title}, {count:,} {kind.unit}"
    return weighed(what, large.own, f"{few_count:,}", small.own, goal=GOAL, note=others)


if __name__ == "__main__":
    command(__doc__, measure)

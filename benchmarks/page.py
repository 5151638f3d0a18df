"""docs/benchmarks.md, made from what the runs of the parts left in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.chart import draw
from benchmarks.measuring import spoken
from tests.harness.program import CHECKOUT

RESULTS = CHECKOUT / "benchmarks/results"
PAGE = CHECKOUT / "docs/benchmarks.md"
_HEAD = """\
<!-- Made by `make bench` from benchmarks/results: run it again to change it. -->

# Benchmarks

`make bench` measures all of this again and writes this page; `make bench PARTS="chroma postgresql"` measures some parts and keeps
the others. Both sides of a comparison take turns in one run on one file system, each is the whole command, and a ratio is made of two
runs of one round: it is what holds elsewhere, seconds are of the machine named. Every figure is a median, with the least and the most
in brackets. *Processor* is what the side and the programs it started used, and, after the plus, what everything else on the machine
used meanwhile, a database server among it: where that is much, the run was disturbed. A goal is for the median unless it says otherwise.
"""


def write(parts: Sequence[str]) -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) for part in parts if (path := RESULTS / f"{part}.json").is_file()]
    if unmeasured := [part["part"] for part in found if not part.get("rows")]:
        raise ValueError(f"{unmeasured[0]} found no rows")
    for part in found:
        if chart := part.get("chart"):
            PAGE.with_name(_picture(part)).write_text(draw(chart), encoding="utf-8")
    PAGE.write_text(render(found), encoding="utf-8")


def render(found: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([_HEAD, *_missed(found), *(line for part in found for line in _section(part))])


def _missed(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [(part, row) for part in found for row in part["rows"] if row.get("goal")]
    missed = [f"- {part['title']}: {_what(row)}: {_result(row)}, the goal is {row['goal']}." for part, row in rows if not row["met"]]
    yield f"Of {len(rows)} goals {len(rows) - len(missed)} were met{'.' if not missed else '; missed:'}"
    yield ""
    if missed:
        yield from [*missed, ""]


def _section(part: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = part["machine"], part["versions"]
    yield f"## {part['title']}"
    yield ""
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    place = f"{machine['system']}, kernel {machine['kernel']}, {machine['cores']} cores, {machine['memory']}, {machine['file system']}"
    minutes, before = part["seconds"] / 60, machine["load before"]
    yield f"Measured {part['measured']} in {minutes:.0f} min with {used}, on {place}; the load before it was {before}."
    yield ""
    yield "| what | n | Storekeeper | beside it | ratio | processor, ours | processor, beside | goal |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in part["rows"]:
        yield _line(row)
    yield ""
    if chart := part.get("chart"):
        yield from (f"![{chart['title']}]({_picture(part)})", "")
    for note in part.get("notes", ()):
        yield from (note, "")


def _picture(part: Mapping[str, Any]) -> str:
    return f"{part['part']}.svg"


def _line(row: Mapping[str, Any]) -> str:
    beside, ratio = "", ""
    if "theirs" in row:
        beside, ratio = f"{row['name']}: {spoken(row['theirs'], row['unit'])}", spoken(row["ratio"], "")
    goal = f"{row['goal']}: {'met' if row['met'] else '**missed**'}" if row.get("goal") else ""
    words = (
        _what(row),
        str(row["n"]),
        spoken(row["ours"], row["unit"]),
        beside,
        ratio,
        _processor(row["ours"]),
        _processor(row.get("theirs", {})),
        goal,
    )
    return f"| {' | '.join(words)} |"


def _what(row: Mapping[str, Any]) -> str:
    return f"{row['what']} ({row['note']})" if row.get("note") else str(row["what"])


def _result(row: Mapping[str, Any]) -> str:
    return spoken(row["ratio"], "") if "ratio" in row else spoken(row["ours"], row["unit"])


def _processor(side: Mapping[str, Any]) -> str:
    if "processor_s" not in side:
        return ""
    return f"{side['processor_s']['median']:.2f} + {side['others_s']['median']:.2f} s"

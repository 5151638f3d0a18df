"""What every part measures with: the clock, the processors, sides that take turns, and rows that say what came out.

A part is a module with `measure(rounds=5, ...) -> Found` and `show(found)`. Both sides of a comparison take turns in one run, on one
file system, so that what else the machine does falls on both. Processor seconds are told apart: of the side itself with the
programs that it started, and of everything else that ran meanwhile, a database server among it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Found = dict[str, Any]  # of one part: `rows`, and whatever else it wants kept


@dataclass(frozen=True)
class Timing:
    """One run of one side."""

    seconds: float
    own_s: float  # processor seconds of this process and the programs that it started
    others_s: float  # and of everything else on the machine


def timed(*actions: Callable[[], object]) -> Timing:
    """Carry them out one after the other."""
    began, own, machine = time.perf_counter(), _own_s(), _machine_s()
    for action in actions:
        action()
    seconds, own, machine = time.perf_counter() - began, _own_s() - own, _machine_s() - machine
    return Timing(seconds, own, max(0.0, machine - own))


Side = Callable[[int], Timing]  # one run of a side, told its number: it makes ready and tidies up outside of what it times


def in_turn(rounds: int, sides: Mapping[str, Side]) -> dict[str, list[Timing]]:
    """Run every side once a round, each round begun by another side, and never while what the one before wrote is on its way to disk."""
    found: dict[str, list[Timing]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            os.sync()
            found[name].append(sides[name](number))
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": _rounded(statistics.median(values)), "min": _rounded(min(values)), "max": _rounded(max(values))}


def percentile(values: Sequence[float], hundredth: int) -> float:
    """The smallest of the values that as many hundredths of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * hundredth / 100) - 1)]


def compared(
    what: str,
    ours: Sequence[Timing],
    beside: str,
    theirs: Sequence[Timing],
    *,
    goal: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> dict[str, Any]:
    """A row that sets us beside another. The ratio is ours to theirs, by round; theirs to ours where it should be `at_least` the goal."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [other.seconds / mine.seconds if at_least else mine.seconds / other.seconds for mine, other in pairs]
    row = {
        "what": what,
        "n": len(pairs),
        "unit": "s",
        "ours": _told(ours),
        "name": beside,
        "theirs": _told(theirs),
        "ratio": spread(ratios),
        "note": note,
    }
    return row | _judged(goal, statistics.median(ratios), at_least=at_least)


def figure(
    what: str, values: Sequence[float], unit: str, *, goal: float | None = None, worst: bool = False, at_least: bool = False, note: str = ""
) -> dict[str, Any]:
    """A row of one thing alone; a goal is for its median, or for the `worst`."""
    row = {
        "what": what,
        "n": len(values),
        "unit": unit,
        "ours": {**spread(values), "values": [_rounded(value) for value in values]},
        "note": note,
    }
    worst_of = min if at_least else max
    return row | _judged(goal, worst_of(values) if worst else statistics.median(values), at_least=at_least, worst=worst)


def weighed(
    what: str, ours: float, beside: str, theirs: float, unit: str = "MB", *, goal: float | None = None, note: str = ""
) -> dict[str, Any]:
    """A row of two sizes, which no second run changes."""
    row = {
        "what": what,
        "n": 1,
        "unit": unit,
        "ours": spread([ours]),
        "name": beside,
        "theirs": spread([theirs]),
        "ratio": spread([ours / theirs]),
    }
    return row | {"note": note} | _judged(goal, ours / theirs)


def run(words: Sequence[str | Path], **more: Any) -> None:
    """Run another program quietly. Raises RuntimeError with what it said when it fails."""
    done = subprocess.run([*map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {(done.stderr or done.stdout).decode()[-2000:]}")


def fresh(beside: Path) -> Path:
    """A new directory next to the others of this name. None is removed before its part has ended: ext4 without a journal does not give
    away again what was deleted in the last minutes, and looks at all of that for every file that is made (fs/ext4/ialloc.c): of 2,000
    files, made after some such trees had been removed, each took 0.7 ms; a few minutes and trees later 0.013 ms.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{beside.name}-", dir=beside.parent))


def bytes_of(directory: Path) -> int:
    """What a tree takes, a file with several names counted once."""
    sizes = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def show(found: Found) -> None:
    """Every row in a few lines."""
    for row in found["rows"]:
        print(f"{row['what']} (n = {row['n']})")
        print(f"    {'storekeeper':28} {spoken(row['ours'], row['unit'])}")
        if "theirs" in row:
            print(f"    {row['name'][:28]:28} {spoken(row['theirs'], row['unit'])}")
            print(f"    ratio {spoken(row['ratio'], '')}")
        if row.get("goal"):
            print(f"    goal: {row['goal']}: {'met' if row['met'] else 'MISSED'}")


def spoken(values: Mapping[str, Any], unit: str) -> str:
    """`0.197 (0.180 to 0.226)`, or one figure where nothing varied."""
    median, least, most = (short(values[key]) for key in ("median", "min", "max"))
    ending = f" {unit}" if unit else ""
    return f"{median}{ending}" if least == most else f"{median}{ending} ({least} to {most})"


def short(value: float) -> str:
    """Three digits, none of them after a point that says nothing."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def command(doc: str | None, measure: Callable[..., Found], show: Callable[[Found], None] = show) -> None:
    """The command line of a part: one option for each number that `measure` takes, so that a small trial is one command."""
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, parameter in inspect.signature(measure).parameters.items():
        words.add_argument(
            f"--{name.replace('_', '-')}", type=type(parameter.default), default=parameter.default, help=f"({parameter.default})"
        )
    words.add_argument("--json", type=Path, help="write all figures there")
    given = vars(words.parse_args())
    file = given.pop("json")
    found = measure(**given)
    show(found)
    if file is not None:
        file.write_text(json.dumps(found, indent=2) + "\n")


def _judged(goal: float | None, value: float, *, at_least: bool = False, worst: bool = False) -> dict[str, Any]:
    if goal is None:
        return {}
    met = value >= goal if at_least else value <= goal
    return {"goal": f"{'at least' if at_least else 'at most'} {goal:g}{', at worst' if worst else ''}", "met": met}


def _told(timings: Sequence[Timing]) -> dict[str, Any]:
    return {
        **spread([each.seconds for each in timings]),
        "values": [_rounded(each.seconds) for each in timings],
        "processor_s": spread([each.own_s for each in timings]),
        "others_s": spread([each.others_s for each in timings]),
    }


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _machine_s() -> float:
    """Processor seconds that the machine has spent on anything so far, proc(5)."""
    user, nice, system, _, _, interrupts, soft, *_ = (int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")

"""How fast the program starts, and what `status` of an idle stack costs, beside an interpreter that does nothing.

python -m benchmarks.start [--rounds 20]
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring import Found, Timing, command, compared, figure, in_turn, show, timed

__all__ = ["TITLE", "measure", "show"]

TITLE = "Start"
GOAL_VERSION = 3.0  # times `python -c pass`
GOAL_STATUS_MS = 150.0  # of CPU


def measure(rounds: int = 20) -> Found:
    """Processor time, which says more of short programs than the clock; the three in turn."""
    program = str(Path(sys.prefix) / "bin/storekeeper")
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-") as place:
        config = _one_stack(Path(place), program)
        sides = {
            "nothing": lambda _: _processor([sys.executable, "-c", "pass"]),
            "version": lambda _: _processor([program, "--version"]),
            "status": lambda _: _processor([program, "--config", str(config), "status"]),
        }
        found = in_turn(rounds, sides)
    row = compared("`storekeeper --version`, processor seconds", found["version"], "`python -c pass`", found["nothing"], goal=GOAL_VERSION)
    status = [each.seconds * 1000 for each in found["status"]]
    return {"rows": [row, figure("`storekeeper status` of an idle stack, processor", status, "ms", goal=GOAL_STATUS_MS)], "sizes": {}}


def _one_stack(place: Path, program: str) -> Path:
    """A stack of one small database, with one set."""
    config = place / "etc"
    (config / "stacks").mkdir(parents=True)
    with closing(sqlite3.connect(place / "app.db")) as connection, connection:
        connection.execute("create table notes (id integer primary key)")
    (config / "stacks/app.yml").write_text(f"stack: app\nstores:\n  main: {{kind: sqlite, path: {place}/app.db}}\n")
    (config / "storekeeper.yml").write_text(f"repository: {place}/sets\nstate: {place}/state\n")
    subprocess.run([program, "--config", str(config), "--quiet", "backup", "app"], check=True)
    return config


def _processor(words: list[str]) -> Timing:
    """A timing whose seconds are the processor's, not the clock's."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }  # programs are installed compiled
    timing = timed(lambda: subprocess.run(words, check=False, capture_output=True, env=environment))
    return replace(timing, seconds=timing.own_s)


if __name__ == "__main__":
    command(__doc__, measure)

"""How fast the program starts, and what `status` of an idle stack costs, beside an interpreter that does nothing.

python -m benchmarks.start [--runs 20]
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

GOAL_VERSION = 3.0  # times `python -c pass`
GOAL_STATUS_MS = 150.0  # of CPU


def measure(runs: int = 20) -> dict[str, Any]:
    """Medians in CPU milliseconds, the three in turn."""
    program = str(Path(sys.prefix) / "bin/storekeeper")
    with tempfile.TemporaryDirectory(prefix="storekeeper-bench-") as place:
        config = _one_stack(Path(place), program)
        nothing, version, status = [], [], []
        for _ in range(runs):
            nothing.append(_cpu_ms([sys.executable, "-c", "pass"]))
            version.append(_cpu_ms([program, "--version"]))
            status.append(_cpu_ms([program, "--config", str(config), "status"]))
    ratios = [mine / other for mine, other in zip(version, nothing, strict=True)]
    return {
        "runs": runs,
        "python_ms": round(statistics.median(nothing), 1),
        "version_ms": round(statistics.median(version), 1),
        "version_ratio": round(statistics.median(ratios), 2),
        "status_ms": round(statistics.median(status), 1),
        "goal_version_ratio": GOAL_VERSION,
        "goal_status_ms": GOAL_STATUS_MS,
    }


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


def _cpu_ms(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env={**os.environ, "NO_COLOR": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--runs", type=int, default=20)
    found = measure(words.parse_args().runs)
    print(f"python -c pass      {found['python_ms']} ms of CPU")
    print(f"--version           {found['version_ms']} ms, {found['version_ratio']} times that (goal: at most {GOAL_VERSION:g})")
    print(f"status              {found['status_ms']} ms (goal: at most {GOAL_STATUS_MS:g})")


if __name__ == "__main__":
    main()

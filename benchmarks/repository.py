"""What `list` and `status` of a repository of many sets take, beside a plain reading of the same manifests.

python -m benchmarks.repository [--sets 10000] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from storekeeper.sets.manifest import MANIFEST, read_manifest
from storekeeper.sets.names import format_id

GOAL_LIST_S = 1.0
# What any program must do that believes what the manifests say: read each, and parse it.
_PLAINLY = """
import json, os, sys
folder = sys.argv[1]
for name in sorted(os.listdir(folder)):
    if name[0] != ".":
        with open(f"{folder}/{name}/manifest.json", "rb") as file:
            json.loads(file.read())
"""


def measure(sets: int = 10_000, runs: int = 5) -> dict[str, Any]:
    """Medians of seconds, the commands in turn, and the most memory that one used."""
    program = str(Path(sys.prefix) / "bin/storekeeper")
    with tempfile.TemporaryDirectory(prefix="storekeeper-bench-") as place:
        config = one_stack(Path(place), program)
        multiply(Path(place) / "sets/app", sets)
        commands = {
            "plainly": [sys.executable, "-c", _PLAINLY, f"{place}/sets/app"],
            "list": [program, "--config", str(config), "list", "app"],
            "list_json": [program, "--config", str(config), "list", "app", "--json"],
            "status": [program, "--config", str(config), "status", "app"],
        }
        took: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, words in commands.items():
                took[name].append(cost(words))
    ratios = [mine / other for (mine, _), (other, _) in zip(took["list"], took["plainly"], strict=True)]
    return {
        "sets": sets,
        "runs": runs,
        **{f"{name}_s": round(statistics.median(seconds for seconds, _ in each), 2) for name, each in took.items()},
        **{f"{name}_mb": round(max(memory for _, memory in each) / 1000) for name, each in took.items()},
        "list_ratio": round(statistics.median(ratios), 2),
        "worst_list_ratio": round(max(ratios), 2),
        "goal_list_s": GOAL_LIST_S,
    }


def one_stack(place: Path, program: str) -> Path:
    """A stack of four small stores with one set."""
    config = place / "etc"
    (config / "stacks").mkdir(parents=True)
    stores = ""
    for name in ("papers", "figures", "notes", "tables"):
        (place / name).mkdir()
        (place / name / "a.txt").write_text(name, encoding="utf-8")
        stores += f"  {name}: {{kind: files, path: {place}/{name}}}\n"
    (config / "stacks/app.yml").write_text(f"stack: app\nstores:\n{stores}", encoding="utf-8")
    (config / "storekeeper.yml").write_text(f"repository: {place}/sets\nstate: {place}/state\n", encoding="utf-8")
    subprocess.run([program, "--config", str(config), "--quiet", "backup", "app"], check=True)
    return config


def multiply(folder: Path, count: int) -> None:
    """Sets as the one that is there, one an hour: each with a manifest of its own, without its files, and not synced."""
    [first] = [path for path in folder.iterdir() if not path.name.startswith(".")]
    manifest = read_manifest(first / MANIFEST)
    for number in range(2, count + 1):
        moment = manifest.created - timedelta(hours=count - number)
        path = folder / format_id(moment, number)
        path.mkdir(mode=0o700)
        (path / MANIFEST).write_bytes(replace(manifest, id=path.name, sequence=number, created=moment).to_bytes())


def cost(words: Sequence[str]) -> tuple[float, int]:
    """Seconds, and the most kilobytes, that a command took."""
    began = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it was waited for here
    return time.monotonic() - began, used.ru_maxrss


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sets", type=int, default=10_000)
    words.add_argument("--runs", type=int, default=5)
    asked = words.parse_args()
    found = measure(asked.sets, asked.runs)
    print(f"{found['sets']:,} sets, manifests read plainly   {found['plainly_s']} s, {found['plainly_mb']} MB")
    print(f"list    {found['list_s']} s, {found['list_mb']} MB, {found['list_ratio']} times that (goal: at most {GOAL_LIST_S:g} s)")
    print(f"  with --json   {found['list_json_s']} s, {found['list_json_mb']} MB")
    print(f"status  {found['status_s']} s, {found['status_mb']} MB")


if __name__ == "__main__":
    main()

"""What `list` and `status` of a repository of many sets take, beside a plain reading of the same manifests.

python -m benchmarks.repository [--rounds 5]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from benchmarks.measuring import Found, Side, Timing, command, compared, figure, in_turn, show, timed
from storekeeper.sets.manifest import MANIFEST, read_manifest
from storekeeper.sets.names import format_id

__all__ = ["TITLE", "measure", "multiply", "show"]

TITLE = "A repository of many sets"
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


def measure(rounds: int = 5, sets: int = 10_000) -> Found:
    """Processor seconds of each command, in turn, once the first `list` has read every manifest; and the most memory of one run."""
    program = str(Path(sys.prefix) / "bin/storekeeper")
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-") as place:
        config = one_stack(Path(place), program)
        multiply(Path(place) / "sets/app", sets)
        ours = {name: [program, "--config", str(config), *name.split()] for name in ("list app", "list app --json", "status app")}
        plainly = [sys.executable, "-c", _PLAINLY, f"{place}/sets/app"]
        first = _processor(ours["list app"], Path(place))
        commands = {"plainly": plainly, **ours}
        found = in_turn(rounds, {name: _side(words, Path(place)) for name, words in commands.items()})
        memory = {name: [_peak_mb(words, Path(place))] for name, words in ours.items()}
    about = f"{sets:,} sets, processor"
    rows = [
        compared(f"`list --json` of {about}", found["list app --json"], "each manifest read and parsed by plain Python", found["plainly"]),
        figure(f"the first `list` of {about}: every manifest is read and believed", [first.seconds], "s"),
        *(figure(f"`{name}` of {about}", [each.seconds for each in found[name]], "s", goal=GOAL_LIST_S) for name in ours),
        *(figure(f"`{name}` of {sets:,} sets, peak memory", peaks, "MB") for name, peaks in memory.items()),
    ]
    return {"rows": rows, "sizes": {"sets": sets}}


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


def _side(words: Sequence[str], place: Path) -> Side:
    return lambda _: _processor(words, place)


def _processor(words: Sequence[str], place: Path) -> Timing:
    """A timing whose seconds are the processor's, not the clock's. What is printed goes to a file: to nowhere it is not even made."""
    with open(place / "out", "wb") as out:
        timing = timed(
            lambda: subprocess.run(words, check=False, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
        )
    return replace(timing, seconds=timing.own_s)


def _peak_mb(words: Sequence[str], place: Path) -> float:
    with open(place / "out", "wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_maxrss / 1000


if __name__ == "__main__":
    command(__doc__, measure)

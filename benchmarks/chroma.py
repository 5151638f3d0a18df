"""A backup of a Chroma directory against `cp -r` and `sync` of it, and how long its writers wait for the backup.

    .venv/bin/python -m benchmarks.chroma [--vectors 100000] [--dimension 384] [--rounds 5] [--directory DIR] [--json FILE]

Ours is the whole of `storekeeper backup`: look, copy, pin, check, hash, fsync, read back, publish. A plain copy waits for no moment,
checks nothing, and under a writer it is broken (tests/stores/test_chroma_live.py). Rounds alternate on one file system, so that
what else the machine does falls on both. It falls on ours more: a backup uses two cores and a copy one, so the ratio holds where
little else ran, and the processor seconds say how much did. `--directory` keeps the loaded directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from storekeeper.host.progress import Progress
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import ChromaModel, Stack
from tests.harness.chroma import execute, writing
from tests.harness.stacks import open_context

GOAL = 2.5
# Text of about 700 characters that does not repeat, as in the benchmark of PostgreSQL: what a vector database holds.
_LOAD = """
import hashlib
papers, count, dimension = collection("papers", sync=20000), arguments["vectors"], arguments["dimension"]
for start in range(0, count, 5000):
    numbers = range(start, min(start + 5000, count))
    papers.add(
        ids=[f"chunk-{number:07}" for number in numbers],
        embeddings=vectors(len(numbers), dimension, 1 + start),
        documents=[" ".join(hashlib.md5(b"%d" % (number * 31 + part)).hexdigest() for part in range(21)) for number in numbers],
        metadatas=[{"doc_id": f"doc-{number // 20}", "page": number % 20} for number in numbers],
    )
"""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--vectors", type=int, default=100_000)
    words.add_argument("--dimension", type=int, default=384)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--directory", type=Path)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = measure(given.vectors, given.dimension, given.rounds, given.directory)
    show(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(vectors: int = 100_000, dimension: int = 384, rounds: int = 5, directory: Path | None = None) -> dict[str, Any]:
    """All figures, seconds by round among them. `directory` is loaded when it is missing, and kept."""
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-", dir=directory.parent if directory else None) as place:
        room, live = Path(place), directory or Path(place, "live")
        if not live.exists():
            execute(live, _LOAD, patience_s=1800.0, vectors=vectors, dimension=dimension)
        found: dict[str, Any] = {"vectors": vectors, "dimension": dimension, "rounds": rounds, "goal": GOAL, "bytes": _bytes(live)}
        found |= _against_copy(live, room, rounds)
        return found | _under_a_writer(Path(shutil.copytree(live, room / "working")), room, rounds, dimension)


def _against_copy(live: Path, room: Path, rounds: int) -> dict[str, Any]:
    plain, ours, own, others, steps = [], [], [], [], defaultdict[str, list[float]](list)
    for number in range(rounds):
        plain.append(_plain_copy(live, room / f"plain-{number}"))
        watch = _Watch()
        with _context(live, room / f"sets-{number}", watch) as context:
            began, cpu, machine = time.perf_counter(), time.process_time(), _machine_s()
            take_set(context, purpose="backup")
            ours.append(time.perf_counter() - began)
            own.append(time.process_time() - cpu)
            others.append(max(0.0, _machine_s() - machine - own[-1]))
        for name, seconds in watch.ended().items():
            steps[name].append(seconds)
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    return {
        "copy_s": _rounded(plain),
        "storekeeper_s": _rounded(ours),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_worst": round(max(ratios), 3),
        "processor_s": _rounded(own),
        "others_processor_s": _rounded(others),
        "steps_s": {name: round(statistics.median(seconds), 3) for name, seconds in steps.items()},
    }


def _under_a_writer(live: Path, room: Path, rounds: int, dimension: int) -> dict[str, Any]:
    """One client adds batches all the time. Every set is its first: nothing is shared with the one before."""
    pauses, seconds = [], []
    with writing(live, dimension=dimension, batch=200, sync=1000) as writer:
        for number in range(rounds):
            writer.wait_for(2)
            with _context(live, room / f"busy-{number}", Progress()) as context:
                began = time.perf_counter()
                manifest = take_set(context, purpose="backup").manifest
                seconds.append(time.perf_counter() - began)
            if isinstance(manifest, Manifest):
                pauses.append(manifest.pause_ms / 1000)
        writer.wait_for(1)
        slowest = writer.slowest_s
    return {
        "pauses_s": _rounded(pauses),
        "pause_worst_s": round(max(pauses), 3),
        "busy_s": _rounded(seconds),
        "slowest_add_s": round(slowest, 3),
    }


def _plain_copy(live: Path, target: Path) -> float:
    subprocess.run(["sync"], check=True)
    began = time.perf_counter()
    subprocess.run(["cp", "-r", live, target], check=True)
    subprocess.run(["sync"], check=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    subprocess.run(["sync"], check=True)
    return seconds


@contextmanager
def _context(live: Path, root: Path, progress: Progress) -> Iterator[Context]:
    (root / "private").mkdir(parents=True, mode=0o700)
    stack = Stack(stack="bench", stores={"vectors": ChromaModel(kind="chroma", path=live)})
    yield replace(open_context(root, stack), progress=progress)
    shutil.rmtree(root)


class _Watch(Progress):
    """How long each step took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._step = ""
        self._since = 0.0

    def step(self, store: str | None, what: str, total: int | None = None) -> None:  # noqa: ARG002 - the protocol's
        self.ended()
        self._step, self._since = what, time.perf_counter()

    def ended(self) -> dict[str, float]:
        if self._step:
            self._seconds[self._step] = time.perf_counter() - self._since
            self._step = ""
        return self._seconds


def show(found: dict[str, Any]) -> None:
    print(f"{found['vectors']} vectors of {found['dimension']}, {found['bytes'] / 1e6:.0f} MB, n = {found['rounds']}")
    for name, title in (("copy", "cp -r and sync"), ("storekeeper", "storekeeper backup, verified"), ("busy", "  the same under a writer")):
        seconds = found[f"{name}_s"]
        print(f"{title:32} median {statistics.median(seconds):.3f} s, best {min(seconds):.3f} s")
    print(f"ratio: median {found['ratio_median']}, worst {found['ratio_worst']} (goal: at most {found['goal']})")
    own, others = statistics.median(found["processor_s"]), statistics.median(found["others_processor_s"])
    print(f"processor seconds of a backup: {own:.2f}, and {others:.2f} of everything else that ran meanwhile on {os.cpu_count()} cores")
    print("steps: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in found["steps_s"].items()))
    print(f"writers paused: median {statistics.median(found['pauses_s']):.3f} s, longest {found['pause_worst_s']:.3f} s", end="; ")
    print(f"slowest add of that writer {found['slowest_add_s']:.3f} s")


def _machine_s() -> float:
    """Processor seconds that the machine has spent on anything so far, proc(5)."""
    user, nice, system, _, _, interrupts, soft, *_ = (int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _rounded(seconds: list[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


if __name__ == "__main__":
    main()

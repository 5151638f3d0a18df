"""A backup of a Chroma directory against `cp -r` and `sync`, against paging through the client, and what its users feel of it.

    python -m benchmarks.chroma [--vectors 100000] [--dimension 384] [--rounds 5] [--pagings 5]

Ours is the whole of `storekeeper backup`: look, copy, pin, check, hash, fsync, read back, publish. A plain copy waits for no moment,
checks nothing, and under a writer it is broken (tests/stores/test_chroma_live.py). Paging is the way of Chroma's own interface:
`collection.get` in pages of 5,000 with vectors, documents and metadata; all of it as lines of JSON, which is what people write, and
as quickly as it can be written at all, vectors as .npy files and only the rest as lines of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.keeping import Keeping
from benchmarks.measuring import Found, Timing, bytes_of, command, compared, figure, in_turn, percentile, run, show, timed
from storekeeper.host import durable
from tests.harness.chroma import execute, running, writing

__all__ = ["TITLE", "measure", "show"]
TITLE = "Chroma"
COPY_GOAL, PAGING_GOAL, PAUSE_GOAL_S = 2.5, 10.0, 0.6
PAGE = 5_000
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
_PAGING = """
import os
papers, into, page = collection("papers"), arguments["into"], arguments["page"]
with open(into + "/rows.jsonl", "w") as rows:
    for start in range(0, papers.count(), page):
        got = papers.get(limit=page, offset=start, include=["embeddings", "documents", "metadatas"])
        columns = [got["ids"], got["documents"], got["metadatas"]]
        if arguments["vectors_apart"]:
            numpy.save(f"{into}/vectors-{start}.npy", got["embeddings"])
        else:
            columns.append(got["embeddings"].tolist())
        for row in zip(*columns):
            rows.write(json.dumps(row) + "\\n")
os.sync()
"""
_QUERIES = """
papers, dimension = collection("papers"), arguments["dimension"]
questions = vectors(1000, dimension, seed=99)
number = 0
while True:
    began = time.monotonic()
    papers.query(query_embeddings=questions[number % 1000:number % 1000 + 1], n_results=10)
    say([began, time.monotonic() - began])
    number += 1
    time.sleep(0.005)
"""


def measure(rounds: int = 5, vectors: int = 100_000, dimension: int = 384, pagings: int = 5) -> Found:
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-", dir="/var/tmp") as place:
        room, live = Path(place), Path(place, "live")
        execute(live, _LOAD, patience_s=1800.0, vectors=vectors, dimension=dimension)
        size = f"{vectors:,} x {dimension} with 700 characters of text each, {bytes_of(live) / 1e6:,.0f} MB"
        trial = _Trial(room, live, dimension)
        sides = {"ours": trial.our_backup, "copy": trial.plain_copy}
        found = in_turn(rounds, sides)
        rows = [compared(f"backup of {size}", found["ours"], "`cp -r` and `sync`", found["copy"], goal=COPY_GOAL)]
        if pagings:
            ways = {"json": trial.paging_into_json, "arrays": trial.paging_into_arrays}
            paged = in_turn(pagings, {"ours": trial.our_backup, **ways})
            what, client = "the same, how many times faster than paging", "paging through the client"
            rows.append(compared(what, paged["ours"], f"{client}, lines of JSON", paged["json"], goal=PAGING_GOAL, at_least=True))
            rows.append(compared(what, paged["ours"], f"{client}, vectors as arrays", paged["arrays"], at_least=True))
        pauses, slowest = trial.under_a_writer(rounds)
        rows.append(
            figure(
                "a writer adds batches of 200 all the time: how long a backup holds its writes", pauses, "s", goal=PAUSE_GOAL_S, worst=True
            )
        )
        rows.append(figure("the longest that one of its adds took, with or without a backup", [slowest], "s"))
        rows += trial.under_queries(rounds)
        return {"rows": rows, "sizes": {"vectors": vectors, "dimension": dimension}}


class _Trial:
    def __init__(self, room: Path, live: Path, dimension: int) -> None:
        self._room = room
        self._live = live
        self._dimension = dimension

    def our_backup(self, number: int) -> Timing:  # noqa: ARG002
        """The first set of a repository: nothing is shared with one before."""
        with _keeping(self._room / "ours", self._live) as keeping:
            return keeping.backup()[0]

    def plain_copy(self, number: int) -> Timing:  # noqa: ARG002
        target = self._room / "plain"
        timing = timed(lambda: run(["cp", "-r", self._live, target]), os.sync)
        shutil.rmtree(target)
        return timing

    def paging_into_json(self, number: int) -> Timing:  # noqa: ARG002
        return self._paging(vectors_apart=False)

    def paging_into_arrays(self, number: int) -> Timing:  # noqa: ARG002
        return self._paging(vectors_apart=True)

    def _paging(self, *, vectors_apart: bool) -> Timing:
        """On a copy: opening a directory with a client writes to it."""
        opened, into = self._room / "opened", self._room / "paged"
        shutil.copytree(self._live, opened)
        into.mkdir()
        os.sync()
        timing = timed(lambda: execute(opened, _PAGING, patience_s=1800.0, into=str(into), page=PAGE, vectors_apart=vectors_apart))
        for each in (opened, into):
            shutil.rmtree(each)
        return timing

    def under_a_writer(self, rounds: int) -> tuple[list[float], float]:
        """Every set is its first. The pauses in seconds, and the slowest add."""
        working, pauses = Path(shutil.copytree(self._live, self._room / "working")), []
        os.sync()
        with writing(working, dimension=self._dimension, batch=200, sync=1000) as writer:
            for _ in range(rounds):
                writer.wait_for(2)
                with _keeping(self._room / "busy", working) as keeping:
                    pauses.append(keeping.backup()[1]["result"]["set"]["pause_ms"] / 1000)
            writer.wait_for(1)
            slowest = writer.slowest_s
        shutil.rmtree(working)
        return pauses, slowest

    def under_queries(self, rounds: int) -> list[Found]:
        """One client asks without pause; times with a backup and as long without one take turns."""
        asked = Path(shutil.copytree(self._live, self._room / "asked"))
        os.sync()
        during: list[tuple[float, float]] = []
        quiet: list[tuple[float, float]] = []
        with running(asked, _QUERIES, dimension=self._dimension) as process, _collected(process.stdout) as lines:
            _until(lambda: len(lines) > 50)
            for _ in range(rounds):
                with _keeping(self._room / "busy", asked) as keeping:
                    during.append(_span(keeping.backup))
                os.sync()
                quiet.append(_span(lambda: time.sleep(during[-1][1] - during[-1][0])))
        beside, alone = _in_spans(lines, during), _in_spans(lines, quiet)
        if not all([*beside, *alone]):
            raise RuntimeError("no query was answered in one of the rounds")
        name = "queries of one client, 95th percentile"
        return [
            figure(f"{name}, while a backup runs", [percentile(each, 95) * 1000 for each in beside], "ms"),
            figure(f"{name}, without one", [percentile(each, 95) * 1000 for each in alone], "ms"),
        ]


@contextmanager
def _keeping(root: Path, live: Path) -> Iterator[Keeping]:
    root.mkdir()
    yield Keeping(root, {"vectors": {"kind": "chroma", "path": live}})
    durable.remove_tree(root)


@contextmanager
def _collected(stream: IO[bytes] | None) -> Iterator[list[tuple[float, float]]]:
    """The lines that a process says, read by a thread until it ends."""
    lines: list[tuple[float, float]] = []

    def read() -> None:
        for line in stream or ():
            began, seconds = json.loads(line)
            lines.append((began, seconds))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield lines


def _until(holds: Callable[[], bool], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("nothing was answered in time")
        time.sleep(0.05)


def _span(action: Callable[[], object]) -> tuple[float, float]:
    began = time.monotonic()
    action()
    return began, time.monotonic()


def _in_spans(lines: list[tuple[float, float]], spans: list[tuple[float, float]]) -> list[list[float]]:
    return [[seconds for began, seconds in lines if first <= began < last] for first, last in spans]


if __name__ == "__main__":
    command(__doc__, measure)

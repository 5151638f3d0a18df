"""A backup of one PostgreSQL store against `pg_dump -Fc` as it comes, on the same rows.

    python -m benchmarks.postgresql [--rows 100000] [--dimensions 384] [--runs 5] [--json FILE]

Ours is the whole: pin, dump, digests, fsync, read back, decode. The other is pg_dump's default archive, written and fsynced by
pg_dump itself. Runs alternate, so that what else the machine does falls on both; the ratio is what holds elsewhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from storekeeper.stores.postgresql import PostgresqlStore, build
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server, start_server, surroundings
from tests.stores.walk import check_sums, take

GOAL = 0.3


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, default=100_000)
    words.add_argument("--dimensions", type=int, default=384)
    words.add_argument("--runs", type=int, default=5)
    words.add_argument("--major", type=int, default=18)
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    found = run(given.rows, given.dimensions, given.runs, given.major)
    show(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def run(rows: int = 100_000, dimensions: int = 384, runs: int = 5, major: int = 18) -> dict[str, Any]:
    """Start a server, fill it, and measure both in turn."""
    settings = ["shared_buffers=512MB", "maintenance_work_mem=1GB"]
    with start_server(major=major, fsync=True, settings=settings) as server, surroundings() as around:
        fill(server, rows, dimensions)
        found = measure(server, around, runs)
    return {**found, "rows": rows, "dimensions": dimensions, "postgresql": major, "goal": GOAL}


def fill(server: Server, rows: int, dimensions: int) -> None:
    """Text of about 700 characters that does not repeat, and random vectors under a graph index: what a vector database holds."""
    server.run("create database bench")
    server.run(
        f"create extension vector; create table chunks (id bigint primary key, body text, embedding vector({dimensions}));"
        "insert into chunks select i, (select string_agg(md5((i * 31 + g)::text), ' ') from generate_series(1, 21) g),"
        f" (select array_agg(random() * 2 - 1) from generate_series(1, {dimensions}) g where i > 0)::vector"
        f" from generate_series(1, {rows}) i;"
        "create index on chunks using hnsw (embedding vector_cosine_ops)",
        "bench",
    )
    server.run("vacuum analyze chunks", "bench")
    server.run("checkpoint")


def measure(server: Server, around: Surroundings, runs: int) -> dict[str, Any]:
    store = build("bench", server.declared("bench"), around)
    ours, theirs, sizes, parts = [], [], [0, 0], {}
    for number in range(runs):
        with tempfile.TemporaryDirectory(dir=around.private.parent) as place:
            seconds, sizes[0], parts = our_backup(store, Path(place) / str(number))
            ours.append(seconds)
            seconds, sizes[1] = default_pg_dump(server, Path(place) / "default.dump")
            theirs.append(seconds)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "runs": runs,
        "storekeeper_s": [round(each, 3) for each in ours],
        "pg_dump_s": [round(each, 3) for each in theirs],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_worst": round(max(ratios), 3),
        "storekeeper_bytes": sizes[0],
        "pg_dump_bytes": sizes[1],
        "parts": parts,
    }


def our_backup(store: PostgresqlStore, place: Path) -> tuple[float, int, dict[str, float]]:
    started = time.monotonic()
    folder, record = take(store, place)
    taken = time.monotonic()
    check_sums(folder, record)
    read = time.monotonic()
    store.verify(folder, record)
    ended = time.monotonic()
    names = ("pg_dump_s", "digests_s", "snapshot_s")
    parts = {**{name: record.details[name] for name in names}, "read_back_s": round(read - taken, 3), "decode_s": round(ended - read, 3)}
    return ended - started, record.bytes, {**parts, "compression": record.details["compression"]}


def default_pg_dump(server: Server, path: Path) -> tuple[float, int]:
    argv = [server.programs / "pg_dump", "-Fc", "-h", server.socket, "-p", str(server.port), "-U", "postgres", "-f", path, "bench"]
    started = time.monotonic()
    subprocess.run(argv, check=True)
    return time.monotonic() - started, path.stat().st_size


def show(found: dict[str, Any]) -> None:
    print(f"{'':24}{'median s':>10}{'best s':>10}{'MB':>10}   n = {found['runs']}")
    for name, title in (("storekeeper", "storekeeper, verified"), ("pg_dump", "pg_dump -Fc, default")):
        seconds, size = found[f"{name}_s"], found[f"{name}_bytes"]
        print(f"{title:24}{statistics.median(seconds):>10.2f}{min(seconds):>10.2f}{size / 1e6:>10.1f}")
    print(f"ratio: median {found['ratio_median']}, worst {found['ratio_worst']} (goal: at most {found['goal']})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

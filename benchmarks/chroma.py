"""A Chroma directory of 100,000 vectors of 384 numbers: our backup against `cp -r` and `sync`, and how long writers wait for it.

    .venv/bin/python -m benchmarks.chroma [--vectors 100000] [--dimension 384] [--rounds 5] [--directory DIR]

Rounds are interleaved: a copy, a backup, a copy, a backup. The ratio is what holds from one machine to another. What a plain
copy does not do: it does not wait for a moment, counts nothing, and under a writer it is broken (tests/stores/test_chroma_live.py).
`--directory` keeps the loaded directory for the next run.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.dumping import CONTENT
from storekeeper.stores.folder import StoreFolder
from tests.harness.chroma import Keeper, execute, writing

_LOAD = "load(collection('papers', sync=20000), arguments['vectors'], arguments['dimension'])"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-") as room:
        live = options.directory or Path(room, "live")
        if not live.exists():
            execute(live, _LOAD, vectors=options.vectors, dimension=options.dimension)
        size = sum(path.stat().st_size for path in live.rglob("*") if path.is_file())
        print(f"{options.vectors} vectors of {options.dimension}, {size / 1e6:.0f} MB, {options.rounds} rounds")
        _compare(live, Path(room), options.rounds)
        working = Path(shutil.copytree(live, Path(room, "working")))
        _pauses(working, Path(room), options.rounds, options.dimension)


def _compare(live: Path, room: Path, rounds: int) -> None:
    plain, copied, whole, contents, verified = [], [], [], [], []
    keeper = Keeper(live, room / "keeper")
    for number in range(rounds):
        target = room / f"plain-{number}"
        began = time.perf_counter()
        subprocess.run(["cp", "-r", live, target], check=True)
        subprocess.run(["sync"], check=True)
        plain.append(time.perf_counter() - began)
        shutil.rmtree(target)
        folder, moments = _backup(keeper, room / f"set-{number}")
        copied.append(moments[0])
        whole.append(moments[1])
        began = time.perf_counter()
        content_of(folder / CONTENT)
        contents.append(time.perf_counter() - began)
        began = time.perf_counter()
        keeper.store.verify(folder, None)  # type: ignore[arg-type]
        verified.append(time.perf_counter() - began)
        shutil.rmtree(folder)
    base = statistics.median(plain)
    _line("cp -r and sync", plain, base)
    _line("backup: copy under the lock", copied, base)
    _line("backup: whole (sha256, fsync, counts, digests)", whole, base)
    _line("  of which counts and digests", contents, base)
    _line("  without them", [one - other for one, other in zip(whole, contents, strict=True)], base)
    _line("verify: SQLite and index files", verified, base)


def _backup(keeper: Keeper, folder: Path) -> tuple[Path, tuple[float, float]]:
    """One set; the seconds until the lock is released, and until all is durable."""
    work = folder.with_name(folder.name + "-work")
    folder.mkdir()
    work.mkdir()
    began = time.perf_counter()
    hold = keeper.store.hold(work)
    try:
        hold.prepare()
        hold.pin()
        hold.copy()
        hold.release()
        released = time.perf_counter() - began
        into = StoreFolder(folder, None, lambda _: None)
        keeper.store.dump(hold, into)
        into.seal()
    finally:
        hold.close()
    shutil.rmtree(work)
    return folder, (released, time.perf_counter() - began)


def _pauses(live: Path, room: Path, rounds: int, dimension: int) -> None:
    keeper = Keeper(live, room / "busy")
    pauses = []
    with writing(live, dimension=dimension, batch=200, sync=1000) as writer:
        for _ in range(rounds):
            writer.wait_for(2)
            folder, record, _ = keeper.backup()
            pauses.append(record.pause_ms / 1000)
            shutil.rmtree(folder)
            keeper.previous = None
        writer.wait_for(1)
    print(f"writers paused, with one writing: median {statistics.median(pauses):.3f} s, longest {max(pauses):.3f} s (n = {len(pauses)})")
    print(f"slowest add of that writer: {writer.slowest_s:.3f} s")


def _line(name: str, seconds: list[float], base: float) -> None:
    middle = statistics.median(seconds)
    print(f"{name:48} median {middle:6.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})  {middle / base:5.2f} x")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

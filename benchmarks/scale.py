"""Large stores and many of them: one SQLite file of a gigabyte, 100,000 small files, a stack of 20 stores.

    python -m benchmarks.scale [--rounds 5] [--megabytes 1000] [--files 100000] [--stores 20]

Every side syncs before its time ends. `cp`, `rsync` and `sqlite3 .backup` read nothing back.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.keeping import Keeping
from benchmarks.measuring import Found, Timing, command, compared, figure, fresh, in_turn, run, show, timed
from storekeeper.host import durable

__all__ = ["TITLE", "measure", "show"]
TITLE = "Scale"
_ROW_BYTES = 1_000
_SMALL_STORE_MB = 2


def measure(rounds: int = 5, megabytes: int = 1_000, files: int = 100_000, stores: int = 20) -> Found:
    rows: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-", dir="/var/tmp") as place:
        for name, part in (("sqlite", _sqlite), ("files", _files), ("stores", _stores)):
            room, size = Path(place, name), {"sqlite": megabytes, "files": files, "stores": stores}[name]
            room.mkdir()
            if size:
                rows += part(room, rounds, size)
            durable.remove_tree(room)
    return {"rows": rows, "sizes": {"megabytes": megabytes, "files": files, "stores": stores}}


def _sqlite(room: Path, rounds: int, megabytes: int) -> list[Found]:
    live = make_database(room / "live.db", megabytes)
    ours, copy = _Ours(room / "ours", {"rows": {"kind": "sqlite", "path": live}}), room / "copy.db"

    def theirs(number: int) -> Timing:  # noqa: ARG001
        copy.unlink(missing_ok=True)
        return timed(lambda: run(["sqlite3", live, f".backup {copy}"]), os.sync)

    found = in_turn(rounds, {"ours": ours.first, "theirs": theirs})
    return [compared(f"SQLite, {megabytes:,} MB", found["ours"], "`sqlite3 .backup` and `sync`", found["theirs"])]


def _files(room: Path, rounds: int, files: int) -> list[Found]:
    live = make_files(room / "live", files)
    ours = _Ours(room / "ours", {"notes": {"kind": "files", "path": live}})

    def copied(*words: str) -> Timing:
        target = fresh(room / "copy")
        return timed(lambda: run([*words, f"{live}/", target]), os.sync)

    sides = {"ours": ours.first, "cp": lambda _: copied("cp", "-a"), "rsync": lambda _: copied("rsync", "-a")}
    found = in_turn(rounds, sides)
    again = [ours.again(number) for number in range(rounds)]
    what = f"{files:,} files of 64 to 4,096 bytes"
    return [
        compared(f"{what}, first backup", found["ours"], "`cp -a` and `sync`", found["cp"]),
        compared(f"{what}, first backup", found["ours"], "`rsync -a` and `sync`", found["rsync"]),
        compared(f"{what}, nothing changed", again, "our first backup", found["ours"]),
        figure(f"{what}, verify", [ours.verify().seconds for _ in range(rounds)], "s"),
    ]


def _stores(room: Path, rounds: int, stores: int) -> list[Found]:
    declared: dict[str, dict[str, Any]] = {}
    for number in range(stores):
        path = make_database(room / f"live-{number}.db", _SMALL_STORE_MB, seed=number)
        declared[f"store{number}"] = {"kind": "sqlite", "path": path}
    together = _Ours(room / "together", declared)
    alone = [_Ours(room / f"alone-{name}", {name: words}) for name, words in declared.items()]

    def one_by_one(number: int) -> Timing:
        each = [one.first(number) for one in alone]
        return Timing(*(sum(getattr(timing, name) for timing in each) for name in ("seconds", "own_s", "others_s")))

    found = in_turn(rounds, {"ours": together.first, "alone": one_by_one})
    what = f"one stack of {stores} SQLite stores of {_SMALL_STORE_MB} MB"
    return [compared(what, found["ours"], f"{stores} stacks of one store, one after the other", found["alone"])]


class _Ours:
    def __init__(self, root: Path, stores: Mapping[str, Mapping[str, Any]]) -> None:
        self._root = root
        self._stores = stores

    def first(self, number: int) -> Timing:
        self._keeping = Keeping(fresh(self._root), self._stores)
        os.sync()
        return self.again(number)

    def again(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._keeping.verb("backup", "bench"), os.sync)

    def verify(self) -> Timing:
        return timed(lambda: self._keeping.verb("verify", "bench"))


def make_database(path: Path, megabytes: int, seed: int = 0) -> Path:
    """Rows of a kilobyte that do not repeat, in WAL mode, with an index."""
    dense = random.Random(seed)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table messages (id integer primary key, thread integer, said text)")
        rows = ((number // 50, dense.randbytes(_ROW_BYTES // 2).hex()) for number in range(megabytes * 1_000_000 // _ROW_BYTES))
        connection.executemany("insert into messages (thread, said) values (?, ?)", rows)
        connection.execute("create index of_thread on messages (thread)")
    return path


def make_files(root: Path, files: int) -> Path:
    """A hundred in a directory."""
    dense = random.Random(7)
    for number in range(files):
        folder = root / f"{number // 10_000:03}" / f"{number // 100:05}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"note-{number:07}.md").write_bytes(dense.randbytes(32 * (1 + number % 64)).hex().encode())
    os.sync()
    return root


if __name__ == "__main__":
    command(__doc__, measure)

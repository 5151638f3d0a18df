"""A stack of three stores against borgmatic, which backs the same stores up through its hooks, and against restic over dumps.

    python -m benchmarks.mixed [--rounds 5] [--rows 55000] [--files 2000]

All sides sync before their time ends. borgmatic is measured with nothing compressed, neither by borg nor by pg_dump, and with its
defaults; restic with its defaults over uncompressed dumps. Ours decodes what it wrote before it is done, in the first run and in every
later one; theirs do not. A restore of ours takes a safety set, stages beside, compares and switches; theirs write over what is live.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks import postgresql
from benchmarks.keeping import Keeping
from benchmarks.measuring import Found, Timing, bytes_of, command, compared, fresh, in_turn, show, timed, weighed
from benchmarks.rivals import Borgmatic, Restic
from tests.harness.postgresql import Server

__all__ = ["TITLE", "measure", "show"]
TITLE = "Three stores: PostgreSQL, SQLite, files"
BACKUP_GOAL, VERIFY_GOAL, RESTORE_GOAL = 0.5, 0.4, 0.7
DAYS = 5
_FILE_BYTES = 95_000
_SQLITE_ROWS, _SQLITE_ROW_BYTES = 90_000, 1_000


def measure(rounds: int = 5, rows: int = 55_000, files: int = 2_000, sqlite_rows: int = _SQLITE_ROWS) -> Found:
    with postgresql.serving(tcp=True) as (server, room):
        live = Live(server, room / "live")
        live.fill(rows, sqlite_rows, files)
        sides: dict[str, Sided] = {
            "ours": _Ours(room, live),
            "none": Borgmatic(room / "borgmatic-none", live, "none"),
            "default": Borgmatic(room / "borgmatic-default", live, None),
            "restic": Restic(room / "restic", live),
        }
        found = [
            *_rows("backup into an empty repository", in_turn(rounds, {name: side.first for name, side in sides.items()}), BACKUP_GOAL),
            *_rows("verify all of it", in_turn(rounds, {name: side.verify for name, side in sides.items()}), VERIFY_GOAL),
            *_rows("a second backup, nothing changed", in_turn(rounds, {name: side.again for name, side in sides.items()}), None),
            *_rows("restore everything", in_turn(rounds, {name: side.restore for name, side in sides.items()}), RESTORE_GOAL),
            *_space(live, sides),
        ]
        return {"rows": found, "sizes": live.sizes()}


@dataclass(frozen=True)
class Live:
    """What is backed up."""

    server: Server
    root: Path

    @property
    def database(self) -> Path:
        return self.root / "app.db"

    @property
    def papers(self) -> Path:
        return self.root / "papers"

    def fill(self, rows: int, sqlite_rows: int, files: int) -> None:
        """Rows and vectors without a graph index, whose building would hide the rest of a restore; text; files as dense as PDFs are."""
        postgresql.fill(self.server, rows, 384, index=False)
        self.papers.mkdir(parents=True)
        dense = random.Random(1)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute("create table messages (id integer primary key, said text)")
            texts = ((dense.randbytes(_SQLITE_ROW_BYTES // 2).hex(),) for _ in range(sqlite_rows))
            connection.executemany("insert into messages (said) values (?)", texts)
        for number in range(files):
            folder = self.papers / f"{number // 100:03}"
            folder.mkdir(exist_ok=True)
            (folder / f"paper-{number:05}.pdf").write_bytes(dense.randbytes(_FILE_BYTES))
        os.sync()

    def change(self, day: int) -> None:
        """A hundredth of the rows and of the files are other ones."""
        self.server.run(f"update chunks set body = md5(body) || body where id % 100 = {day}", postgresql.DATABASE)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("update messages set said = hex(randomblob(?)) where id % 100 = ?", (_SQLITE_ROW_BYTES // 2, day))
        for number, paper in enumerate(sorted(self.papers.rglob("*.pdf"))):
            if number % 100 == day:
                paper.write_bytes(random.Random(day * 100_000 + number).randbytes(_FILE_BYTES))
        os.sync()

    def sizes(self) -> dict[str, int]:
        size = int(self.server.ask(f"select pg_database_size('{postgresql.DATABASE}')"))
        return {"postgresql_bytes": size, "sqlite_bytes": self.database.stat().st_size, "files_bytes": bytes_of(self.papers)}


class _Ours:
    name = "Storekeeper"

    def __init__(self, room: Path, live: Live) -> None:
        self._room = room
        self._live = live
        self.renew()

    @property
    def repository(self) -> Path:
        return self._keeping.repository

    def renew(self) -> None:
        stores = {
            "rows": postgresql.declared(self._live.server),
            "messages": {"kind": "sqlite", "path": self._live.database},
            "papers": {"kind": "files", "path": self._live.papers},
        }
        self._keeping = Keeping(fresh(self._room / "ours"), stores)

    def first(self, number: int) -> Timing:
        self.renew()
        return self.again(number)

    def again(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._keeping.verb("backup", "bench"), os.sync)

    def verify(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._keeping.verb("verify", "bench"))

    def restore(self, number: int) -> Timing:  # noqa: ARG002
        words = ("restore", "bench", "latest", "--yes", "--nobody-uses", "papers")
        timing = timed(lambda: self._keeping.verb(*words), os.sync)
        postgresql.drop_old_sides(self._live.server)
        return timing


Sided = _Ours | Borgmatic | Restic


def _rows(what: str, timings: dict[str, list[Timing]], goal: float | None) -> Iterator[Found]:
    yield compared(what, timings["ours"], "borgmatic, nothing compressed", timings["none"], goal=goal)
    yield compared(what, timings["ours"], "borgmatic, its defaults", timings["default"])
    yield compared(what, timings["ours"], "restic over uncompressed dumps", timings["restic"])


def _space(live: Live, sides: dict[str, Sided]) -> Iterator[Found]:
    for side in sides.values():
        side.renew()
    for day in range(DAYS):
        live.change(day)
        for side in sides.values():
            side.again(day)
    sizes = {name: bytes_of(side.repository) / 1e6 for name, side in sides.items()}
    what = f"what {DAYS} daily sets take, a hundredth changed each day"
    yield weighed(what, sizes["ours"], "borgmatic, nothing compressed", sizes["none"])
    yield weighed(what, sizes["ours"], "borgmatic, its defaults", sizes["default"])
    yield weighed(what, sizes["ours"], "restic over uncompressed dumps", sizes["restic"])


if __name__ == "__main__":
    command(__doc__, measure)

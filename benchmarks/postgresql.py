"""A backup and a restore of one PostgreSQL store against pg_dump and pg_restore as they come, on the same rows.

    python -m benchmarks.postgresql [--rows 100000] [--dimensions 384] [--rounds 5] [--restores 5]

Ours is the whole command: hold, dump, digests, fsync, read back, decode, publish; for a restore the safety set, the load into a
database beside, the comparison and the swap. The other is the archive that `pg_dump -Fc` makes by default, and `pg_restore` into a
new database, on a server whose settings are stock: its 64 MB of maintenance_work_mem are too few for the graph index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.keeping import Keeping
from benchmarks.measuring import Found, Timing, command, compared, figure, in_turn, run, show, timed, weighed
from storekeeper.host import durable
from tests.harness.postgresql import Server, reachable_directory, start_server

__all__ = ["TITLE", "measure", "show"]
TITLE = "PostgreSQL"
SETTINGS = ("shared_buffers=512MB",)
BACKUP_GOAL, SIZE_GOAL = 0.3, 1.0
DATABASE = "bench"


def measure(rounds: int = 5, rows: int = 100_000, dimensions: int = 384, restores: int = 5, major: int = 18) -> Found:
    with serving(major) as (server, room):
        fill(server, rows, dimensions)
        keeping = Keeping(room / "ours", {"rows": declared(server)})
        trial = _Trial(server, room, keeping)
        backups = in_turn(rounds, {"ours": trial.our_backup, "theirs": trial.their_backup})
        held = f"{rows:,} rows with text, {dimensions}-dimensional vectors and an HNSW index"
        found = [
            compared(f"backup of {held}", backups["ours"], "`pg_dump -Fc`, its defaults", backups["theirs"], goal=BACKUP_GOAL),
            weighed("what it takes on disk", trial.our_bytes / 1e6, "`pg_dump -Fc`, its defaults", trial.their_bytes / 1e6, goal=SIZE_GOAL),
        ]
        if restores:
            loads = in_turn(restores, {"ours": trial.our_restore, "theirs": trial.their_restore})
            found.append(compared("restore over the same rows", loads["ours"], "`pg_restore`, stock settings", loads["theirs"]))
            found.append(figure("how long the live name led nowhere", trial.downtimes_s, "s"))
        return {"rows": found, "sizes": {"rows": rows, "dimensions": dimensions}, "postgresql": major}


@contextmanager
def serving(major: int = 18, *, tcp: bool = False) -> Iterator[tuple[Server, Path]]:
    """A server that syncs, and an empty directory on its file system where its user may read."""
    room = reachable_directory("storekeeper-benchmark-")
    try:
        with start_server(room, major=major, fsync=True, tcp=tcp, settings=SETTINGS) as server:
            yield server, room
    finally:
        durable.remove_tree(room)


def declared(server: Server, database: str = DATABASE) -> dict[str, Any]:
    words = {"kind": "postgresql", "database": database, "user": "postgres", "admin": {"user": "postgres"}}
    return {**words, "host": server.socket, "port": server.port, "programs": server.programs}


def fill(server: Server, rows: int, dimensions: int, *, index: bool = True) -> None:
    """Text of about 700 characters that does not repeat, and random vectors under a graph index: what a vector database holds."""
    server.run(f"create database {DATABASE}")
    server.run(
        "set maintenance_work_mem = '1GB';"
        f"create extension vector; create table chunks (id bigint primary key, body text, embedding vector({dimensions}));"
        "insert into chunks select i, (select string_agg(md5((i * 31 + g)::text), ' ') from generate_series(1, 21) g),"
        f" (select array_agg(random() * 2 - 1) from generate_series(1, {dimensions}) g where i > 0)::vector"
        f" from generate_series(1, {rows}) i;" + ("create index on chunks using hnsw (embedding vector_cosine_ops)" if index else ""),
        DATABASE,
    )
    server.run("vacuum analyze chunks", DATABASE)
    server.run("checkpoint")


def client(server: Server, program: str, *words: str | Path) -> list[str | Path]:
    return [server.programs / program, "-h", server.socket, "-p", str(server.port), "-U", "postgres", *words]


def drop_old_sides(server: Server) -> None:
    """Room for the next restore: `prune` would remove what was live when its time is over."""
    for name in str(
        server.ask("select coalesce(string_agg(datname, ' '), '') from pg_database where datname ~ '_old_[0-9a-f]{8}$'")
    ).split():
        server.run(f'drop database "{name}" with (force)')


class _Trial:
    def __init__(self, server: Server, room: Path, keeping: Keeping) -> None:
        self._server = server
        self._archive = room / "default.dump"
        self._keeping = keeping
        self.our_bytes = 0
        self.their_bytes = 0
        self.downtimes_s: list[float] = []

    def our_backup(self, number: int) -> Timing:  # noqa: ARG002
        timing, document = self._keeping.backup()
        self.our_bytes = document["result"]["set"]["bytes"]
        return timing

    def their_backup(self, number: int) -> Timing:  # noqa: ARG002
        self._archive.unlink(missing_ok=True)
        timing = timed(lambda: run(client(self._server, "pg_dump", "-Fc", "-f", self._archive, DATABASE)))
        self.their_bytes = self._archive.stat().st_size
        return timing

    def our_restore(self, number: int) -> Timing:  # noqa: ARG002
        timing, document = self._keeping.timed("restore", "bench", "latest", "--yes")
        self.downtimes_s += [each["downtime_s"] for each in document["result"]["stores"].values()]
        drop_old_sides(self._server)
        return timing

    def their_restore(self, number: int) -> Timing:  # noqa: ARG002
        self._server.run("drop database if exists other")
        self._server.run("create database other")
        timing = timed(lambda: run(client(self._server, "pg_restore", "-d", "other", self._archive)))
        self._server.run("drop database other")
        return timing


if __name__ == "__main__":
    command(__doc__, measure)

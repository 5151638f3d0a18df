"""The peak memory of the program as people start it, and data of any size for it to keep."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.chroma import execute
from tests.harness.postgresql import Server
from tests.harness.program import CHECKOUT, Program

VERBS = ("backup", "verify", "prove", "restore")
LOCKS = ["max_locks_per_transaction=2000"]  # of a server, for the kind with many tables
# VmHWM is that of the program's own address space alone. ru_maxrss would not do for it: a new process has the peak of the one that
# forked it, here a large pytest. For the programs that it started ru_maxrss tells the largest, or the program itself when that is
# larger, for the same reason.
_MEASURED = """
import resource, sys
{before}
from storekeeper.cli.main import main
code = main(sys.argv[2:])
with open("/proc/self/status") as status:
    own = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
with open(sys.argv[1], "w") as file:
    file.write(f"{own} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
sys.exit(code)
"""


@dataclass(frozen=True)
class Peak:
    """Megabytes: of the program, and of the largest process of its run."""

    own: float
    largest: float


@dataclass(frozen=True)
class Kind:
    """What a store is filled with: `fill` makes so many of it at `live`, and returns the store's declaration."""

    title: str
    unit: str
    fill: Callable[[Path, int], str]
    small: int  # in every run of the tests; ten times as many are the other size
    large: int  # in the campaign, and in what is published


def measured(program: Program, *words: str, before: str = "") -> Peak:
    """Run a verb to its good end and say what it took at most. `before` is carried out in the program first."""
    told = program.root / "peak"
    argv = [sys.executable, "-c", _MEASURED.replace("{before}", before), str(told), "--config", str(program.config), *words, "--json"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=CHECKOUT, env=environment)
    if done.returncode not in (0, 4):
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout} {done.stderr}")
    own, largest = (int(number) / 1024 for number in told.read_text().split())
    return Peak(round(own, 1), round(max(own, largest), 1))


def peaks(root: Path, kind: Kind, count: int, verbs: Sequence[str] = VERBS, before: str = "") -> dict[str, Peak]:
    """The peak of each verb over one stack of one store, filled with so many."""
    root.mkdir()
    root.chmod(0o755)
    try:
        program = Program(root / "host")
        program.declare(f"stack: demo\nstores:\n  main: {kind.fill(root / 'live', count)}\n")
        words = {"restore": ("latest", "--yes", "--nobody-uses", "main")}
        return {verb: measured(program, verb, "demo", *words.get(verb, ()), before=before) for verb in verbs}
    finally:
        shutil.rmtree(root)


def rows(live: Path, count: int) -> str:
    live.mkdir()
    with closing(sqlite3.connect(live / "main.db")) as database, database:
        database.execute("create table papers (id integer primary key, title text, body text)")
        database.execute("create index by_title on papers (title)")
        database.executemany("insert into papers (title, body) values (?, ?)", ((f"title {n}", f"{n:08} " * 25) for n in range(count)))
    return f"{{kind: sqlite, path: {live}/main.db}}"


def rows_with_log(live: Path, count: int) -> str:
    declared = rows(live, count)
    with closing(sqlite3.connect(live / "main.db")) as database:
        database.execute("pragma journal_mode=wal")
    return declared


def tables(live: Path, count: int) -> str:
    live.mkdir()
    with closing(sqlite3.connect(live / "main.db")) as database, database:
        for number in range(count):
            database.execute(f"create table papers_{number} (id integer primary key, title text)")
            database.execute(f"insert into papers_{number} (title) values ('title')")
    return f"{{kind: sqlite, path: {live}/main.db}}"


def files(live: Path, count: int) -> str:
    for number in range(count):
        folder = live / f"{number // 100:05}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"paper-{number:07}.pdf").write_bytes(b"%d" % number)
    return f"{{kind: files, path: {live}}}"


def one_directory(live: Path, count: int) -> str:
    live.mkdir()
    for number in range(count):
        (live / f"paper-{number:07}.pdf").write_bytes(b"%d" % number)
    return f"{{kind: files, path: {live}}}"


def megabytes_in_files(live: Path, count: int) -> str:
    live.mkdir()
    block = os.urandom(1 << 20)
    for number in range(4):
        with open(live / f"film-{number}", "wb") as file:
            file.writelines(block for _ in range(count // 4))
    return f"{{kind: files, path: {live}}}"


_VECTORS = """
papers, count, dimension = collection("papers", sync=5000, ef=10, neighbours=4), arguments["vectors"], 64
load(papers, count, dimension)
"""


def vectors(live: Path, count: int) -> str:
    execute(live, _VECTORS, patience_s=1800.0, vectors=count)
    return f"{{kind: chroma, path: {live}, python: {sys.executable}}}"


@dataclass(frozen=True)
class Databases:
    """Kinds that need a server."""

    server: Server

    def rows(self, live: Path, count: int) -> str:
        return self._filled(f"""create table papers (id int primary key, title text, body text);
            insert into papers select n, 'title ' || n, repeat(md5(n::text), 6) from generate_series(1, {count}) n""")

    def tables(self, live: Path, count: int) -> str:
        """With a sequence each."""
        return self._filled(f"""do $$ begin for number in 1..{count} loop
            execute format('create table papers_%s (id serial primary key, title text)', number);
            execute format('insert into papers_%s (title) values (''title'')', number);
            end loop; end $$""")

    def _filled(self, statements: str) -> str:
        self.server.run("drop database if exists app with (force)")
        self.server.run("create database app")
        self.server.run(statements, "app")
        server = self.server
        return (
            f"{{kind: postgresql, database: app, user: postgres, host: {server.socket}, port: {server.port}, programs: {server.programs}}}"
        )


def kinds(server: Server) -> dict[str, Kind]:
    databases = Databases(server)
    return {
        "sqlite-rows": Kind("SQLite", "rows", rows, 10_000, 200_000),
        "sqlite-log": Kind("SQLite with a write-ahead log", "rows", rows_with_log, 10_000, 200_000),
        "sqlite-tables": Kind("SQLite", "tables", tables, 50, 500),
        "postgresql-rows": Kind("PostgreSQL", "rows", databases.rows, 10_000, 200_000),
        "postgresql-tables": Kind("PostgreSQL", "tables with a sequence each", databases.tables, 30, 200),
        "chroma": Kind("Chroma", "vectors of 64 numbers", vectors, 1000, 20_000),
        "files": Kind("files", "files in many directories", files, 500, 10_000),
        "files-flat": Kind("files", "files in one directory", one_directory, 500, 10_000),
        "files-large": Kind("files", "megabytes in four files", megabytes_in_files, 12, 100),
    }


@contextmanager
def temporary() -> Iterator[Path]:
    """A new directory that every user may pass through, in memory where the system has such a place: thousands of small files are made
    durable one by one, which takes a disk long and changes nothing here."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    root = Path(tempfile.mkdtemp(prefix="sk-mem-", dir=place))
    root.chmod(0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root)

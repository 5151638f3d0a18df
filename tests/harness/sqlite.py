"""Real SQLite files for tests, and real programs that use them meanwhile: a writer, a reader that never ends, a stopped holder."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storekeeper.stack.model import SqliteModel
from storekeeper.stores.sqlite.store import SqliteStore
from storekeeper.stores.surroundings import Surroundings

ROOT = Path(__file__).parents[2]


def store_at(path: Path, directory: Path, *, patience_s: float = 5.0, nobody_uses: bool = False) -> SqliteStore:
    surroundings = Surroundings("tests", directory, directory, nobody_uses=nobody_uses)
    return SqliteStore("main", SqliteModel(kind="sqlite", path=path), surroundings, patience_s)


def make(path: Path, rows: int, *, mode: str = "delete", word: str = "row", **pragmas: object) -> Path:
    """A file with one table `papers` of that many rows."""
    with closing(sqlite3.connect(path)) as connection:
        for name, value in pragmas.items():
            connection.execute(f"pragma {name}={value!r}")
        connection.execute(f"pragma journal_mode={mode}")
        connection.execute("create table papers (id integer primary key, title text, body text)")
        connection.execute("create index by_title on papers (title)")
        connection.executemany("insert into papers (title, body) values (?, ?)", ((f"{word} {n}", "x" * 200) for n in range(rows)))
        connection.commit()
    return path


def ask(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return connection.execute(query).fetchall()


def tell(path: Path, statement: str, timeout: float = 10) -> None:
    with closing(sqlite3.connect(path, timeout=timeout)) as connection:
        connection.execute(statement)
        connection.commit()


class Program(subprocess.Popen):
    """A running program and the first line that it printed."""

    first = ""


@contextmanager
def program(source: str, *arguments: object) -> Iterator[Program]:
    """A Python program of its own; the block begins when it has printed its first line, and it is killed at the end."""
    argv = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    process = Program(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.first = process.stdout.readline()
        assert process.first, "the program ended at once"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


READER = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("begin")
    connection.execute("select count(*) from sqlite_master").fetchone()
    print("reading", flush=True)
    time.sleep(1000)
"""
OPENER = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("select count(*) from sqlite_master").fetchone()
    print("open", flush=True)
    time.sleep(1000)
"""
# Leaves three thousand committed rows that stand in the log only.
LOGGER = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("pragma wal_autocheckpoint=0")
    connection.execute("begin")
    connection.executemany("insert into papers (title, body) values (?, ?)", ((f"stale {n}", "x" * 200) for n in range(3000)))
    connection.execute("commit")
    print("written", flush=True)
    time.sleep(1000)
"""
# Inserts one row a transaction and prints its title once SQLite has acknowledged it.
WRITER = """
    import itertools, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    connection.execute("pragma synchronous=off")
    for number in itertools.count():
        connection.execute("insert into papers (title, body) values (?, '')", (f"written {number}",))
        print(f"written {number}", flush=True)
"""


@contextmanager
def writing(path: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that writes row after row; what was acknowledged stands in `log`, a title a line."""
    with open(log, "w", encoding="ascii") as acknowledged:
        argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=acknowledged)
        try:
            wait_for(lambda: log.stat().st_size > 0)
            yield process
        finally:
            process.kill()
            process.wait()


def acknowledged(log: Path) -> set[str]:
    """The titles in a writer's log; a last line that was torn when it was killed is left out."""
    return {line.decode() for line in log.read_bytes().split(b"\n")[:-1]}


# Leaves a transaction half written to the file, with the journal that undoes it.
CRASHER = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("pragma cache_size=1")
    connection.execute("begin")
    connection.execute("update papers set body = upper(body)")
    print("half", flush=True)
    time.sleep(1000)
"""


def crash_into(path: Path) -> None:
    """Have a program killed in the middle of a transaction, when half of it is in the file already."""
    with program(CRASHER, path):
        pass
    assert path.with_name(path.name + "-journal").stat().st_size > 0


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)

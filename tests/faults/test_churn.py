"""Rows, tables and files come and go while a set is taken: what is proven is the moment that was held."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from storekeeper.outcomes import Outcome
from storekeeper.sets.publishing import take_set
from storekeeper.verbs.prove import prove
from tests.harness.campaign import Campaign
from tests.harness.postgresql import start_server
from tests.harness.stacks import make_lab, postgresql_part

Step = Callable[[int], object]


@contextmanager
def churning(step: Step) -> Iterator[list[int]]:
    """Takes one step after the other while the block runs; the list has the number of those that were taken."""
    stop, done = threading.Event(), [0]

    def run() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            step(number)
            done[0] = number

    writer = threading.Thread(target=run)
    writer.start()
    try:
        yield done
    finally:
        stop.set()
        writer.join()


def rows_and_tables(connection: psycopg.Connection[object]) -> Step:
    """Rows change at every step, a table appears at every fortieth and vanishes later, as a migration's would."""

    def step(number: int) -> None:
        connection.execute(f"insert into things (word) values ('w{number}')")
        connection.execute("delete from things where id = (select min(id) from things)")
        if number % 40 == 5:
            connection.execute(f"create table if not exists late_{number} as select {number} as n")
        if number % 40 == 30:
            with suppress(psycopg.errors.LockNotAvailable):  # it is held: it may be dropped when the set is taken
                connection.execute(f"drop table if exists late_{number - 25}")

    connection.execute("set lock_timeout = '20ms'")
    return step


# A process of its own, as the application is: one that shares ours would lose its locks whenever we close the file.
ROWS_OF_SQLITE = """
import itertools, sqlite3, sys
rows = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for number in itertools.count():
    rows.execute("insert into things (word) values (?)", (f"w{number}",))
    rows.execute("delete from things where id = (select min(id) from things)")
"""


@contextmanager
def churning_sqlite(path: Path) -> Iterator[None]:
    """Fails the block when the writer did not live to its end."""
    writer = subprocess.Popen([sys.executable, "-c", ROWS_OF_SQLITE, str(path)])
    try:
        yield
        assert writer.poll() is None, "the application failed"
    finally:
        writer.kill()
        writer.wait()


def newest_of_sqlite(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("select max(id) from things").fetchone()[0])


@pytest.mark.fault("A17")
def test_what_comes_and_goes_during_a_backup_never_makes_a_set_that_is_not_proven(tmp_path: Path, campaign: Campaign) -> None:
    count, proven, steps = campaign.trials(2, 25), 0, 0
    with ExitStack() as opened:
        server = opened.enter_context(start_server(major=18))
        lab = make_lab(tmp_path, sqlites=1, services=0, first={"rows": postgresql_part(server)})
        opened.callback(lab.close)
        lab.write("one")
        documents = lab.root / "live/main.db"
        with closing(sqlite3.connect(documents)) as connection:
            connection.execute("pragma journal_mode = wal")
        # Connections are made here: one that is made takes the OS user of the role, and that is the whole process's.
        writers = [server.connect("app") for _ in range(count)]
        for writer in writers:
            newest = newest_of_sqlite(documents)
            with churning_sqlite(documents), churning(rows_and_tables(writer)) as done:
                entry = take_set(lab.context, purpose="backup")
            steps += min(done[0], newest_of_sqlite(documents) - newest)
            writer.close()
            proven += prove(lab.context, entry.id).outcome is Outcome.OK
            assert entry.state == "verified"
        campaign.found(count, f"backups with writers in two stores ({steps} steps at least)", f"{proven} proven equal to the moment")
    assert steps > count, "nobody wrote: nothing was tested"
    assert proven == count

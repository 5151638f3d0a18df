"""Rows, tables and files come and go while a set is taken: what is proven is the moment that was held."""

from __future__ import annotations

import itertools
import sqlite3
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
            connection.execute(f"create table late_{number} as select {number} as n")
        if number % 40 == 30:
            with suppress(psycopg.errors.LockNotAvailable):  # it is held: it may be dropped when the set is taken
                connection.execute(f"drop table if exists late_{number - 25}")

    connection.execute("set lock_timeout = '20ms'")
    return step


def rows_of_sqlite(connection: sqlite3.Connection) -> Step:
    def step(number: int) -> None:
        connection.execute("insert into things (word) values (?)", (f"w{number}",))
        connection.execute("delete from things where id = (select min(id) from things)")

    return step


@pytest.mark.fault("A17")
def test_what_comes_and_goes_during_a_backup_never_makes_a_set_that_is_not_proven(tmp_path: Path, campaign: Campaign) -> None:
    count, proven, steps = campaign.trials(2, 25), 0, 0
    with ExitStack() as opened:
        server = opened.enter_context(start_server(major=18))
        lab = make_lab(tmp_path, sqlites=1, services=0, first={"rows": postgresql_part(server)})
        opened.callback(lab.close)
        lab.write("one")
        # Connections are made here: one that is made takes the OS user of the role, and that is the whole process's.
        writers = [server.connect("app") for _ in range(count)]
        for writer in writers:
            with sqlite_writer(lab.root / "live/main.db") as table, churning(rows_and_tables(writer)) as first, churning(table) as second:
                entry = take_set(lab.context, purpose="backup")
            steps += min(first[0], second[0])
            writer.close()
            proven += prove(lab.context, entry.id).outcome is Outcome.OK
            assert entry.state == "verified"
        campaign.found(count, f"backups with writers in two stores ({steps} steps at least)", f"{proven} proven equal to the moment")
    assert steps > count, "nobody wrote: nothing was tested"
    assert proven == count


@contextmanager
def sqlite_writer(path: Path) -> Iterator[Step]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)) as connection:
        connection.execute("pragma journal_mode = wal")
        yield rows_of_sqlite(connection)

"""A database whose clients are in the middle of something when a restore switches it: they are ended, or nothing is switched."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storekeeper.outcomes import Failed, Unknown
from storekeeper.restore.plan import RestoreRequest
from storekeeper.restore.resuming import take_up
from storekeeper.restore.walk import WENT_BACK
from storekeeper.stores.postgresql import side
from storekeeper.stores.postgresql import store as postgresql
from storekeeper.stores.postgresql.connection import access_to
from storekeeper.stores.surroundings import Surroundings
from storekeeper.verbs.restore import restore
from tests.harness.campaign import Campaign
from tests.harness.databases import databases
from tests.harness.postgresql import PASSWORD, Server, start_server
from tests.harness.restoring import FIRST, LIVE, to, two_sides
from tests.harness.stacks import Lab, make_lab, postgresql_part

DATABASE = "app"
PATIENCE_S = 180.0
ROW_AND_LOCK = "begin; insert into things (word) values ('uncommitted'); lock table things in access exclusive mode"
# A vacuum of it takes minutes: a page at a time, and a pause after each.
LARGE = """
create table large (n int) with (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
insert into large select generate_series(1, 20000)
"""
KINDS = {"client backend", "parallel worker", "autovacuum worker"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18, tcp=True, settings=["autovacuum_naptime=1"]) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path, server: Server) -> Iterator[Lab]:
    """A database, declared first, a SQLite database and files."""
    made = make_lab(tmp_path, sqlites=1, services=0, first={"rows": postgresql_part(server, DATABASE)})
    server.run(LARGE, DATABASE)
    yield made
    made.close()
    for name in sorted(each for each in databases(server) if each.startswith(DATABASE)):
        server.run(f"drop database {name} with (force)")


@dataclass
class Door:
    """Knocks at the database's name without pause; `shut` is when it was not let in, from the beginning of each try to its end."""

    server: Server
    shut: list[tuple[float, float]] = field(default_factory=list)
    opened: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()
        watcher = threading.Thread(target=self._knock, args=(done,))
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    @property
    def shut_ms(self) -> float:
        return (self.shut[-1][1] - self.shut[0][0]) * 1000 if self.shut else 0.0

    def _knock(self, done: threading.Event) -> None:
        """By password: who comes over the socket takes the ids of a user, and those are the whole process's."""
        address = f"host=127.0.0.1 port={self.server.port} dbname={DATABASE} user=postgres password={PASSWORD} connect_timeout=10"
        while not done.wait(0.005):
            begun = time.monotonic()
            try:
                psycopg.connect(address).close()
                self.opened += 1
            except psycopg.OperationalError:
                self.shut.append((begun, time.monotonic()))


class Clients:
    """A transaction with a row and a lock, a long statement, one that has a worker, and an autovacuum worker, all of the live database."""

    def __init__(self, server: Server, open_until: ExitStack) -> None:
        self._server = server
        self._open_until = open_until
        self._pids: list[int] = []

    def begin(self) -> None:
        writer, asker, parallel = (self._open_until.enter_context(closing(self._server.connect(DATABASE))) for _ in range(3))
        self._server.run("update large set n = n", DATABASE)
        asker.pgconn.send_query(b"select pg_sleep(600)")
        parallel.execute("set debug_parallel_query = on")
        parallel.pgconn.send_query(b"select pg_sleep(600)")
        writer.execute(ROW_AND_LOCK)
        deadline = time.monotonic() + PATIENCE_S
        while {kind for kind, _ in self._at_work()} != KINDS:
            assert time.monotonic() < deadline, f"only {self._at_work()} are at work"
            time.sleep(0.02)
        self._pids = [pid for _, pid in self._at_work()]

    @property
    def count(self) -> int:
        return len(self._pids)

    def left(self) -> list[tuple[str, int]]:
        """Those that still live, whatever their database is called now."""
        with self._server.connect() as connection:
            found = connection.execute("select backend_type, pid from pg_stat_activity where pid = any (%s)", (self._pids,))
            return found.fetchall()

    def _at_work(self) -> list[tuple[str, int]]:
        """Without those that knock: these ask nothing."""
        with self._server.connect() as connection:
            found = connection.execute("select backend_type, pid from pg_stat_activity where datname = %s and query <> ''", (DATABASE,))
            return found.fetchall()


def before_the_switch(lab: Lab, action: Callable[[], object]) -> None:
    """Has it done once, when all is staged and the database is next, in either direction."""
    store: Any = lab.context.stores["rows"]
    waiting = [action]

    def switched(switch: Callable[..., None], *given: Any) -> None:
        while waiting:
            waiting.pop()()
        switch(*given)

    for name in ("switch", "switch_back"):
        setattr(store, name, partial(switched, getattr(type(store), name).__get__(store)))


@pytest.mark.fault("J21")
def test_clients_in_the_middle_of_anything_are_ended_and_nothing_that_they_had_not_committed_is_left(
    lab: Lab, server: Server, campaign: Campaign
) -> None:
    entry, switches = two_sides(lab), campaign.trials(2, 20)
    shut_ms: list[float] = []
    left: list[tuple[str, int]] = []
    ended = 0
    for number in range(switches):
        door = Door(server)
        with ExitStack() as opened, door.watched():
            clients = Clients(server, opened)
            before_the_switch(lab, clients.begin)
            restore(lab.context, to(entry) if number % 2 == 0 else RestoreRequest(back=True))
            left += clients.left()
            ended += clients.count
        shut_ms.append(door.shut_ms)
        assert door.opened > 0
        assert lab.all_hold(LIVE if number % 2 else FIRST), lab.sides()
    told = f"{len(left)} of {ended} left; the name led nowhere for {statistics.median(shut_ms):.0f} ms, {max(shut_ms):.0f} ms at most"
    campaign.found(switches, "switches under an open transaction, a lock, long statements, a parallel and an autovacuum worker", told)
    assert left == []
    assert 0 < max(shut_ms) < side._END_SECONDS * 1000


@pytest.mark.fault("J21")
def test_a_client_that_cannot_be_ended_keeps_the_switch_from_being_made_and_live_stays_open_as_it_was(
    lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
) -> None:
    """Its process is stopped, as one is that waits for a disk which does not answer. PostgreSQL drops no database until it goes on."""
    monkeypatch.setattr(side, "_END_SECONDS", 0.5)
    monkeypatch.setattr(side, "_DROP_SECONDS", 0.5)
    entry, door = two_sides(lab), Door(server)
    with closing(server.connect(DATABASE)) as client:
        client.execute("begin; insert into things (word) values ('uncommitted')")
        pid = client.info.backend_pid
        before_the_switch(lab, lambda: os.kill(pid, signal.SIGSTOP))
        try:
            with door.watched(), pytest.raises(Failed, match=rf"did not end within 0.5 s, such as pid {pid}.*statement timeout") as refused:
                restore(lab.context, to(entry))
            assert lab.all_hold(LIVE), lab.sides()
        finally:
            os.kill(pid, signal.SIGCONT)
    campaign.found(1, "switch of a database whose client could not be ended", f"refused; the name led nowhere for {door.shut_ms:.0f} ms")
    assert refused.value.next == "storekeeper resume demo"
    resumed = take_up(lab.context)
    assert resumed is not None
    assert resumed.how == WENT_BACK
    assert {each for each in databases(server) if each.startswith(DATABASE)} == {DATABASE}
    assert lab.all_hold(LIVE), lab.sides()


@pytest.mark.fault("J21")
def test_a_table_that_is_locked_from_the_beginning_refuses_the_restore_and_the_client_goes_on(
    lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_LOOK_SECONDS", 0.5)
    entry, before = two_sides(lab), databases(server)
    with closing(server.connect(DATABASE)) as client:
        client.execute(ROW_AND_LOCK)
        for request in (to(entry, plan=True), to(entry)):
            with pytest.raises(Unknown, match="lock timeout"):
                restore(lab.context, request)
        client.execute("rollback")
    assert databases(server) == before
    assert lab.all_hold(LIVE), lab.sides()


@pytest.mark.control("J21")
def test_control_clients_that_are_not_ended_forbid_the_rename(lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "_end_sessions", lambda *_: None)
    monkeypatch.setattr(side, "_TRIES", 1)
    entry = two_sides(lab)
    with closing(server.connect(DATABASE)) as client:
        before_the_switch(lab, lambda: client.execute("begin; insert into things (word) values ('uncommitted')"))
        with pytest.raises(Failed, match="is being accessed by other users"):
            restore(lab.context, to(entry))
        client.execute("rollback")
    assert lab.all_hold(LIVE), lab.sides()


@pytest.mark.fault("J21")
def test_a_drop_that_was_cut_off_is_ended_by_the_next(server: Server, around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL marks a database before it drops it: one that is left so, by a crash or a limit of time, cannot be altered any more."""
    names = side.names_for(DATABASE, "0123abcd")
    sides = side.Sides(access_to(str(server.socket), server.port, "postgres", None, around.private), "postgres", **names)
    server.run(f"create database {sides.side}")
    server.run(f"update pg_database set datconnlimit = -2 where datname = '{sides.side}'")
    with monkeypatch.context() as patch:
        patch.setattr(side, "_is_half_dropped", lambda *_: False)
        with pytest.raises(Failed, match="cannot alter invalid database"):
            sides.drop(sides.side)
    sides.drop(sides.side)
    assert sides.side not in databases(server)

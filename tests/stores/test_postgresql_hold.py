"""The moment of a PostgreSQL store: what may happen between the snapshot and the end of its dump, and what must never go unnoticed."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import psycopg
import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed
from storekeeper.sets.comparison import refuse_difference
from storekeeper.sets.point import one_point
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.postgresql import PostgresqlStore, build, catalogue, hold
from storekeeper.stores.postgresql.hold import SnapshotHold
from storekeeper.stores.protocol import Dumped
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server
from tests.harness.proving import content_of_copy
from tests.stores.walk import dump, take

_numbers = itertools.count()
ROWS = "create table t (id int primary key, body text); insert into t select i, md5(i::text) from generate_series(1, 1000) i;"


@pytest.fixture
def database(server: Server) -> str:
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    server.run(ROWS, name)
    return name


@pytest.fixture
def store(server: Server, database: str, around: Surroundings) -> PostgresqlStore:
    return build("main", server.declared(database), around)


def dumped(store: PostgresqlStore, held: SnapshotHold, tmp_path: Path) -> Dumped:
    into = tmp_path / f"main{next(_numbers)}"
    into.mkdir()
    return dump(store, held, StoreFolder(into, None, lambda _: None))


def truncated_in_between(store: PostgresqlStore, server: Server, database: str, tmp_path: Path) -> Dumped:
    """A dump of a held moment after which TRUNCATE was tried; the statement may wait, and is cancelled when the dump is over."""
    with one_point({"main": store.hold(tmp_path)}, Progress()), server.connect(database) as other:
        pass
    held = store.hold(tmp_path)
    with one_point({"main": held}, Progress()), server.connect(database) as other:
        other.execute("set lock_timeout = '500ms'")
        try:
            other.execute("truncate t")
        except psycopg.errors.LockNotAvailable:
            pass
        return dumped(store, held, tmp_path)


@pytest.mark.fault("A17")
def test_truncate_between_the_snapshot_and_the_dump_waits_and_no_row_is_lost(
    store: PostgresqlStore, server: Server, database: str, tmp_path: Path
) -> None:
    assert truncated_in_between(store, server, database, tmp_path).counts == {"public.t": 1000}


@pytest.mark.control("A17")
def test_control_without_the_table_locks_truncate_empties_the_dump_and_nothing_notices(
    store: PostgresqlStore, server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(self: SnapshotHold, seconds: float) -> bool:
        self.connection.execute("rollback")
        self.tables = catalogue.tables(self.connection)
        self.connection.execute("begin isolation level repeatable read")
        return True

    monkeypatch.setattr(hold.SnapshotHold, "_lock_all", without_locks)
    assert truncated_in_between(store, server, database, tmp_path).counts == {"public.t": 0}


@pytest.mark.fault("A17")
def test_rows_written_after_the_snapshot_are_not_in_the_set_and_the_proof_is_equal(
    store: PostgresqlStore, server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    """Inserts, updates and deletes all through the dump: what is proven is the moment, not the end."""
    stop = threading.Event()

    connection = server.connect(database)  # not in the thread: it takes the OS user of the role, and that is the whole process's

    def churn() -> None:
        with connection:
            for number in itertools.count(2000):
                if stop.is_set():
                    return
                connection.execute(
                    f"insert into t values ({number}, 'new'); delete from t where id = {number - 1500};"
                    "update t set body = 'x' where id % 7 = 0"
                )

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        folder, record = take(store, tmp_path)
    finally:
        stop.set()
        writer.join()
    scratch = around.scratch / "churned"
    scratch.mkdir()
    refuse_difference(content_of_copy(store, folder, record, scratch), record, "the proof")


@pytest.mark.fault("A17")
def test_a_sequence_that_moves_during_the_dump_is_proven_to_stand_in_between(
    store: PostgresqlStore, server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    server.run("create sequence s; select nextval('s')", database)
    held = store.hold(tmp_path)
    with one_point({"main": held}, Progress()):
        server.run("select nextval('s') from generate_series(1, 10)", database)
        found = dumped(store, held, tmp_path)
    assert found.counts == {"public.t": 1000}


def test_a_session_that_is_ended_during_the_dump_fails_the_store(
    store: PostgresqlStore, server: Server, database: str, tmp_path: Path
) -> None:
    held = store.hold(tmp_path)
    with one_point({"main": held}, Progress()):
        server.run(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}' and pid <> pg_backend_pid()")
        with pytest.raises(Failed, match=r"could not be read|lost"):
            dumped(store, held, tmp_path)


def test_timeouts_of_the_database_and_the_role_do_not_end_the_hold(
    server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    server.run(f"create role hasty login superuser; alter database {database} set idle_in_transaction_session_timeout = '1ms'")
    for setting in ("statement_timeout = '1ms'", "transaction_timeout = '200ms'", "lock_timeout = '1ms'"):
        server.run(f"alter role hasty set {setting}")
    store = build("main", server.declared(database, "hasty"), around)
    held = store.hold(tmp_path)
    with one_point({"main": held}, Progress()):
        server.ask("select pg_sleep(0.3)")
        assert dumped(store, held, tmp_path).counts == {"public.t": 1000}


def test_control_such_a_timeout_does_end_a_session_that_does_not_set_its_own(server: Server, database: str) -> None:
    server.run(f"alter database {database} set idle_in_transaction_session_timeout = '1ms'")
    connection = server.connect(database)
    connection.execute("begin; select pg_export_snapshot()")
    server.ask("select pg_sleep(0.3)")
    with pytest.raises(psycopg.Error):
        connection.execute("select 1")
    connection.close()


@pytest.mark.fault("A14")
def test_a_table_that_somebody_holds_exclusively_fails_the_store_within_its_bound_and_names_the_holder(
    server: Server, database: str, around: Surroundings
) -> None:
    store = build("main", server.declared(database), around)
    held = SnapshotHold(store._access, database, lock_seconds=0.3)
    with server.connect(database) as other:
        other.execute("begin; lock table t in access exclusive mode")
        with pytest.raises(Failed, match=rf"no lock within 0\.3 s: somebody holds public\.t \(pid {other.info.backend_pid}\) exclusively"):
            held.prepare()
        waiting = server.ask("select count(*) from pg_locks where not granted")
        held.close()
        assert waiting == 0


@pytest.mark.fault("A17")
def test_a_table_made_between_the_locks_and_the_snapshot_is_locked_too(
    store: PostgresqlStore, server: Server, database: str, tmp_path: Path
) -> None:
    held = store.hold(tmp_path)
    try:
        held.prepare()
        server.run("create table late (id int); insert into late values (1)", database)
        held.pin()
        locked = server.ask("select count(*) from pg_locks where relation = 'late'::regclass and mode = 'AccessShareLock'", database)
        assert locked == 1
        assert dumped(store, held, tmp_path).counts == {"public.late": 1, "public.t": 1000}
    finally:
        held.close()


@pytest.mark.fault("A17")
def test_a_table_that_goes_away_while_it_is_looked_at_is_no_table_that_may_not_be_read(
    store: PostgresqlStore, server: Server, database: str
) -> None:
    server.run("create table going (id int)", database)
    with store._access.session(database) as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select 1")
        server.run("drop table going", database)
        seen = catalogue.tables(connection)
        assert [table.readable for table in seen if table.name == "going"] == [None]  # the server's own answer for what is gone
        assert [table.name for table in catalogue.require_readable(seen)] == ["t"]


@pytest.mark.fault("A17")
def test_tables_that_keep_appearing_fail_the_store_and_are_named(
    store: PostgresqlStore, server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_all = SnapshotHold._lock_all

    def lock_then_somebody_creates(self: SnapshotHold, seconds: float) -> bool:
        done = lock_all(self, seconds)
        server.run(f"create table late{next(_numbers)} (id int)", database)
        return done

    monkeypatch.setattr(SnapshotHold, "_lock_all", lock_then_somebody_creates)
    held = store.hold(tmp_path)
    try:
        held.prepare()
        with pytest.raises(Failed, match=r"tables appeared .* 10 times in a row: public\.late"):
            held.pin()
    finally:
        held.close()


def test_a_hold_that_is_closed_leaves_no_session_and_no_lock(store: PostgresqlStore, server: Server, database: str, tmp_path: Path) -> None:
    held = store.hold(tmp_path)
    held.prepare()
    held.pin()
    held.close()
    held.close()
    server.ask("select pg_sleep(0.1)")
    assert server.ask(f"select count(*) from pg_stat_activity where datname = '{database}'") == 0

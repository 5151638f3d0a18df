"""Swapping a restored PostgreSQL database in: clients that come back at once, crashes at any step, and what forbids it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stack.model import Admin
from storekeeper.stack.types import SecretReference
from storekeeper.stores.postgresql import PostgresqlStore, build, side
from storekeeper.stores.surroundings import Surroundings
from tests.harness.campaign import Campaign
from tests.harness.postgresql import PASSWORD, Server, start_server
from tests.stores.walk import Crash, Journal, Taken, take_whole

_numbers = itertools.count()
_tokens = (f"{number:08x}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18, tcp=True, settings=["wal_level=logical", "max_prepared_transactions=5"]) as running:
        yield running


class Live:
    """A database with one row more than the set that was taken of it."""

    def __init__(self, server: Server, around: Surroundings, directory: Path, **declared: Any) -> None:
        self.server = server
        self.database = f"db{next(_numbers)}"
        server.run(f"create database {self.database}")
        server.run("create table t (id int); insert into t values (1), (2)", self.database)
        self.store: PostgresqlStore = build("main", server.declared(self.database, **declared), around)
        self.taken: Taken = take_whole(self.store, directory / "sets")
        server.run("insert into t values (3)", self.database)
        self.place = self.store.place(next(_tokens), None)
        self.log = Journal()

    @property
    def rows(self) -> int:
        return int(self.server.ask("select count(*) from t", self.database))

    def stage(self) -> None:
        refuse_difference(self.store.stage(self.taken.folder, self.taken.record, self.place), self.taken.record, "the stage")


@pytest.fixture
def live(server: Server, around: Surroundings, tmp_path: Path) -> Live:
    return Live(server, around, tmp_path)


@pytest.mark.parametrize("begun", ["for another place", "and given up"])
def test_what_was_begun_for_another_stage_or_was_given_up_is_not_gone_on_with(live: Live, begun: str) -> None:
    place = live.place if begun == "and given up" else live.store.place(next(_tokens), None)
    with live.store.begin_stage(live.taken.folder, live.taken.record, place):
        if begun == "for another place":
            live.stage()
    if begun == "and given up":
        live.stage()
    live.store.discard_stage(place)


@contextmanager
def hammering(server: Server, database: str) -> Iterator[dict[str, int]]:
    """Two clients that connect, ask, and connect again without pause."""
    told, stop = {"asked": 0, "refused": 0}, threading.Event()
    address = {"host": "127.0.0.1", "port": server.port, "dbname": database, "user": "postgres", "password": PASSWORD}

    def hammer() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(**address, connect_timeout=5) as connection:
                    while not stop.is_set():
                        connection.execute("select count(*) from t")
                        told["asked"] += 1
            except psycopg.Error:
                told["refused"] += 1

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def over_tcp(server: Server, directory: Path) -> dict[str, Any]:
    """By password: other threads connect meanwhile, and taking the OS user of a role is for the whole process."""
    path = directory / "secret"
    path.write_text(PASSWORD)
    path.chmod(0o600)
    return {
        "host": "127.0.0.1",
        "password": SecretReference(file=path),
        "admin": Admin(user="postgres", password=SecretReference(file=path)),
    }


@pytest.mark.fault("E-7")
def test_clients_that_reconnect_at_once_do_not_keep_the_swap_from_happening(
    server: Server, around: Surroundings, tmp_path: Path, campaign: Campaign
) -> None:
    live = Live(server, around, tmp_path, **over_tcp(server, tmp_path))
    live.stage()
    with hammering(server, live.database) as told:
        swaps = campaign.trials(11, 31)
        for number in range(swaps):
            (live.store.switch_back if number % 2 else live.store.switch)(live.place, live.log)
    campaign.found(
        swaps, "swaps under clients that connect again at once", f"{told['asked']:,} questions answered, {told['refused']:,} refused"
    )
    assert live.rows == 2
    assert told["asked"] > 0
    assert told["refused"] > 0


@pytest.mark.control("E-7")
def test_control_without_closing_the_database_clients_that_reconnect_forbid_the_rename(
    server: Server, around: Surroundings, tmp_path: Path
) -> None:
    live = Live(server, around, tmp_path, **over_tcp(server, tmp_path))
    with hammering(server, live.database), server.connect() as admin:
        for _ in range(200):  # now and then nobody has come back yet
            try:
                admin.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{live.database}'")
                admin.execute(f"alter database {live.database} rename to elsewhere")
                admin.execute(f"alter database elsewhere rename to {live.database}")
            except psycopg.errors.ObjectInUse:
                return
    pytest.fail("200 renames under clients that reconnect all went well: the test of the swap shows nothing")


def crash_at(step: str, work: Any, live: Live) -> Journal:
    """Have `work` end as by SIGKILL before it closes the database, before it renames, or before it opens the database again."""
    journal = Journal(fuse={"closed": 0, "renamed": 1}.get(step))
    with pytest.MonkeyPatch.context() as patch:
        if step == "reopened":
            patch.setattr(side.Sides, "_reopen", crash)
        with pytest.raises(Crash):
            work(live.place, journal)
    journal.fuse = None
    return journal


def crash(*_: object) -> None:
    raise Crash("reopened")


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("step", ["closed", "renamed", "reopened"])
def test_a_crash_at_any_step_of_the_swap_is_taken_up_in_either_direction(live: Live, step: str) -> None:
    live.stage()
    for finish, rows in ((live.store.switch, 2), (live.store.switch_back, 3)):
        live.store.switch_back(live.place, live.log)
        journal = crash_at(step, live.store.switch, live)
        finish(live.place, journal)
        assert live.rows == rows
    for finish, rows in ((live.store.switch_back, 3), (live.store.switch, 2)):
        live.store.switch(live.place, live.log)
        journal = crash_at(step, live.store.switch_back, live)
        finish(live.place, journal)
        assert live.rows == rows


@pytest.mark.control("E-1")
def test_control_a_crash_after_closing_does_leave_the_database_closed_until_it_is_taken_up(live: Live) -> None:
    live.stage()
    with pytest.raises(Crash):
        live.store.switch(live.place, Journal(fuse=1))
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        live.server.connect(live.database)
    live.store.switch_back(live.place, live.log)
    assert live.rows == 3


def test_a_rename_that_fails_leaves_the_live_database_open_and_as_it_was(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    live.stage()

    def fail(*_: object) -> None:
        raise Failed("no rename today")

    monkeypatch.setattr(side, "_rename", fail)
    with pytest.raises(Failed, match="no rename today"):
        live.store.switch(live.place, live.log)
    assert live.rows == 3


@pytest.mark.fault("E-8")
@pytest.mark.parametrize(
    ("make", "undo", "words"),
    [
        ("begin; insert into t values (9); prepare transaction 'stuck'", "rollback prepared 'stuck'", "prepared transaction stuck"),
        (
            "select pg_create_logical_replication_slot('feed', 'pgoutput')",
            "select pg_drop_replication_slot('feed')",
            "replication slot feed",
        ),
        (
            "create subscription sub connection 'host=/nonexistent' publication p with (connect = false)",
            "alter subscription sub disable; alter subscription sub set (slot_name = none); drop subscription sub",
            "subscription sub",
        ),
    ],
)
def test_what_holds_the_database_and_is_no_session_is_refused_and_named(live: Live, make: str, undo: str, words: str) -> None:
    live.store.foresee(live.taken.folder, live.taken.record, None)
    live.stage()
    with live.server.connect(live.database) as connection:
        for statement in make.split("; "):
            connection.execute(statement)
    try:
        with pytest.raises(Refused, match=words):
            live.store.foresee(live.taken.folder, live.taken.record, None)
        with pytest.raises(Failed, match=words):
            live.store.switch(live.place, live.log)
        assert live.log.notes == []
        assert live.rows == 3
    finally:
        with live.server.connect(live.database) as connection:
            for statement in undo.split("; "):
                connection.execute(statement)


@pytest.mark.fault("E-11")
def test_a_set_from_a_newer_server_is_refused_with_both_versions(live: Live) -> None:
    newer = replace(live.taken.record, version="19.1")
    with pytest.raises(Refused, match=r"taken from PostgreSQL 19\.1, this server is 18\.[0-9]+"):
        live.store.foresee(live.taken.folder, newer, None)


@pytest.mark.fault("E-11", "J15")
@pytest.mark.parametrize(("version", "words"), [("0.9.9", "which has version"), ("0.8.5", "")])
def test_pgvector_older_than_the_set_needs_is_refused(live: Live, version: str, words: str) -> None:
    import json  # noqa: PLC0415

    document = live.taken.folder / "database.json"
    document.chmod(0o600)
    recorded = json.loads(document.read_text())
    recorded["extensions"].append({"name": "vector", "version": version, "schema": "public", "schema_owner": "pg_database_owner"})
    document.write_text(json.dumps(recorded))
    if not words:
        live.store.foresee(live.taken.folder, live.taken.record, None)
        return
    with pytest.raises(Refused, match=f"extension vector {version}, {words}") as refused:
        live.store.foresee(live.taken.folder, live.taken.record, None)
    assert refused.value.next == "apt-get install postgresql-18-pgvector"


def owned_by_a_plain_role(server: Server, statements: str) -> tuple[str, str]:
    role, database = f"owner{next(_numbers)}", f"db{next(_numbers)}"
    server.run(f"create role {role} login password '{PASSWORD}'")
    server.run(f"create database {database} owner {role}")
    server.run(statements, database)
    with server.connect(database, role) as connection:
        connection.execute("create table t (id int); insert into t values (1)")
    return role, database


@pytest.mark.fault("J16")
def test_a_role_without_the_rights_is_refused_and_told_all_that_it_lacks(server: Server, around: Surroundings, tmp_path: Path) -> None:
    role, database = owned_by_a_plain_role(server, "create extension vector")
    secrets = over_tcp(server, tmp_path)
    store = build("main", server.declared(database, role, host="127.0.0.1", password=secrets["password"]), around)
    taken = take_whole(store, tmp_path / "sets")
    with pytest.raises(Refused, match=rf"role {role} may not make databases, may not make the extensions vector"):
        store.foresee(taken.folder, taken.record, None)


@pytest.mark.fault("J16")
def test_a_declared_administrator_makes_what_the_owner_may_not_and_all_still_belongs_to_the_owner(
    server: Server, around: Surroundings, tmp_path: Path
) -> None:
    role, database = owned_by_a_plain_role(server, "create extension vector")
    store = build("main", server.declared(database, role, **over_tcp(server, tmp_path)), around)
    taken = take_whole(store, tmp_path / "sets")
    store.foresee(taken.folder, taken.record, None)
    place = store.place(next(_tokens), None)
    refuse_difference(store.stage(taken.folder, taken.record, place), taken.record, "the stage")
    store.switch(place, Journal())
    store.probe(place, taken.record)
    assert server.ask("select tableowner from pg_tables where tablename = 't'", database) == role
    assert server.ask(f"select pg_get_userbyid(datdba) from pg_database where datname = '{database}'") == role


def test_an_owner_who_may_make_databases_restores_without_an_administrator(server: Server, around: Surroundings, tmp_path: Path) -> None:
    role, database = owned_by_a_plain_role(server, "select 1")
    server.run(f"alter role {role} createdb")
    secrets = over_tcp(server, tmp_path)
    store = build("main", server.declared(database, role, host="127.0.0.1", password=secrets["password"]), around)
    taken = take_whole(store, tmp_path / "sets")
    store.foresee(taken.folder, taken.record, None)
    place = store.place(next(_tokens), None)
    store.stage(taken.folder, taken.record, place)
    store.switch(place, Journal())
    store.probe(place, taken.record)
    store.discard_old(place)


def test_a_probe_finds_a_live_database_that_is_not_what_was_restored(live: Live) -> None:
    live.store.probe(live.place, live.taken.record)
    live.server.run("truncate t", live.database)
    with pytest.raises(Failed, match="is empty"):
        live.store.probe(live.place, live.taken.record)
    live.server.run("drop table t", live.database)
    with pytest.raises(Failed, match=r"has no public\.t"):
        live.store.probe(live.place, live.taken.record)


def test_a_restore_that_fails_half_way_leaves_the_live_database_alone_and_its_stage_can_be_removed(live: Live) -> None:
    [archive] = live.taken.folder.glob("database.dump*")
    archive.chmod(0o600)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(Failed):
        live.store.stage(live.taken.folder, live.taken.record, live.place)
    assert live.rows == 3
    live.store.discard_stage(live.place)
    assert live.server.ask(f"select count(*) from pg_database where datname = '{live.place['side']}'") == 0


def test_only_a_database_that_a_restore_made_is_ever_dropped(live: Live) -> None:
    with pytest.raises(Refused):
        live.store.discard_old({**live.place, "old": live.database})
    with pytest.raises(Refused):
        live.store.discard_stage({**live.place, "side": "template1"})
    assert live.rows == 3


@pytest.mark.fault("E-15")
def test_a_function_in_the_set_runs_as_its_owner_not_as_the_administrator(server: Server, around: Surroundings, tmp_path: Path) -> None:
    """A hostile set: a function in an index that makes its caller's role a superuser, if the caller may."""
    role, database = owned_by_a_plain_role(server, "select 1")
    with server.connect(database, role) as connection:
        connection.execute(
            f"create function grab(n int) returns int language plpgsql immutable as $$ begin"
            f" begin execute 'alter role {role} superuser'; exception when others then null; end; return n; end $$;"
            "create index on t (grab(id))"
        )
    store = build("main", server.declared(database, role, **over_tcp(server, tmp_path)), around)
    taken = take_whole(store, tmp_path / "sets")
    store.stage(taken.folder, taken.record, store.place(next(_tokens), None))
    assert server.ask(f"select rolsuper from pg_roles where rolname = '{role}'") is False

"""A database of so many tables that a server has no room to lock all that is made of them in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.postgresql import PostgresqlStore, build, loading, scratch
from storekeeper.stores.postgresql.recorded import recorded_in
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server, start_server
from tests.harness.proving import content_of_copy
from tests.stores.walk import Journal, Taken, take_whole

TABLES = 600
_FEW_LOCKS = ["-c", "max_connections=20", "-c", "max_locks_per_transaction=10"]  # enough to read so many tables, not to make them


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as running:
        running.run("create database app")
        with running.connect("app") as connection:
            for number in range(TABLES):
                connection.execute(f"create table papers_{number} as select {number} as id, 'title' as title")
        yield running


@pytest.fixture(scope="module")
def store(server: Server, around: Surroundings) -> PostgresqlStore:
    return build("main", server.declared("app"), around)


@pytest.fixture(scope="module")
def taken(server: Server, store: PostgresqlStore, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Of a server that has room; from then on it has little."""
    found = take_whole(store, tmp_path_factory.mktemp("many") / "sets")
    server.stop()
    server.options += _FEW_LOCKS
    server.start()
    return found


def test_it_is_restored_in_many_transactions_where_one_would_not_hold_its_locks(
    server: Server, store: PostgresqlStore, taken: Taken
) -> None:
    place = store.place("00000001", None)
    refuse_difference(store.stage(taken.folder, taken.record, place), taken.record, "the stage")
    store.switch(place, Journal())
    assert server.ask("select count(*) from pg_class where relkind = 'r' and relname like 'papers%'", "app") == TABLES
    store.discard_old(place)


def test_control_in_one_transaction_its_locks_do_not_fit(store: PostgresqlStore, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_fits_one_transaction", lambda *_: True)
    place = store.place("00000002", None)
    with pytest.raises(Failed, match="out of shared memory"):
        store.stage(taken.folder, taken.record, place)
    store.discard_stage(place)


def test_a_few_tables_are_still_restored_in_one_transaction(server: Server, around: Surroundings, tmp_path: Path) -> None:
    server.run("create database few")
    server.run("create table papers as select 1 as id", "few")
    store = build("main", server.declared("few"), around)
    taken = take_whole(store, tmp_path / "sets")
    with server.connect() as connection:
        assert loading._fits_one_transaction(connection, recorded_in(taken.folder, taken.record, server.programs).archive.list())


def test_the_scratch_server_has_room_for_all_the_tables_of_the_set(
    store: PostgresqlStore, taken: Taken, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_LEAST_LOCKS", 10)
    monkeypatch.setattr(loading, "_fits_one_transaction", lambda *_: True)
    refuse_difference(content_of_copy(store, taken.folder, taken.record, around.scratch), taken.record, "what was restored")


def test_control_without_that_room_a_good_set_would_be_called_unprovable(
    store: PostgresqlStore, taken: Taken, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scratch._launch
    monkeypatch.setattr(loading, "_fits_one_transaction", lambda *_: True)
    monkeypatch.setattr(scratch, "_launch", lambda programs, home, sockets, user, _: real(programs, home, sockets, user, 10))
    with pytest.raises(Failed, match="out of shared memory"):
        content_of_copy(store, taken.folder, taken.record, around.scratch)

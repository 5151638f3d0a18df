"""The mark of a query's place in PostgreSQL is another after every change that the query could tell."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import psycopg
import pytest

from storekeeper.stores.identities import Remarks, RowsSource, SqlSource
from storekeeper.stores.postgresql.store import PostgresqlStore
from tests.harness.postgresql import Server, start_server, surroundings

ROWS = RowsSource("documents", "id")
QUERY = SqlSource("select id, owner from documents where state = 'done'", ("id", "owner"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(settings=["autovacuum=off"]) as started:
        yield started


@pytest.fixture
def store(server: Server) -> Iterator[PostgresqlStore]:
    server.run("drop database if exists marks with (force)")
    server.run("create database marks")
    server.run("create table documents (id int primary key, owner text, state text, at timestamptz default now())", "marks")
    server.run("insert into documents select n, 'a', 'done' from generate_series(1, 50) n", "marks")
    with surroundings() as around:
        yield PostgresqlStore("records", server.declared("marks"), around)


def settled(store: PostgresqlStore, source: SqlSource | RowsSource = QUERY) -> str:
    found = store.mark(source)
    assert found is not None
    return found


def held(store: PostgresqlStore, source: SqlSource | RowsSource = QUERY) -> list[str]:
    return sorted(each.id for each in store.identities(source, Remarks()))


@pytest.mark.parametrize("source", [QUERY, ROWS], ids=["a query", "rows"])
def test_reading_leaves_the_mark_as_it_is(store: PostgresqlStore, source: SqlSource | RowsSource) -> None:
    first = settled(store, source)
    assert len(held(store, source)) == 50
    assert settled(store, source) == first


CHANGES = {
    "a row": "update documents set state = 'failed' where id = 7",
    "a row with its old value": "update documents set state = state where id = 7",
    "all of them": "truncate documents",
    "another table under the name": "alter table documents rename to old; create table documents (id int, owner text, state text)",
    "a right": "create role somebody; grant select on documents to somebody; drop owned by somebody; drop role somebody",
    "a change in another database": None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_transaction_that_changes_anything_changes_the_mark(store: PostgresqlStore, server: Server, change: str) -> None:
    first = settled(store)
    statement = CHANGES[change]
    server.run(statement or "create role elsewhere; drop role elsewhere", "marks" if statement else "postgres")
    assert settled(store) != first


def test_what_is_not_committed_has_no_part_in_it_until_it_is(store: PostgresqlStore, server: Server) -> None:
    """The transaction began, and wrote, long before the mark was taken."""
    with server.connect("marks") as writer:
        writer.autocommit = False
        writer.execute("delete from documents where id = 7")
        first, there = settled(store), held(store)
        assert settled(store) == first
        writer.commit()
    assert settled(store) != first
    assert len(held(store)) == len(there) - 1


def test_one_that_was_prepared_in_two_phases_too(server: Server) -> None:
    with start_server(settings=["max_prepared_transactions=2", "autovacuum=off"]) as own, surroundings() as around:
        own.run("create table documents (id int primary key, owner text, state text); insert into documents values (1, 'a', 'done')")
        found = PostgresqlStore("records", own.declared("postgres"), around)
        own.run("begin; delete from documents; prepare transaction 'later'")
        own.run("create table unrelated (a int)")  # later numbers are given and over
        first = settled(found)
        assert held(found) == ["1"]
        own.run("commit prepared 'later'")
        assert settled(found) != first
        assert held(found) == []


def test_a_server_that_was_started_again_has_another_mark(store: PostgresqlStore, server: Server) -> None:
    first = settled(store)
    server.stop()
    server.start()
    assert settled(store) != first


_SAME = "select pg_current_snapshot()::text, pg_postmaster_start_time(), pg_conf_load_time()"


def test_a_crash_that_takes_a_commit_back_and_gives_its_number_to_another_is_seen(store: PostgresqlStore, server: Server) -> None:
    """The server goes on by itself, and all else that the mark is made of can come out the same."""
    with server.connect("marks") as writer:
        writer.execute("set synchronous_commit = off")
        writer.execute("checkpoint")
        writer.execute("update documents set state = 'failed' where id = 7")
        first, there = settled(store), writer.execute(_SAME).fetchone()
        os.kill(writer.info.backend_pid, signal.SIGKILL)
    again = None
    deadline = time.monotonic() + 30
    while again is None and time.monotonic() < deadline:
        with contextlib.suppress(psycopg.Error), server.connect("marks") as writer:
            while (now := writer.execute(_SAME).fetchone())[0] != there[0]:
                assert int(now[0].split(":")[1]) < int(there[0].split(":")[1])
                writer.execute("update documents set state = 'other' where id = 8")
            again = store.mark(QUERY)
    assert now == there
    assert again not in (None, first)


UNSAYABLE = {
    "the time": "select id, owner from documents where at > now() - interval '1 hour'",
    "a word for it": "select id, owner from documents where at::date = current_date",
    "a text that is read as a moment": "select id, owner from documents where state::timestamptz < at",
    "chance": "select id, owner from documents where random() < 0.5",
    "a sequence": "select last_value, 'a' from numbers",
    "what is not logged": "select id, owner from unlogged",
    "a function's own words": "select id, owner from documents where chosen(id)",
    "a view with one": "select id, owner from picked",
    "a table that a policy hides parts of": "select id, owner from hidden",
    "an operator of its own": "select id, owner from documents where id <~> 3",
    "how many": "select id, owner from documents limit (extract(epoch from now())::int % 7)",
}
_MADE = """
create sequence numbers;
create unlogged table unlogged (id int, owner text);
create function chosen(int) returns boolean language plpgsql volatile as 'begin return random() < 0.5; end';
create view picked as select * from documents where chosen(id);
create table hidden (id int, owner text);
alter table hidden enable row level security;
alter table hidden force row level security;
create policy lately on hidden using (now() > '2020-01-01'::timestamptz);
grant select on all tables in schema public to reader;
"""


@pytest.mark.parametrize("asked", UNSAYABLE)
def test_what_no_transaction_tells_of_has_no_mark(store: PostgresqlStore, server: Server, asked: str) -> None:
    server.run("do $$ begin if to_regrole('reader') is null then create role reader login; end if; end $$")
    server.run(_MADE, "marks")
    if "operator" in asked:
        server.run(
            "create function near(int, int) returns boolean language plpgsql volatile as 'begin return random() < 0.5; end'", "marks"
        )
        server.run("create operator <~> (leftarg = int, rightarg = int, function = near)", "marks")
    source = SqlSource(UNSAYABLE[asked], ("id", "owner"))
    with surroundings() as around:
        reader = PostgresqlStore("records", server.declared("marks", "reader"), around)
        assert [reader.mark(source) for _ in range(5)] == [None] * 5
        if "operator" not in asked:
            settled(reader)


@pytest.mark.parametrize(
    "query",
    [
        "select id, upper(owner) from documents where state in ('done', 'x') and coalesce(owner, '') <> ''",
        "select d.id, max(e.owner) from documents d left join documents e on e.id = d.id group by d.id having count(*) > 0",
        "with found as (select * from documents) select id, owner from found union all select id, owner from documents",
    ],
)
def test_usual_queries_have_one(store: PostgresqlStore, query: str) -> None:
    source = SqlSource(query, ("id", "owner"))
    assert settled(store, source) == settled(store, source)


def test_a_database_that_is_not_there_has_none(server: Server) -> None:
    with surroundings() as around:
        nowhere = PostgresqlStore("records", server.declared("nowhere"), around)
        assert nowhere.mark(QUERY) is None

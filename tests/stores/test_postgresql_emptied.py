"""A database with its schema and no rows, made from a live server and loaded beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Refused
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.surroundings import Surroundings
from tests.harness.databases import fresh, opened, place_of
from tests.harness.postgresql import Server, start_server
from tests.stores.walk import Journal, empty

SCHEMA = """
create extension vector;
create schema "odd.name";
create role reader;
create type state as enum ('new', 'done');
create table alembic_version (number text primary key);
create table users (id serial primary key, name text not null unique);
create table "odd.name"."Docs ""x y" (
    id bigint generated always as identity (start 100 increment 5), of int references users, v vector(3), s state);
create table parts (day date not null, n int) partition by range (day);
create table parts_old partition of parts for values from ('2020-01-01') to ('2025-01-01');
create unlogged table cache (k text);
create sequence tickets start 7;
create materialized view totals as select count(*) n from users;
create view named as select name from users;
create index on "odd.name"."Docs ""x y" using hnsw (v vector_l2_ops);
create function told() returns trigger language plpgsql as $$ begin raise exception 'no rows come'; end $$;
grant select on users to reader;
insert into alembic_version values ('0007');
insert into users (name) select 'secret ' || i from generate_series(1, 200) i;
insert into "odd.name"."Docs ""x y" (of, v, s) select i, array[i, 1, 2]::vector, 'new' from generate_series(1, 100) i;
insert into parts values ('2021-01-01', 1);
insert into cache values ('x');
select nextval('tickets'), nextval('tickets');
select lo_from_bytea(0, 'secret bytes');
refresh materialized view totals;
create trigger told after delete on users for each row execute function told();
"""


@pytest.fixture(scope="module", params=[16, 18])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_server(major=request.param) as running:
        yield running
        running.run("select 1")


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    name = fresh(server, SCHEMA)
    yield name
    server.run(f"drop database {name} with (force)")
    server.run("drop role if exists reader")


def switched(server: Server, database: str, around: Surroundings, room: Path, *keep: str) -> Any:
    store = opened(server, database, around)
    folder, record = empty(store, room / "reset", *keep)
    place, log = place_of(store), Journal()
    store.foresee(folder, record, None)
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    store.switch(place, log)
    store.probe(place, record)
    return lambda: (store.switch_back(place, log), store.discard_stage(place))


def test_an_emptied_database_has_no_rows_new_numbers_and_all_the_rest(
    server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    go_back = switched(server, database, around, tmp_path, "alembic_version")
    ask = lambda query: server.ask(query, database)  # noqa: E731
    assert ask("select number from alembic_version") == "0007"
    for table in ("users", '"odd.name"."Docs ""x y"', "parts", "cache", "named", "pg_largeobject_metadata"):
        assert ask(f"select count(*) from {table}") == 0, table
    assert ask("select n from totals") == 0, "a materialized view is filled anew"
    assert ask("select has_table_privilege('reader', 'users', 'select')") is True
    assert ask("select count(*) from pg_trigger where tgname = 'told'") == 1
    assert ask("select nextval('tickets')") == 7
    assert ask("insert into users (name) values ('anew') returning id") == 1
    assert ask("""insert into "odd.name"."Docs ""x y" (of, v) values (1, '[1,2,3]') returning id""") == 100
    assert ask("""select id from "odd.name"."Docs ""x y" order by v <-> '[1,2,3]' limit 1""") == 100
    go_back()
    assert (ask("select count(*) from users"), ask("select count(*) from pg_largeobject_metadata")) == (200, 1)


def test_kept_rows_stay_with_the_sequences_that_number_them(server: Server, database: str, around: Surroundings, tmp_path: Path) -> None:
    go_back = switched(server, database, around, tmp_path, "public.users")
    assert server.ask("select count(*) from users", database) == 200
    assert server.ask("insert into users (name) values ('anew') returning id", database) == 201
    assert server.ask("select nextval('tickets')", database) == 7
    assert server.ask("select n from totals", database) == 200
    go_back()


def test_the_configuration_of_an_extension_stays(server: Server, database: str, around: Surroundings, tmp_path: Path) -> None:
    store = opened(server, database, around)
    folder, record = empty(store, tmp_path / "reset")
    shape = [json.loads(line) for line in (folder / "shape.jsonl").read_text().splitlines()]
    assert any(words[:2] == ["extension", "vector"] for words in shape)
    assert set(record.counts) == {"public.alembic_version", "public.users", '"odd.name"."Docs ""x y"', "public.parts_old", "public.cache"}


@pytest.mark.parametrize("keep", ["nosuch", "public.named", "parts"])
def test_a_kept_table_that_is_not_there_is_refused(server: Server, database: str, around: Surroundings, tmp_path: Path, keep: str) -> None:
    with pytest.raises(Refused, match=f"the rows of {keep} are to be kept, and there is no such table with rows of its own"):
        empty(opened(server, database, around), tmp_path / "reset", keep)

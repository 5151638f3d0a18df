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


def switched(server: Server, database: str, around: Surroundings, room: Path, *keep: str | None) -> Any:
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


IN_A_SCHEMA = SCHEMA.replace(
    "create extension vector;",
    "create schema extensions; create extension vector schema extensions; set search_path = public, extensions;",
)
OUTSIDE = """
create role writer;
revoke all on schema public from public;
grant usage on schema public to reader;
grant usage on schema extensions to reader;
comment on schema public is 'kept';
alter default privileges in schema public grant select on tables to reader;
alter default privileges in schema "odd.name" grant select on tables to reader;
create table extensions.of_the_application (a int);
create function seen() returns event_trigger language plpgsql as $$ begin end $$;
create event trigger every on ddl_command_end execute function seen();
"""


@pytest.fixture
def provisioned(server: Server) -> Iterator[str]:
    """A database with what is given to it from outside: rights, settings, an extension in a schema of its own."""
    name = fresh(server, IN_A_SCHEMA)
    server.run(OUTSIDE, name)
    server.run(f"alter database {name} set work_mem = '9MB'; grant create on database {name} to writer")
    yield name
    server.run(f"drop database {name} with (force)")
    server.run("drop role reader; drop role writer")


def test_a_database_that_is_left_bare_has_what_it_was_given_and_nothing_of_the_application(
    server: Server, provisioned: str, around: Surroundings, tmp_path: Path
) -> None:
    database = provisioned
    ask = lambda query: server.ask(query, database)  # noqa: E731
    given = {
        "extensions": "select string_agg(concat_ws(' ', extname, extversion, extnamespace::regnamespace), ',') from pg_extension",
        "rights on public": "select nspacl::text from pg_namespace where nspname = 'public'",
        "rights on that of an extension": "select nspacl::text from pg_namespace where nspname = 'extensions'",
        "comment": "select obj_description('public'::regnamespace, 'pg_namespace')",
        "rights of what comes": "select string_agg(defaclacl::text, ',') from pg_default_acl where defaclnamespace = 2200",
        "encoding and locale": "select concat_ws(' ', encoding, datcollate, datctype) from pg_database where datname = current_database()",
        "owner and rights": "select concat_ws(' ', datdba::regrole, datacl) from pg_database where datname = current_database()",
        "settings": "show work_mem",
    }
    before = {what: ask(query) for what, query in given.items()}
    go_back = switched(server, database, around, tmp_path, None)
    assert {what: ask(query) for what, query in given.items()} == before
    assert ask("select has_schema_privilege('public', 'public', 'usage')") is False
    for catalogue, name, schema in (("pg_class", "relname", "relnamespace"), ("pg_proc", "proname", "pronamespace")):
        of_extension = "exists (select from pg_depend d where d.objid = c.oid and deptype = 'e')"
        ours = f"{schema} in (2200, 'extensions'::regnamespace) and not {of_extension}"
        assert ask(f"select string_agg({name}, ',') from {catalogue} c where {ours}") is None
    assert ask("select to_regtype('state')") is None
    assert ask("select string_agg(nspname, ',') from pg_namespace where nspname = 'odd.name'") is None
    assert ask("select count(*) from pg_event_trigger") == 0
    assert ask("select count(*) from pg_largeobject_metadata") == 0
    server.run("create table users (id int, v extensions.vector(2))", database)
    assert ask("select has_table_privilege('reader', 'users', 'select')") is True
    go_back()
    assert ask("select count(*) from users") == 200

"""Digests of rows: the same for the same rows whatever the session says, another for any change."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from storekeeper.stores.postgresql import catalogue, digests
from storekeeper.stores.postgresql.connection import access_to
from storekeeper.stores.protocol import Content
from tests.harness.postgresql import Server

_numbers = itertools.count()
MIXED = """
create table t (id int, at timestamptz, span interval, number double precision, raw bytea, cash money, note text, v vector(2));
insert into t values (1, '2025-01-09 03:00:00.123456+00', '1 year 2 mons 3 days 04:05:06',
    0.1::float8 + 0.2, '\\x00ff', 1234.5, 'a', '[1,2]'),
    (2, null, null, 'NaN', null, null, null, null), (3, 'infinity', '0', '-0', '', 0, '', '[0,-1e-9]');
"""


@pytest.fixture
def database(server: Server) -> str:
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    server.run("create extension vector;" + MIXED, name)
    return name


def content(server: Server, database: str, tmp_path: Path) -> Content:
    access = access_to(str(server.socket), server.port, "postgres", None, tmp_path)
    with access.session(database) as connection:
        connection.execute("begin isolation level repeatable read")
        return digests.content(connection, catalogue.tables(connection))


def test_no_setting_of_the_database_or_the_role_changes_a_digest(server: Server, database: str, tmp_path: Path) -> None:
    before = content(server, database, tmp_path)
    for setting in (
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -10",
        "bytea_output = 'escape'",
        "search_path = 'elsewhere'",
        "lc_monetary = 'C.UTF-8'",
    ):
        server.run(f"alter database {database} set {setting}")
    assert content(server, database, tmp_path) == before


def test_control_those_settings_do_change_the_text_of_a_row(server: Server, database: str) -> None:
    before = server.ask("select t::text from t where id = 1", database)
    server.run(f"alter database {database} set timezone = 'Asia/Kolkata'; alter database {database} set extra_float_digits = -10")
    assert server.ask("select t::text from t where id = 1", database) != before


def test_the_order_of_rows_does_not_matter(server: Server, database: str, tmp_path: Path) -> None:
    before = content(server, database, tmp_path)
    server.run("create table u as select * from t order by id desc; drop table t; alter table u rename to t", database)
    assert content(server, database, tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        "update t set number = 0.3 where id = 1",
        "update t set v = '[1,2.0000002]' where id = 1",
        "update t set v = '[0,0]' where id = 2",
        "update t set note = '' where id = 2",
        "update t set note = null where id = 3",
        "update t set raw = '\\x' where id = 2",
        "update t set at = at + interval '1 microsecond' where id = 1",
        "insert into t select * from t where id = 2",
        "delete from t where id = 3",
        "update t set id = 3 - id where id in (1, 2)",
        "truncate t",
    ],
)
def test_any_change_of_a_row_changes_the_digest(server: Server, database: str, tmp_path: Path, change: str) -> None:
    before = content(server, database, tmp_path)
    server.run(change, database)
    assert content(server, database, tmp_path).digests["public.t"] != before.digests["public.t"]


def test_values_that_change_places_between_columns_or_rows_change_the_digest(server: Server, tmp_path: Path) -> None:
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    server.run("create table t (a text, b text); insert into t values ('x', 'y'), ('1', '2')", name)
    before = content(server, name, tmp_path)
    server.run("update t set a = b, b = a where a = 'x'", name)
    swapped = content(server, name, tmp_path)
    server.run("truncate t; insert into t values ('x', '2'), ('1', 'y')", name)
    assert len({each.digests["public.t"] for each in (before, swapped, content(server, name, tmp_path))}) == 3


def test_a_byte_of_a_large_object_counts(server: Server, tmp_path: Path) -> None:
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    server.run("select lo_from_bytea(1, repeat('a', 2500000)::bytea)", name)
    before = content(server, name, tmp_path)
    server.run("select lo_put(1, 2400000, 'b')", name)
    after = content(server, name, tmp_path)
    assert before.counts == after.counts == {catalogue.LARGE_OBJECTS: 1}
    assert before.digests != after.digests


def test_many_rows_are_added_up_in_pieces_without_losing_one(server: Server, tmp_path: Path) -> None:
    """More rows than are parsed at once, counted against the server's own count and against the same rows in two halves."""
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    server.run("create table t as select i from generate_series(1, 50021) i", name)
    before = content(server, name, tmp_path)
    assert before.counts == {"public.t": 50021}
    server.run(
        "create table u as select * from t where i % 2 = 0; insert into u select * from t where i % 2 = 1; drop table t;"
        "alter table u rename to t",
        name,
    )
    assert content(server, name, tmp_path) == before

"""A database with its schema and no rows: everything but rows is as it was, and works."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Refused
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stack.model import SqliteModel
from storekeeper.stores import databases, emptied
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sqlite import contents
from tests.stores.kinds import _open
from tests.stores.walk import Journal, empty

SCHEMA = """
create table users (id integer primary key autoincrement, name text not null unique, age int check (age > 0));
create table "odd [name]" (a blob primary key, b generated always as (length(a)) stored) without rowid;
create table documents (id text primary key, owner references users (id) on delete cascade, body text);
create table versions (number text primary key) strict;
create virtual table words using fts5 (body, content='documents', content_rowid='rowid');
create virtual table own using fts5 (title, tokenize='trigram');
create virtual table boxes using rtree (id, x0, x1);
create index by_owner on documents (owner) where owner is not null;
create view named as select name, count(*) n from users left join documents on owner = users.id group by 1;
create trigger told after insert on documents begin insert into words (rowid, body) values (new.rowid, new.body); end;
create trigger through instead of insert on named begin insert into users (name) values (new.name); end;
"""


def make(path: Path, shape: Iterable[str] = ()) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (*shape, "application_id=77", "user_version=42"):
            connection.execute(f"pragma {pragma}")
        connection.executescript(SCHEMA)
        connection.executemany("insert into users (name) values (?)", [(f"user {number}",) for number in range(50)])
        connection.execute("delete from users where id > 40")
        connection.executemany("insert into documents values (?, ?, ?)", [(f"d{n}", n % 40 + 1, f"secret words {n}") for n in range(500)])
        connection.execute("insert into \"odd [name]\" values (x'00ff')")
        connection.execute("insert into own values ('secret title')")
        connection.execute("insert into boxes values (1, 0, 1)")
        connection.executemany("insert into versions values (?)", [("0001",), ("0002",)])
        connection.execute("analyze")
    return path


def emptied_of(path: Path, room: Path, *keep: str) -> tuple[Path, StoreRecord, Any]:
    store = _open("main", SqliteModel(kind="sqlite", path=path), room)
    folder, record = empty(store, room / "reset", *keep)
    return folder / "database.sqlite", record, store


def schema(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "select type, name, tbl_name, sql from sqlite_master where name not like 'sqlite_stat%' order by 1, 2"
        ).fetchall()


@pytest.mark.parametrize(
    "shape",
    [(), ("page_size=1024", "encoding='UTF-16le'"), ("page_size=8192", "auto_vacuum=2"), ("journal_mode=wal",)],
    ids=["plain", "small pages in UTF-16", "incremental vacuum", "wal"],
)
def test_an_emptied_database_has_the_schema_and_the_shape_of_the_live_one_and_no_rows(tmp_path: Path, shape: tuple[str, ...]) -> None:
    live = make(tmp_path / "live.db", shape)
    before = live.read_bytes()
    made, record, store = emptied_of(live, tmp_path)
    assert live.read_bytes() == before
    assert schema(made) == schema(live)
    with closing(databases.open_sealed(made)) as one, closing(databases.open_read_only(live)) as other:
        assert contents.header(one) == contents.header(other)
        for table in ("users", "documents", "versions", "own", "words", "boxes", '"odd [name]"', "sqlite_sequence"):
            assert one.execute(f"select count(*) from {table}").fetchone() == (0,), table
    assert b"secret" not in made.read_bytes()
    assert "secret".encode("utf-16-le") not in made.read_bytes()
    assert record.counts["users"] == 0
    assert record.details["journal_mode"] == ("wal" if "journal_mode=wal" in shape else "delete")
    place = store.place("0123abcd", None)
    refuse_difference(store.stage(made.parent, record, place), record, "the stage")


def test_what_is_made_empty_works(tmp_path: Path) -> None:
    made, _, _ = emptied_of(make(tmp_path / "live.db"), tmp_path)
    made.chmod(0o600)
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.execute("insert into named (name) values ('anew')")
        assert connection.execute("select id from users").fetchall() == [(1,)], "numbers begin anew"
        connection.execute("insert into documents values ('d', 1, 'found again')")
        assert connection.execute("select count(*) from words where words match 'again'").fetchone() == (1,)
        connection.execute("insert into own values ('a title')")
        assert connection.execute("select count(*) from own where own match 'title'").fetchone() == (1,)
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("insert into words (words) values ('integrity-check')").fetchall() == []


def test_rows_that_are_kept_stay_with_their_numbers_and_what_indexes_them(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db")
    made, record, _ = emptied_of(live, tmp_path, "versions", "users", "documents")
    with closing(sqlite3.connect(made)) as one, closing(sqlite3.connect(live)) as other:
        for query in (
            "select * from versions order by 1",
            "select id, name, age from users order by 1",
            "select rowid, * from documents order by 1",
            "select * from sqlite_sequence",
            "select count(*) from words where words match 'secret'",
        ):
            assert one.execute(query).fetchall() == other.execute(query).fetchall(), query
        assert one.execute("select count(*) from own").fetchone() == (0,)
    assert (record.counts["users"], record.counts["documents"]) == (40, 500)


@pytest.mark.parametrize(
    ("keep", "said"),
    [("nosuch", "there is no such table"), ("own", "has no rows of its own"), ("sqlite_sequence", "no rows"), ("named", "no such table")],
)
def test_rows_that_cannot_be_kept_are_refused(tmp_path: Path, keep: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        emptied_of(make(tmp_path / "live.db"), tmp_path, keep)


def test_a_virtual_table_whose_module_is_not_here_is_refused(tmp_path: Path) -> None:
    live = make(tmp_path / "live.db")
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.execute("pragma writable_schema=on")
        connection.execute("insert into sqlite_master values ('table', 'points', 'points', 0, 'create virtual table points using vec0(x)')")
    with pytest.raises(Refused, match="points is a virtual table, and SQLite has no such module here"):
        emptied_of(live, tmp_path)


def test_a_schema_that_comes_out_otherwise_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptied, "execute", lambda made, name, statement: made.execute(statement.replace("not null", "null")))
    with pytest.raises(Exception, match="came out otherwise"):
        emptied_of(make(tmp_path / "live.db"), tmp_path)


@pytest.mark.parametrize(
    "shape",
    [(), ("page_size=1024", "encoding='UTF-16le'"), ("page_size=8192", "auto_vacuum=2"), ("journal_mode=wal",)],
    ids=["plain", "small pages in UTF-16", "incremental vacuum", "wal"],
)
def test_a_database_that_is_left_bare_has_the_shape_of_the_live_one_and_nothing_of_the_application(
    tmp_path: Path, shape: tuple[str, ...]
) -> None:
    live = make(tmp_path / "live.db", shape)
    before = live.read_bytes()
    store = _open("main", SqliteModel(kind="sqlite", path=live), tmp_path)
    folder, record = empty(store, tmp_path / "reset", None)
    assert live.read_bytes() == before
    with closing(databases.open_sealed(folder / "database.sqlite")) as made, closing(databases.open_read_only(live)) as other:
        assert made.execute("select * from sqlite_master").fetchall() == []
        for name in ("page_size", "encoding", "auto_vacuum"):
            assert made.execute(f"pragma {name}").fetchone() == other.execute(f"pragma {name}").fetchone(), name
        assert [made.execute(f"pragma {name}").fetchone() for name in ("application_id", "user_version")] == [(0,), (0,)]
    assert record.counts == {}
    assert record.details["journal_mode"] == ("wal" if "journal_mode=wal" in shape else "delete")
    place, log = store.place("0123abcd", None), Journal()
    store.foresee(folder, record, None)
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    store.switch(place, log)
    store.probe(place, record)
    with closing(sqlite3.connect(live)) as connection:
        assert connection.execute("select count(*) from sqlite_master").fetchone() == (0,)
        assert connection.execute("pragma journal_mode").fetchone() == (record.details["journal_mode"],)
        connection.execute("create table users (id integer primary key)")
    store.switch_back(place, log)
    assert schema(live) == schema_of(before, tmp_path)


def schema_of(contents: bytes, room: Path) -> list[Any]:
    (room / "as-it-was.db").write_bytes(contents)
    return schema(room / "as-it-was.db")

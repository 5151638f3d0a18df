"""restore --document and prove on a real PostgreSQL server: rows that refer to each other, uploads, and what nobody declared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack.rules import Rows
from storekeeper.stores.mending import Piece, Wanted
from storekeeper.stores.postgresql import mending
from storekeeper.stores.postgresql.mending import PostgresqlMender
from tests.harness.equal import digest
from tests.harness.postgresql import Server, reachable_directory, start_server
from tests.harness.program import Program, hold_to

SCHEMA = """
create table accounts (name text primary key);
create table documents (id int primary key, account text not null references accounts, title text, size numeric(9, 2), at timestamptz);
create table chunks (
    id bigint generated always as identity primary key, document int not null references documents on delete cascade, body text,
    unique (document, body) deferrable initially deferred);
create table notes (document int not null references documents on delete cascade, note text);
create table stars (account text not null, document int not null references documents);
insert into accounts values ('a'), ('b');
insert into documents select n, case when n % 2 = 0 then 'a' else 'b' end, 'title ' || n, n + 0.5, now() from generate_series(1, 10) n;
insert into chunks (document, body) select d, 'chunk ' || c from generate_series(1, 10) d, generate_series(1, 3) c;
insert into notes select n, 'note' from generate_series(1, 10) n where n <> 4;
"""
RULE = {
    "authority": {"store": "records", "query": "select id, account from documents", "rows": [{"table": "documents", "key": "id"}]},
    "replicas": [
        {"store": "records", "rows": [{"table": "chunks", "key": "document"}]},
        {"store": "uploads", "pattern": "{owner}/{id}.pdf"},
    ],
}
TABLES = ("accounts", "documents", "chunks", "notes", "stars")
RESTORE = ("restore", "shelf", "latest", "--document", "4", "--yes")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18) as running:
        running.run("create role keeper login")
        yield running


class Shelf:
    """The application: one database, and its uploads by account."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server = server
        self.uploads = root / "uploads"

    def make(self) -> None:
        self.server.run("drop database if exists shelf with (force)")
        self.server.run("create database shelf owner keeper")
        self.run("set role keeper; " + SCHEMA)
        for number in range(1, 11):
            path = self.uploads / ("a" if number % 2 == 0 else "b") / f"{number}.pdf"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"upload {number}")

    def run(self, statements: str) -> None:
        self.server.run(statements, "shelf")

    def digests(self) -> dict[str, Any]:
        with self.server.connect("shelf") as connection:
            found = {name: digest(connection.execute(f"select t::text from {name} t order by 1").fetchall()) for name in TABLES}
        return {
            **found,
            "uploads": digest([(str(path), path.stat().st_mtime_ns, path.read_text()) for path in sorted(self.uploads.glob("*/*"))]),
        }


@pytest.fixture
def application(server: Server, tmp_path: Path) -> Shelf:
    made = Shelf(server, tmp_path)
    made.make()
    return made


@pytest.fixture
def program(application: Shelf, tmp_path: Path) -> Iterator[Program]:
    found = Program(tmp_path / "host")
    scratch = reachable_directory()
    settings = found.config / "storekeeper.yml"
    settings.write_text(settings.read_text().replace(f"scratch: {found.root}", f"scratch: {scratch}"))
    place = {"host": str(application.server.socket), "port": application.server.port, "programs": str(application.server.programs)}
    declared = {
        "stack": "shelf",
        "stores": {
            "records": {"kind": "postgresql", "database": "shelf", "user": "keeper", **place},
            "uploads": {"kind": "files", "path": str(application.uploads)},
        },
        "consistency": {"documents": RULE},
    }
    found.declare(json.dumps(declared), "shelf")
    hold_to(found.answer("backup", "shelf"), 0, "ok")
    try:
        yield found
        assert list(scratch.iterdir()) == []
    finally:
        shutil.rmtree(scratch)


def test_copies_of_a_server_are_compared_as_the_declared_role_reads_them(program: Program, application: Shelf) -> None:
    (application.uploads / "a/4.pdf").unlink()  # what is live by now is not asked
    ended = program.answer("prove", "shelf")
    (found,) = hold_to(ended, 0, "ok")["result"]["sets"]
    assert found["agreements"]["documents"]["documents"] == 10
    assert found["agreements"]["documents"]["outcome"] == "ok"
    application.run("delete from chunks where document = 7")
    hold_to(program.answer("backup", "shelf"), 0, "ok")
    hold_to(program.answer("prove", "shelf"), 4, "warning", "2 missing, such as missing '4' in uploads/{owner}/{id}.pdf")


def test_a_document_that_is_gone_comes_back_with_its_rows_in_their_order(program: Program, application: Shelf) -> None:
    before = application.digests()
    application.run("delete from documents where id = 4")
    (application.uploads / "a/4.pdf").unlink()
    gone = application.digests()
    result = hold_to(program.answer(*RESTORE), 0, "ok")["result"]
    assert {each["change"] for each in result["places"]} == {"put back"}
    assert application.digests() == before
    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert application.digests() == gone


def test_a_row_is_replaced_in_its_place_and_what_nobody_declared_stays_with_it(program: Program, application: Shelf) -> None:
    whole = application.digests()
    application.run("update documents set title = 'spoilt', size = 1 where id = 4; insert into stars values ('b', 4)")
    application.run("insert into notes values (4, 'written since'); delete from chunks where document = 4 and body = 'chunk 2'")
    application.run("update documents set title = 'written since' where id = 5; insert into chunks (document, body) values (4, 'more')")
    before = application.digests()
    result = hold_to(program.answer(*RESTORE), 0, "ok")["result"]
    after = application.digests()
    assert (after["stars"], after["notes"]) == (before["stars"], before["notes"])
    assert after["chunks"] == whole["chunks"]
    assert application.server.ask("select title || size from documents where id = 4", "shelf") == "title 44.50"
    assert application.server.ask("select title from documents where id = 5", "shelf") == "written since"
    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert application.digests() == before


def test_a_row_whose_parent_is_gone_is_refused_and_the_parent_is_named(program: Program, application: Shelf) -> None:
    application.run("delete from documents where account = 'a'; delete from accounts where name = 'a'")
    before = application.digests()
    hold_to(program.answer(*RESTORE), 2, "refused", 'Key (account)=(a) is not present in table "accounts"', "nothing was changed")
    assert application.digests() == before


@pytest.mark.parametrize("action", ["cascade", "set null"])
def test_rows_that_the_server_would_change_along_are_not_taken_away(program: Program, application: Shelf, action: str) -> None:
    """The way back would take the document away, and the server the notes that were written on it meanwhile."""
    application.run(
        f"alter table notes alter document drop not null, drop constraint notes_document_fkey,"
        f" add foreign key (document) references documents on delete {action}"
    )
    application.run("delete from documents where id = 4")
    result = hold_to(program.answer(*RESTORE), 0, "ok")["result"]
    application.run("insert into notes values (4, 'written since')")
    before = application.digests()
    ended = program.run(*result["back"].split()[1:], "--yes", "--json")
    hold_to(ended, 2, "refused", "rows of notes refer to what would be removed")
    after = application.digests()
    assert (after["notes"], after["documents"]) == (before["notes"], before["documents"])


def test_control_the_server_takes_such_rows_along_without_a_word(application: Shelf) -> None:
    before = application.digests()["notes"]
    application.run("delete from documents where id = 5")
    assert application.digests()["notes"] != before


ELSEWHERE = {
    "partitions": "create table parts (id text, day date) partition by list (day); create table parts_1 partition of parts default;",
    "heirs": "create table parts (id text, day date); create table parts_1 () inherits (parts);",
    "a view": "create table parts_1 (id text, day date); create view parts as select * from parts_1;",
}


def reading(application: Shelf, table: str) -> list[Piece]:
    """What of a document a repair would find in a table."""
    mender = PostgresqlMender(lambda: application.server.connect("shelf"), [Rows(table=table, key="id")])
    with mender.grip([Wanted("7")]) as grip:
        return list(grip.pieces("7"))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_rows_that_stand_in_other_tables_are_refused_and_not_taken_for_none(application: Shelf, kind: str) -> None:
    application.run(ELSEWHERE[kind] + "insert into parts_1 values ('7', '2026-01-01')")
    with pytest.raises(Refused, match="parts does not hold its rows itself"):
        reading(application, "parts")
    assert [each["row"]["id"] for each in reading(application, "parts_1")] == ["7"]


@pytest.mark.parametrize("kind", ["partitions", "heirs"])
def test_control_without_that_refusal_such_rows_would_not_be_seen(application: Shelf, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    application.run(ELSEWHERE[kind] + "insert into parts_1 values ('7', '2026-01-01')")
    monkeypatch.setattr(mending, "_HOLDS_ALL_ITS_ROWS", "select %s::regclass is not null")
    assert reading(application, "parts") == []

"""A rule whose authority and replicas are tables of one database: each place is told from the others, whatever is kept of them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency.places import places_of
from storekeeper.host.stamps import SETTLED_S
from storekeeper.stack.rules import Rule
from tests.harness.program import Program, hold_to

MADE = """
create table documents (id text primary key, state text, changed text, chunks integer);
create table chunks (id integer primary key, document text, body text);
create table notes (id integer primary key, document text, body text);
insert into documents values ('a', 'done', '2026-01-01T00:00:00Z', 2), ('b', 'done', '2026-01-01T00:00:00Z', 2);
insert into chunks (document, body) values ('a', 'one'), ('a', 'two'), ('b', 'three'), ('b', 'four');
insert into notes (document, body) values ('a', 'note of a'), ('b', 'note of b');
"""
DECLARED = """stack: demo
stores:
  main: {{kind: sqlite, path: {path}}}
consistency:
  documents:
    authority:
      store: main
      query: select id, state, changed, chunks from documents
      columns: [id, state, at, chunks]
      rows: [{{table: documents, key: id}}]
    states: {{complete: [done]}}
    replicas:
      - store: main
        query: select document, count(*) from chunks group by document
        columns: [id, chunks]
        rows: [{{table: chunks, key: document}}]
      - store: main
        query: select document from notes
        columns: [id]
        rows: [{{table: notes, key: document}}]
"""
NAMES = ["main/documents", "main/chunks", "main/notes"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "main.db"
    run(found, MADE)
    return found


@pytest.fixture
def program(tmp_path: Path, path: Path) -> Program:
    found = Program(tmp_path / "host")
    found.declare(DECLARED.format(path=path))
    return found


def run(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statements)


def rows(path: Path, table: str) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"select document, body from {table} order by id").fetchall()


def look(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = program.answer("check", "demo", "--stats").document["result"]["rules"]["documents"]
    return found


def test_no_two_places_of_a_rule_have_one_name() -> None:
    query = {"store": "main", "query": "select id from documents"}
    declared = {"authority": {**query, "columns": ["id"]}, "replicas": [query, {**query, "store": "other"}, query]}
    rule = Rule.model_validate_json(json.dumps(declared))
    assert [place.name for place in places_of(rule)] == ["main/query", "main/query 2", "other/query", "main/query 3"]


def test_a_place_whose_rows_are_declared_is_named_by_their_table() -> None:
    rows = {"store": "main", "query": "select id from documents", "rows": [{"table": "documents", "key": "id"}]}
    rule = Rule.model_validate_json(json.dumps({"authority": {**rows, "columns": ["id"]}, "replicas": [rows]}))
    assert [place.name for place in places_of(rule)] == ["main/documents", "main/documents 2"]


def test_each_place_is_counted_as_its_own(program: Program) -> None:
    found = look(program)
    assert found["stats"]["places"] == {NAMES[1]: {"documents": 2, "chunks": 4}, NAMES[2]: {"documents": 2, "chunks": None}}


def test_what_is_kept_of_one_place_is_not_taken_for_another(program: Program, path: Path) -> None:
    """A second look in one run, and a later one, read again what was kept: of a finding neither may see the replica as the authority."""
    run(path, "delete from chunks where document = 'b'; delete from chunks where body = 'two'")
    time.sleep(SETTLED_S + 0.2)
    for unchanged in ([], NAMES):
        found = look(program)
        assert found["unchanged"] == unchanged
        told = [(each["class"], each["document"], each["place"]) for each in found["findings"]]
        assert told == [("partial", "a", NAMES[1]), ("missing", "b", NAMES[1])]


def test_one_document_comes_back_into_each_table_from_its_own_rows(program: Program, path: Path) -> None:
    before = {table: rows(path, table) for table in ("chunks", "notes")}
    hold_to(program.answer("backup", "demo"), 0, "ok")
    run(path, "delete from chunks where document = 'b'; update notes set body = 'spoilt' where document = 'b'")
    spoilt = {table: rows(path, table) for table in ("chunks", "notes")}
    result = hold_to(program.answer("restore", "demo", "latest", "--document", "b", "--yes"), 0, "ok")["result"]
    assert {each["place"]: each["change"] for each in result["places"]} == dict(zip(NAMES, ["same", "put back", "replaced"], strict=True))
    assert {table: rows(path, table) for table in ("chunks", "notes")} == before
    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert {table: rows(path, table) for table in ("chunks", "notes")} == spoilt

"""examine on a real PostgreSQL server and a real Chroma directory, with what a disk does to them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storekeeper.stores.chroma.index import read_header
from storekeeper.stores.postgresql import examining
from tests.harness import chroma
from tests.harness.chroma_files import segment_of
from tests.harness.postgresql import Server, start_server
from tests.harness.program import Ended, Program, hold_to

TABLES = """
create table things (id int primary key, word text not null, kind int);
insert into things select n, 'word ' || n, n % 7 from generate_series(1, 2000) n;
create index things_word on things (word);
checkpoint
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as server:
        yield server


@pytest.fixture
def database(server: Server) -> str:
    server.run("drop database if exists app with (force)")
    server.run("create database app")
    for statement in TABLES.split(";"):
        server.run(statement, "app")
    return "app"


def declare(program: Program, server: Server, more: str = "") -> None:
    words = f"kind: postgresql, database: app, user: postgres, host: {server.socket}, port: {server.port}, programs: {server.programs}"
    program.declare(f"stack: demo\nstores: {{main: {{{words}{more}}}}}\n")


@pytest.fixture
def program(tmp_path: Path, server: Server, database: str) -> Program:
    program = Program(tmp_path)
    declare(program, server)
    return program


def found(ended: Ended, *kinds: str) -> list[tuple[str, str | None]]:
    flaws = ended.document["result"]["stores"]["main"]["flaws"]
    return [(each["kind"], each["object"]) for each in flaws if not kinds or each["kind"] in kinds]


def checksums(server: Server) -> bool:
    return bool(server.ask("show data_checksums") == "on")


def test_a_database_without_a_flaw_is_told_with_its_figures(program: Program, server: Server) -> None:
    document = program.answer("examine", "demo").document
    main = document["result"]["stores"]["main"]
    assert main["counts"] == {"public.things": 2000}
    assert main["figures"]["data_checksums"] is checksums(server)
    assert [each["kind"] for each in main["flaws"]] == ([] if checksums(server) else ["risk"])
    assert any("amcheck" in each["message"] and each["severity"] == "info" for each in document["problems"])


def test_an_index_that_is_invalid_is_named_and_does_not_count_as_there(program: Program, server: Server) -> None:
    declare(program, server, ", indexes: {things: [word, [kind, id]], nowhere: [id]}")
    server.run("insert into things values (3000, 'word 1', 1)", "app")
    server.run("drop index things_word", "app")
    with pytest.raises(psycopg.errors.UniqueViolation, match="could not create unique index"):
        server.run("create unique index concurrently broken on things (word)", "app")
    ended = program.answer("examine", "demo")
    assert found(ended, "index") == [("index", "public.broken"), ("index", "things"), ("index", "things"), ("index", "nowhere")]
    said = [each["message"] for each in ended.document["problems"]]
    assert "index public.broken of things is invalid: it is used by no query" in said
    assert "things has no valid index that begins with word" in said
    assert "there is no table nowhere, of which an index is declared" in said
    server.run("drop index broken", "app")
    for statement in ("create index concurrently on things (word)", "create index concurrently on things (kind, id)"):
        server.run(statement, "app")
    assert found(program.answer("examine", "demo"), "index") == [("index", "nowhere")]


@pytest.mark.usefixtures("database")
def test_a_session_that_holds_locks_for_long_is_named(server: Server) -> None:
    with server.connect("app", application_name="old report") as holder, server.connect("app") as asking:
        holder.execute("begin")
        holder.execute("select count(*) from things")
        time.sleep(1.2)
        flaws = [each for each in examining.examine(asking, {}, long_s=1.0).flaws if each.kind == "session"]
        assert len(flaws) == 1
        assert "old report of postgres (pid " in flaws[0].message
        assert "idle in transaction) has held locks on 3 tables and indexes for 1 s" in flaws[0].message
        assert [each for each in examining.examine(asking, {}, long_s=600).flaws if each.kind == "session"] == []


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("granted", [False, True])
def test_a_role_that_is_not_told_of_others_transactions_says_so(server: Server, granted: bool) -> None:
    server.run("drop role if exists looker")
    server.run("create role looker login; grant pg_read_all_data to looker" + ("; grant pg_read_all_stats to looker" if granted else ""))
    with server.connect("app", application_name="old report") as holder, server.connect("app", user="looker") as asking:
        holder.execute("begin")
        holder.execute("select count(*) from things")
        time.sleep(1.2)
        found = examining.examine(asking, {}, long_s=1.0)
        asking.rollback()
    unseen = [each for each in found.notes if "since when cannot be seen: grant this role pg_read_all_stats" in each]
    assert (len(unseen), len([each for each in found.flaws if each.kind == "session"])) == ((0, 1) if granted else (1, 0))


def heap_of(server: Server, relation: str) -> Path:
    return server.data / str(server.ask(f"select pg_relation_filepath('{relation}')", "app"))


def rot(path: Path, page: int) -> None:
    """Change some letters in the middle of a page, as a disk may."""
    with open(path, "r+b") as file:
        file.seek(page * 8192)
        place = page * 8192 + file.read(8192).index(b"word ", 4000)
        file.seek(place)
        file.write(b"WORD!")


def rotten(server: Server, relation: str, page: int) -> None:
    server.run("vacuum (freeze) things", "app")
    server.run("checkpoint")
    path = heap_of(server, relation)
    server.stop()
    rot(path, page)
    server.start()


@contextmanager
def rotting(room: Path, *, has_checksums: bool) -> Iterator[tuple[Server, Program]]:
    """A server with a table of which a page has rotted since the first backup."""
    with start_server() as server:
        server.stop()
        words = [server.programs / "pg_checksums", "--enable" if has_checksums else "--disable", "-D", server.data]
        subprocess.run(words, capture_output=True, check=False, **as_owner(server))
        server.start()
        assert checksums(server) is has_checksums
        server.run("create database app")
        for statement in TABLES.split(";"):
            server.run(statement, "app")
        program = Program(room)
        declare(program, server)
        assert program.run("backup", "demo").code in (0, 4)
        rotten(server, "things", 1)
        yield server, program


def as_owner(server: Server) -> dict[str, Any]:
    """The user that the server runs as."""
    status = server.data.stat()
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.mark.slow
@pytest.mark.fault("B6")
def test_with_checksums_a_page_that_rots_is_named_and_no_backup_is_published(tmp_path: Path) -> None:
    with rotting(tmp_path, has_checksums=True) as (_, program):
        ended = program.answer("examine", "demo")
        assert ("damage", "public.things") in found(ended)
        said = "public.things cannot be read: invalid page in block 1", "restore demo latest --only main --plan"
        hold_to(ended, 4, "warning", *said)
        again = program.answer("examine", "demo")
        assert again.document["result"]["stores"]["main"]["figures"]["checksum_failures"] >= 1
        backup = program.answer("backup", "demo")
        assert backup.code == 1, backup.err
        assert "invalid page in block 1" in backup.err + backup.out
        assert len(program.sets()) == 1, "nothing was published"


@pytest.mark.slow
@pytest.mark.fault("B6")
@pytest.mark.control("B6")
def test_control_without_checksums_the_rotten_page_is_backed_up_and_the_risk_was_said(tmp_path: Path) -> None:
    with rotting(tmp_path, has_checksums=False) as (server, program):
        ended = program.answer("examine", "demo")
        assert found(ended, "damage", "risk") == [("risk", None)]
        hold_to(ended, 4, "warning", "data checksums are off: a page that rots on disk is read, and backed up, as it is")
        assert program.run("backup", "demo").code in (0, 4)
        assert len(program.sets()) == 2
        assert server.ask("select count(*) from things where word like 'WORD!%'", "app") == 1


@pytest.mark.slow
@pytest.mark.fault("B6")
def test_an_index_that_is_damaged_is_found_where_amcheck_is_installed(tmp_path: Path) -> None:
    with start_server(major=15) as server:
        if not server.ask("select count(*) from pg_available_extensions where name = 'amcheck'"):
            pytest.skip("this server has no amcheck")
        server.run("create database app")
        for statement in TABLES.split(";"):
            server.run(statement, "app")
        server.run("create extension amcheck", "app")
        program = Program(tmp_path)
        declare(program, server)
        assert found(program.answer("examine", "demo"), "damage") == []
        server.run("update pg_index set indisready = false where indexrelid = 'things_word'::regclass", "app")
        server.run("insert into things values (5000, 'in no index', 1)", "app")
        server.run("update pg_index set indisready = true where indexrelid = 'things_word'::regclass", "app")
        ended = program.answer("examine", "demo")
        assert found(ended, "damage") == [("damage", "public.things_word")]
        hold_to(ended, 4, "warning", "index public.things_word is damaged", 'reindex index concurrently "public"."things_word"')


def test_a_table_whose_file_is_gone_is_named_and_the_others_are_read(program: Program, server: Server) -> None:
    server.run("create table others as select generate_series(1, 5) n", "app")
    path = heap_of(server, "things")
    server.stop()
    path.rename(path.with_name("away"))
    server.start()
    try:
        ended = program.answer("examine", "demo")
        assert ("damage", "public.things") in found(ended)
        hold_to(ended, 4, "warning", "table public.things cannot be read: could not open file", "restore demo")
    finally:
        server.stop()
        path.with_name("away").rename(path)
        server.start()


def test_an_index_that_there_was_no_memory_for_is_not_called_damaged() -> None:
    with start_server(major=15) as server:
        if not server.ask("select count(*) from pg_available_extensions where name = 'amcheck'"):
            pytest.skip("this server has no amcheck")
        server.run("create table things (id int primary key)")
        server.run("create extension amcheck")
        server.run(
            "create or replace function bt_index_check(index regclass, heapallindexed boolean) returns void language plpgsql"
            " as $$ begin raise exception 'out of memory' using errcode = '53200'; end $$"
        )
        with server.connect("postgres") as asking:
            told = examining.examine(asking, {})
    assert [each for each in told.flaws if each.kind == "damage"] == []
    assert "index public.things_pkey was not compared with its table: out of memory" in told.notes


def test_a_role_that_may_not_read_is_unknown_and_never_well(program: Program, server: Server) -> None:
    server.run("do $$ begin create role weak login; exception when duplicate_object then null; end $$")
    words = f"kind: postgresql, database: app, user: weak, host: {server.socket}, port: {server.port}"
    program.declare(f"stack: demo\nstores: {{main: {{{words}}}}}\n")
    hold_to(program.answer("examine", "demo"), 3, "unknown", "the role may not read public.things")


@pytest.fixture
def vectors(tmp_path: Path) -> tuple[Path, Program]:
    """A Chroma directory with two collections; 1,200 vectors of one are in its files."""
    live = tmp_path / "vectors"
    live.mkdir()
    chroma.execute(live, 'load(collection("papers"), 1200, 8); load(collection("notes"), 5, 8)')
    program = Program(tmp_path / "host")
    program.declare(f"stack: demo\nstores: {{main: {{kind: chroma, path: {live}}}}}\n")
    return live, program


NAN = b"\x00\x00\xc0\x7f"  # of float32, little-endian
INFINITE = b"\x00\x00\x80\xff"


def queued(live: Path, document: str, vector: bytes) -> None:
    """Another vector for a document that is still in the queue."""
    with closing(sqlite3.connect(live / "chroma.sqlite3")) as database, database:
        changed = database.execute(
            "update embeddings_queue set vector = ? where id = ? and topic like '%/' || ?", (vector, document, notes(database))
        )
        assert changed.rowcount == 1


def notes(database: sqlite3.Connection) -> str:
    return str(database.execute("select id from collections where name = 'notes'").fetchone()[0])


@pytest.mark.fault("F13")
def test_a_directory_whose_vectors_are_numbers_of_one_dimension_has_no_flaw(vectors: tuple[Path, Program]) -> None:
    live, program = vectors
    before = {path: path.read_bytes() for path in live.rglob("*") if path.is_file()}
    stores = hold_to(program.answer("examine", "demo"), 0, "ok")["result"]["stores"]
    assert stores["main"]["counts"] == {"notes": 5, "papers": 1200}
    assert {path: path.read_bytes() for path in live.rglob("*") if path.is_file()} == before


@pytest.mark.fault("F13")
def test_vectors_of_another_dimension_and_such_that_are_no_numbers_are_named(vectors: tuple[Path, Program]) -> None:
    live, program = vectors
    queued(live, "chunk-0000001", b"\x00\x00\x80?" * 3)
    queued(live, "chunk-0000002", b"\x00\x00\x80?" * 5 + NAN + b"\x00\x00\x80?" * 2)
    queued(live, "chunk-0000003", INFINITE + b"\x00\x00\x80?" * 7)
    segment = segment_of(live, "papers")
    header = read_header(segment)
    with open(segment / "data_level0.bin", "r+b") as file:
        file.seek(7 * header.element_bytes + header.data_offset + 4)
        file.write(NAN)
    ended = program.answer("examine", "demo")
    hold_to(ended, 4, "warning")
    flaws = {each["object"]: each["message"] for each in ended.document["result"]["stores"]["main"]["flaws"]}
    in_files = [flaws.pop(name) for name in sorted(flaws) if name.startswith("papers/")]
    assert [said.partition(" has ")[2] for said in in_files] == ["a vector with nan in it, at place 1"]
    assert flaws == {
        "notes/chunk-0000001": "collection notes: document 'chunk-0000001' has a vector of 3 numbers, 8 are declared",
        "notes/chunk-0000002": "collection notes: document 'chunk-0000002' has a vector with nan in it, at place 5",
        "notes/chunk-0000003": "collection notes: document 'chunk-0000003' has a vector with -inf in it, at place 0",
    }
    assert len(found(ended, "vectors")) == 4


@pytest.mark.control("F13")
def test_control_chroma_itself_counts_and_answers_as_if_nothing_were_wrong(vectors: tuple[Path, Program]) -> None:
    live, _ = vectors
    queued(live, "chunk-0000002", b"\x00\x00\x80?" * 5 + NAN + b"\x00\x00\x80?" * 2)
    count, ids = chroma.execute(live, 'say(collection("notes").count()); say(collection("notes").get()["ids"])')
    assert (count, len(ids)) == (5, 5)


def test_index_files_that_do_not_fit_together_are_damage(vectors: tuple[Path, Program]) -> None:
    live, program = vectors
    (segment_of(live, "papers") / "length.bin").write_bytes(b"")
    ended = program.answer("examine", "demo")
    hold_to(ended, 4, "warning", "collection papers: length.bin has 0 bytes")
    assert {kind for kind, _ in found(ended)} == {"damage"}

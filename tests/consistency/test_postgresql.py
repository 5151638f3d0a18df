"""check on a real PostgreSQL server: documents and pgvector chunks in one database, the uploads on disk by owner.

What is declared is the stack file that the project ships, with this server's place in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.harness.postgresql import Server, start_server
from tests.harness.program import CHECKOUT, Ended, Program, hold_to

STACK_FILE = Path(__file__).parents[2] / "inventories/stacks/rag.yml"
DOCUMENTS, PIECES, UPLOADS = "records/documents", "records/chunks", "uploads/{owner}/{id}.pdf"
CITATIONS = "records/query 2"
CHUNKS = 3
SCHEMA = """
create table {schema}.documents (id {id} primary key, account text not null, status text not null, updated_at {at}, chunk_count int);
create table {schema}.chunks (
    id bigserial primary key, document_id {id} not null, account text not null, body text, embedding {vector} not null);
create table {schema}.answers (id serial primary key, sources jsonb);
grant select on all tables in schema {schema} to rag
"""
# The program as people start it, but for bounds that a test waits for.
HURRIED = """
import sys
from storekeeper.stores.postgresql import connection, store
connection.CONNECT_SECONDS, connection.PAUSE_BEFORE_RETRY, store._LOOK_SECONDS, store._COUNT_SECONDS = 1, 0.1, 1.0, 3.0
from storekeeper.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Shape:
    """How an application keeps its ids and times, and in which schema."""

    id: str = "uuid"
    at: str = "timestamptz"
    schema: str = "public"

    def named(self, number: int) -> str:
        """The id of the document of that number, as text."""
        return {"uuid": f"A0000000-0000-4000-8000-{number:012}".lower(), "bigint": str(number)}.get(self.id, f"doc {number}")


@dataclass
class Rag:
    """The application: its database, and its uploads by account."""

    server: Server
    uploads: Path
    shape: Shape

    def owner(self, number: int) -> str:
        """The account of the document of that number."""
        return f"account {number % 3}"

    def file_of(self, number: int) -> Path:
        return self.file(self.shape.named(number), self.owner(number))

    def make(self) -> None:
        for statement in ("drop database if exists rag with (force)", "create database rag"):
            self.server.run(statement)
        self.server.run("do $$ begin if to_regrole('rag') is null then create role rag login; end if; end $$")
        has_vectors = bool(self.server.ask("select count(*) from pg_available_extensions where name = 'vector'"))
        if has_vectors:
            self.run("create extension vector")
        if self.shape.schema != "public":
            self.run(f"create schema {self.shape.schema}; grant usage on schema {self.shape.schema} to rag")
        words = {"id": self.shape.id, "at": self.shape.at, "schema": self.shape.schema, "vector": "vector(3)" if has_vectors else "text"}
        self.run(SCHEMA.format(**words))

    def run(self, statements: str) -> None:
        self.server.run(f"set search_path = {self.shape.schema}, public; {statements}", "rag")

    def ask(self, query: str) -> Any:
        with self.server.connect("rag", options=f"-c search_path={self.shape.schema},public") as connection:
            row = connection.execute(query.encode()).fetchone()
            return None if row is None else row[0]

    def add(self, number: int, status: str = "ready", age: timedelta = timedelta(hours=1)) -> str:
        """A document with its row, chunks and file; returns its id."""
        document, account = self.shape.named(number), self.owner(number)
        now = "now()" if self.shape.at == "timestamptz" else "(now() at time zone 'utc')"
        when = f"{now} - interval '{age.total_seconds():.0f} seconds'"
        self.run(f"insert into documents values ('{document}', '{account}', '{status}', {when}, {CHUNKS})")
        self.add_chunks(document, account)
        self.add_file(document, account)
        return document

    def add_chunks(self, document: str, account: str, count: int = CHUNKS) -> None:
        self.run(
            f"insert into chunks (document_id, account, body, embedding)"
            f" select '{document}', '{account}', 'text', '[1,2,3]' from generate_series(1, {count})"
        )

    def add_file(self, document: str, account: str) -> None:
        (self.uploads / account).mkdir(parents=True, exist_ok=True)
        self.file(document, account).write_bytes(b"%PDF-")

    def file(self, document: str, account: str) -> Path:
        return self.uploads / account / f"{document}.pdf"

    def stack_file(self, **documents: object) -> str:
        """The shipped one, on this server; keys of its rule `documents` otherwise."""
        declared = yaml.safe_load(STACK_FILE.read_text(encoding="utf-8"))
        del declared["schedule"], declared["services"]
        declared["stores"]["records"].update(host=str(self.server.socket), port=self.server.port, programs=str(self.server.programs))
        declared["stores"]["uploads"]["path"] = str(self.uploads)
        declared["consistency"]["documents"].update(documents)
        return json.dumps(declared)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18) as running:
        yield running


@pytest.fixture
def application(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Rag:
    """Twelve complete documents of three accounts, and two that are being worked on."""
    made = Rag(server, tmp_path / "uploads", getattr(request, "param", Shape()))
    template = f"made_{made.shape.id}"
    if not server.ask(f"select count(*) from pg_database where datname = '{template}'"):
        made.make()
        for number in range(1, 13):
            made.add(number)
        made.run(f"insert into documents values ('{made.shape.named(13)}', 'account 1', 'indexing', now(), null)")
        made.add(14, "uploaded")
        made.run(f"delete from chunks where document_id = '{made.shape.named(14)}'")
        server.run(f"alter database rag rename to {template}")
    server.run("drop database if exists rag with (force)")
    server.run(f"create database rag template {template}")
    # Read as the server would say it, a time without a zone would be nine hours off.
    server.run("alter database rag set timezone = 'Asia/Tokyo'")
    for number in (*range(1, 13), 14):
        made.add_file(made.shape.named(number), made.owner(number))
    return made


@pytest.fixture
def program(application: Rag, tmp_path: Path) -> Program:
    found = Program(tmp_path / "host")
    found.declare(application.stack_file(), "rag")
    return found


def findings(ended: Ended, rule: str = "documents") -> list[tuple[str, str, str]]:
    """Class, place and document of each."""
    told = ended.document["result"]["rules"][rule]["findings"]
    return sorted((each["class"], each["place"], each["document"]) for each in told)


def hurried(program: Program, *words: str) -> tuple[Ended, float]:
    """How a command ended whose bounds are short, and after how many seconds."""
    argv = [sys.executable, "-c", HURRIED, "--config", str(program.config), *words, "--json"]
    began = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=CHECKOUT, env=environment, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr), time.monotonic() - began


def check(program: Program, *words: str) -> Ended:
    """Look at the documents."""
    return program.answer("check", "rag", "--rule", "documents", *words)


SHAPES = [Shape("uuid", "timestamptz"), Shape("bigint", "timestamp"), Shape("text", "timestamptz", "app")]
every_shape = pytest.mark.parametrize("application", SHAPES, indirect=True, ids=lambda each: f"{each.id} {each.at}")


@pytest.fixture
def found_by_the_role(application: Rag) -> None:
    """The application's role finds its tables by its own search path, as applications do."""
    application.server.run(f"alter role rag in database rag set search_path = {application.shape.schema}")


@every_shape
@pytest.mark.usefixtures("found_by_the_role")
def test_an_application_whose_stores_agree_has_no_finding(program: Program) -> None:
    document = hold_to(check(program, "--stats"), 0, "ok")
    rule = document["result"]["rules"]["documents"]
    assert (rule["documents"], rule["counts"]["in_flight"], rule["findings"]) == (14, 2, [])
    assert rule["stats"]["owners"] == 3
    assert rule["stats"]["states"] == {"ready": 12, "indexing": 1, "uploaded": 1}
    assert rule["stats"]["places"][PIECES] == {"documents": 12, "chunks": 12 * CHUNKS}
    assert rule["stats"]["places"][UPLOADS] == {"documents": 13, "chunks": None}


@every_shape
@pytest.mark.usefixtures("found_by_the_role")
def test_each_kind_of_disagreement_is_found_and_nothing_else(program: Program, application: Rag) -> None:
    named, app = application.shape.named, application
    app.run(f"delete from documents where id = '{named(1)}'")
    app.run(f"delete from chunks where document_id = '{named(2)}'")
    app.file_of(3).unlink()
    app.run(f"delete from chunks where id = (select min(id) from chunks where document_id = '{named(4)}')")
    app.run(f"update chunks set account = 'account 9' where document_id = '{named(5)}'")
    app.file_of(6).unlink()
    app.add_file(named(6), "somebody else")
    app.add(20, "error", timedelta(hours=24.5))
    app.add(21, "error", timedelta(hours=23.5))  # may still be looked into
    app.add_chunks(named(22), "account 1")
    ended = check(program)
    assert findings(ended) == sorted(
        [
            ("orphan", PIECES, named(1)),
            ("orphan", UPLOADS, named(1)),
            ("missing", PIECES, named(2)),
            ("missing", UPLOADS, named(3)),
            ("partial", PIECES, named(4)),
            ("foreign", PIECES, named(5)),
            ("foreign", UPLOADS, named(6)),
            ("leftover", PIECES, named(20)),
            ("leftover", UPLOADS, named(20)),
            ("orphan", PIECES, named(22)),
        ]
    )
    assert ended.code == 4


def test_chunks_of_two_accounts_are_those_of_the_owner_and_foreign_ones(program: Program, application: Rag) -> None:
    """Two of three stand under another account: the owner's are too few, and the others are somebody else's."""
    document = application.shape.named(5)
    application.run(
        f"update chunks set account = 'account 9' where id in (select id from chunks where document_id = '{document}' order by id limit 2)"
    )
    assert findings(check(program)) == [("foreign", PIECES, document), ("partial", PIECES, document)]


@every_shape
@pytest.mark.usefixtures("found_by_the_role")
def test_an_answer_that_cites_a_document_that_is_gone_is_an_orphan(program: Program, application: Rag) -> None:
    """The ids stand as text in a JSON column, several in one row, some rows without any."""
    cited = json.dumps({"documents": [application.shape.named(number) for number in range(1, 15)]})
    again = json.dumps({"documents": [application.shape.named(1)], "more": None})
    application.run(f"insert into answers (sources) values ('{cited}'), ('{again}'), ('{{\"documents\": []}}'), ('{{}}'), (null)")
    hold_to(program.answer("check", "rag", "--rule", "citations"), 0, "ok")
    application.run(f"delete from documents where id = '{application.shape.named(1)}'")
    ended = program.answer("check", "rag", "--rule", "citations")
    assert findings(ended, "citations") == [("orphan", CITATIONS, application.shape.named(1))]


def test_a_document_that_no_answer_cites_is_none_that_is_missing(program: Program, application: Rag) -> None:
    application.run(f"insert into answers (sources) values ('{json.dumps({'documents': [application.shape.named(2), 'gone']})}')")
    assert findings(program.answer("check", "rag", "--rule", "citations"), "citations") == [("orphan", CITATIONS, "gone")]
    stack = yaml.safe_load(application.stack_file())
    del stack["consistency"]["citations"]["replicas"][0]["optional"]
    program.declare(yaml.safe_dump(stack), "rag")
    found = findings(program.answer("check", "rag", "--rule", "citations"), "citations")
    assert ("missing", CITATIONS, application.shape.named(1)) in found  # the control
    assert len(found) == 14  # thirteen that no answer cites, and the orphan


def test_a_json_column_that_holds_something_else_is_unknown_and_no_finding(program: Program, application: Rag) -> None:
    application.run("""insert into answers (sources) values ('{"documents": "all"}')""")
    ended = program.answer("check", "rag", "--rule", "citations")
    hold_to(ended, 3, "unknown", "the query does not run: cannot extract elements from a scalar")
    assert findings(ended, "citations") == []


PURGE = """
create function purge() returns setof uuid language sql as 'delete from documents returning id';
create function numbered() returns uuid language sql as 'select nextval(''chunks_id_seq''); select gen_random_uuid()';
alter table documents owner to rag; alter table chunks owner to rag
"""
ALL = "id, account, status, updated_at, chunk_count"
READ_ONLY = "in a read-only transaction"
# What the server is asked, and what it is then said of it.
THAT_WRITE = {
    "a deletion in a with": ("with x as (delete from documents returning id) select id from x", "must not contain data-modifying"),
    "a function that deletes": ("select id from purge() id", READ_ONLY),
    "a sequence": ("select numbered()", READ_ONLY),
    "select into": ("select id into purged from documents", "cannot"),
    "a lock": ("select id from documents for update", READ_ONLY),
    "the way out of reading": (
        "with x as (select set_config('transaction_read_only', 'off', false) as on_top) select on_top from x",
        "transaction read-write mode must be set before any query",
    ),
}
THAT_ARE_WRONG = {
    "more columns than declared": (f"select {ALL}, chunk_count as again from documents", "the query has the columns"),
    "fewer columns than declared": ("select id, account from documents", "the query has the columns id, account"),
    "no such column": ("select nothing from documents", 'column "nothing" does not exist'),
    "no such table": ("select id from nowhere", 'relation "nowhere" does not exist'),
    "a table that may not be read": ("select rolname from pg_authid", "permission denied"),
    "half a statement": ("select id from documents where", "syntax error"),
    "no number of chunks": ("select id, account, status, updated_at, 'many' from documents", "a number of chunks was expected"),
    "an id that is a fraction": ("select 1.5::float8, account, status, updated_at, chunk_count from documents", "an id is stored as float"),
    "an id that is a list": ("select array['a'], account, status, updated_at, chunk_count from documents", "an id is stored as list"),
    "an id that is an object": (
        """select '{"id": 1}'::jsonb, account, status, updated_at, chunk_count from documents""",
        "an id is stored as dict",
    ),
    "an id that is nothing as json": ("select 'true'::jsonb, account, status, updated_at, chunk_count from documents", "stored as bool"),
    "a time that never comes": ("select id, account, status, 'infinity'::timestamptz, chunk_count from documents", "timestamp too large"),
}
COUNT, LAST = "select count(*) from documents", "select last_value from chunks_id_seq"
COLUMNS = ["id", "owner", "state", "at", "chunks"]


@pytest.mark.fault("H10")
@pytest.mark.parametrize("case", [*THAT_WRITE, *THAT_ARE_WRONG])
def test_a_query_that_writes_or_is_wrong_is_unknown_with_a_sentence_and_changes_nothing(
    program: Program, application: Rag, case: str
) -> None:
    application.run(PURGE)
    before = [application.ask(each) for each in (COUNT, LAST)]
    query, sentence = {**THAT_WRITE, **THAT_ARE_WRONG}[case]
    authority = {"store": "records", "query": query, **({} if case in THAT_WRITE else {"columns": COLUMNS})}
    program.declare(application.stack_file(authority=authority), "rag")
    ended = check(program)
    hold_to(ended, 3, "unknown", "records/query cannot be read, so nothing is known of it: ", sentence)
    assert "cut off" not in ended.err
    assert findings(ended) == []
    assert [application.ask(each) for each in (COUNT, LAST)] == before
    assert application.ask("select to_regclass('purged')") is None


@pytest.mark.control("H10")
@pytest.mark.parametrize("case", ["a deletion in a with", "a function that deletes"])
def test_control_on_an_ordinary_connection_that_query_does_delete(application: Rag, case: str) -> None:
    application.run(PURGE)
    with application.server.connect("rag", "rag") as connection:
        assert len(connection.execute(THAT_WRITE[case][0].encode()).fetchall()) == 14
    assert application.ask(COUNT) == 0


@pytest.mark.control("H10")
def test_control_on_an_ordinary_connection_the_others_change_something_too(application: Rag) -> None:
    application.run(PURGE)
    application.run("grant create on schema public to rag")
    with application.server.connect("rag", "rag") as connection:
        before = application.ask(LAST)
        connection.execute(THAT_WRITE["a sequence"][0].encode())
        connection.execute(THAT_WRITE["select into"][0].encode())
    assert application.ask(LAST) > before
    assert application.ask("select count(*) from purged") == 14


@pytest.mark.fault("A15")
def test_rows_that_row_security_hides_are_unknown_and_make_no_orphans(program: Program, application: Rag) -> None:
    application.run("alter table documents enable row level security")
    application.run("create policy few on documents for select to rag using (account = 'account 1')")
    ended = check(program)
    hold_to(ended, 3, "unknown", "row-level security")
    assert findings(ended) == []


@pytest.mark.control("A15")
def test_control_an_ordinary_connection_of_that_role_sees_some_of_them_only(application: Rag) -> None:
    application.run("alter table documents enable row level security")
    application.run("create policy few on documents for select to rag using (account = 'account 1')")
    with application.server.connect("rag", "rag") as connection:
        row = connection.execute("select count(*) from documents").fetchone()
    assert row is not None
    assert 0 < row[0] < 14


@contextmanager
def locked(application: Rag, table: str) -> Iterator[None]:
    """Somebody holds a table, as a migration does."""
    with application.server.connect("rag") as other:
        other.execute(f"begin; lock table {table} in access exclusive mode".encode())
        yield
        other.execute("rollback")


@pytest.mark.fault("F1", "A14")
@pytest.mark.parametrize(("table", "place"), [("documents", DOCUMENTS), ("chunks", PIECES)], ids=["documents", "chunks"])
def test_a_locked_table_is_unknown_within_its_bound_and_never_empty(program: Program, application: Rag, table: str, place: str) -> None:
    application.file_of(3).unlink()
    with locked(application, table):
        ended, seconds = hurried(program, "check", "rag", "--rule", "documents")
    document = hold_to(ended, 3, "unknown", "lock timeout")
    assert document["result"]["rules"]["documents"]["unread"] == [place]
    # What can be compared is: the authority and the files, where the chunks alone are locked.
    assert findings(ended) == ([] if table == "documents" else [("missing", UPLOADS, application.shape.named(3))])
    assert seconds < 15
    after = check(program)
    assert findings(after) == [("missing", UPLOADS, application.shape.named(3))]


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Rag]:
    """An application on a server of its own."""
    with start_server(major=18) as running:
        made = Rag(running, tmp_path / "uploads", Shape())
        made.make()
        for number in range(1, 5):
            made.add(number)
        yield made


@pytest.mark.fault("F1", "A11")
def test_a_server_that_is_down_is_unknown_and_never_empty(stopping: Rag, tmp_path: Path) -> None:
    program = Program(tmp_path / "host")
    program.declare(stopping.stack_file(), "rag")
    stopping.server.stop()
    began = time.monotonic()
    ended = check(program)
    assert time.monotonic() - began < 20
    document = hold_to(ended, 3, "unknown", "no connection to database rag")
    assert document["result"]["rules"]["documents"]["documents"] is None
    assert findings(ended) == []


@pytest.mark.fault("F1", "A12")
def test_a_server_that_hangs_is_unknown_within_its_bound_and_never_empty(stopping: Rag, tmp_path: Path) -> None:
    program = Program(tmp_path / "host")
    program.declare(stopping.stack_file(), "rag")
    os.kill(stopping.server.pid, signal.SIGSTOP)
    try:
        ended, seconds = hurried(program, "check", "rag", "--rule", "documents")
    finally:
        os.kill(stopping.server.pid, signal.SIGCONT)
    hold_to(ended, 3, "unknown", "no connection to database rag")
    assert findings(ended) == []
    assert seconds < 20


@pytest.mark.fault("F1", "A12")
def test_a_query_that_takes_for_ever_is_cut_off_at_the_bound_and_is_no_empty_answer(program: Program, application: Rag) -> None:
    query = f"select {ALL} from documents, pg_sleep(600)"
    program.declare(application.stack_file(authority={"store": "records", "query": query, "columns": COLUMNS}), "rag")
    ended, seconds = hurried(program, "check", "rag", "--rule", "documents")
    hold_to(ended, 3, "unknown", "the query was cut off")
    assert findings(ended) == []
    assert 3 <= seconds < 20


@pytest.mark.control("A12", "A14")
def test_control_an_ordinary_connection_waits_for_the_lock_as_long_as_it_is_held(application: Rag) -> None:
    with locked(application, "documents"), application.server.connect("rag", "rag", options="-c statement_timeout=3s") as connection:
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            connection.execute("select id from documents")
        assert time.monotonic() - began >= 3


@pytest.mark.fault("H10")
def test_signs_that_mean_something_to_a_driver_reach_the_server_as_they_stand(program: Program, application: Rag) -> None:
    query = f"select {ALL} from documents where account like 'account%' and status <> '%s' -- all"
    program.declare(application.stack_file(authority={"store": "records", "query": query, "columns": COLUMNS}), "rag")
    hold_to(check(program), 0, "ok")


@pytest.mark.fault("F1")
def test_a_table_that_is_gone_is_unknown_and_an_empty_one_is_empty(program: Program, application: Rag) -> None:
    application.run("alter table chunks rename to former")
    hold_to(check(program), 3, "unknown", 'the query does not run: relation "chunks" does not exist')
    application.run("alter table former rename to chunks; delete from chunks")
    assert [each[:2] for each in findings(check(program))] == [("missing", PIECES)] * 12

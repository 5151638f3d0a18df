"""query on real databases: what is answered, how it is shown, and that nothing but reading can come of it."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.postgresql import answering as of_a_server
from storekeeper.stores.questions import Question
from storekeeper.stores.sqlite import answering
from tests.harness.postgresql import PASSWORD, Server, start_server
from tests.harness.program import Program, hold_to

HOSTILE = [
    "'; drop table documents; --",
    "$(touch MARK)",
    "`touch MARK`",
    "two\nlines",
    "-rf",
    "--json",
    "../../etc/passwd",
    "x" * 10_000,
    "%s %(id)s $1 :title ?",
    "\x1b[2J\x07",
]
TITLED = "select id, title from documents where title = :title or id = :id order by id"
FOR_EVER = "with recursive r(n) as (select 1 union all select n + 1 from r limit 15000000) select count(*) from r"  # some seconds
QUERIES = f"""queries:
  titled: {{store: main, query: "{TITLED}", arguments: [title, id], limit: 3, description: by title or by id}}
  some: {{store: main, query: "select id from documents order by id", limit: 7}}
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.declare_small(more=QUERIES)
    return program


def asking(program: Program, query: str) -> None:
    """Declare one query `it` that takes no value."""
    text = query.replace("\\", "\\\\").replace('"', '\\"')
    stores = f"{{main: {{kind: sqlite, path: {program.database()}}}}}"
    program.declare(f'stack: demo\nstores: {stores}\nqueries: {{it: {{store: main, query: "{text}"}}}}\n')


def digest(program: Program) -> str:
    return hashlib.sha256(program.database().read_bytes()).hexdigest()


def test_the_queries_of_a_stack_are_listed_with_the_values_they_take(program: Program) -> None:
    document = hold_to(program.answer("query", "demo"), 0, "ok")
    assert document["result"]["queries"][0] == {
        "name": "titled",
        "store": "main",
        "arguments": ["title", "id"],
        "limit": 3,
        "description": "by title or by id",
    }
    shown = program.run("query", "demo").out
    assert "titled TITLE ID  main   by title or by id" in shown


def test_rows_come_with_the_names_of_their_columns_and_stand_in_a_table(program: Program) -> None:
    document = hold_to(program.answer("query", "demo", "titled", "title 0", "5"), 0, "ok")
    assert document["result"] == {
        "query": "titled",
        "store": "main",
        "columns": ["id", "title"],
        "rows": [[1, "title 0"], [5, "title 4"]],
        "more": False,
    }
    lines = program.run("query", "demo", "titled", "title 0", "5").out.splitlines()
    assert lines[2:] == ["  id  title", "   1  title 0", "   5  title 4"]


def test_never_more_rows_than_declared_and_it_is_said_that_there_are_more(program: Program) -> None:
    assert [row[0] for row in program.answer("query", "demo", "some").document["result"]["rows"]] == [1, 2, 3, 4, 5, 6, 7]
    assert program.answer("query", "demo", "some").document["result"]["more"] is True
    fewer = program.answer("query", "demo", "some", "--limit", "2").document["result"]
    assert (len(fewer["rows"]), fewer["more"]) == (2, True)
    assert "and more: these are the first 2" in program.run("query", "demo", "some", "--limit", "2").out
    for limit in ("8", "0", "999999999"):
        hold_to(program.answer("query", "demo", "some", "--limit", limit), 2, "refused", "some answers 1 to 7 rows")


@pytest.mark.parametrize("values", [(), ("one",), ("one", "2", "three")], ids=len)
def test_too_few_or_too_many_values_are_refused_with_the_usage(program: Program, values: tuple[str, ...]) -> None:
    said = f"titled takes 2 values (title, id), {len(values)} were given", "query demo titled TITLE ID"
    hold_to(program.answer("query", "demo", "titled", *values), 2, "refused", *said)


def test_a_query_that_there_is_not_is_refused_with_the_nearest(program: Program) -> None:
    hold_to(program.answer("query", "demo", "tilted"), 2, "refused", "there is no query 'tilted'", "query demo titled")


@pytest.mark.fault("H10")
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:20])
def test_a_hostile_value_is_a_text_and_nothing_else(program: Program, value: str) -> None:
    with closing(sqlite3.connect(program.database())) as database, database:
        database.execute("update documents set title = ? where id = 3", (value,))
    before = digest(program)
    ended = program.run("--json", "query", "demo", "titled", "--", value, "no id")
    assert hold_to(ended, 0, "ok")["result"]["rows"] == [[3, value]]
    shown = program.run("query", "demo", "titled", "--", value, "no id")
    assert all(sign.isprintable() for sign in shown.out.replace("\n", ""))
    assert len(shown.out.splitlines()) == 4, "a value stands on one line"
    assert digest(program) == before
    assert list(program.root.rglob("MARK")) == []


@pytest.mark.control("H10")
def test_control_pasted_into_the_query_the_first_of_them_drops_the_table(program: Program) -> None:
    with closing(sqlite3.connect(program.database())) as database:
        database.executescript(TITLED.replace(":title", f"'{HOSTILE[0]}'"))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            database.execute("select * from documents")


def test_bytes_that_are_no_text_are_refused_as_a_value(program: Program) -> None:
    hold_to(program.answer("query", "demo", "titled", "a\udcff", "1"), 2, "refused", "title is no text")


WRITES = {
    "delete": "with x(id) as (select 1) select id from x; delete from documents",
    "a deletion after a with": "with x(id) as (select 1) delete from documents where id in (select id from x)",
    "loading code": "select load_extension('/tmp/x')",
    "a pragma that writes": "select * from pragma_user_version(7)",
    "another file": "select * from pragma_database_list",
}


@pytest.mark.parametrize("case", WRITES)
def test_a_query_that_does_more_than_read_is_refused_and_changes_nothing(program: Program, case: str) -> None:
    before = digest(program)
    asking(program, WRITES[case])
    hold_to(program.answer("query", "demo", "it"), 2, "refused")
    assert digest(program) == before


def test_what_would_write_is_refused_by_the_store_too_where_no_model_has_looked(program: Program) -> None:
    before = digest(program)
    for words in ("delete from documents", "with x(id) as (select 1) delete from documents", "create table t (a)", "attach '/tmp/x' as x"):
        with pytest.raises(Refused, match="does more than read"):
            answering.answer(program.database(), Question(words, {}, 10))
    assert digest(program) == before


def test_a_query_without_an_end_is_ended(program: Program) -> None:
    began = time.monotonic()
    with pytest.raises(Failed, match=r"the query was ended after 0.3 s"):
        answering.answer(program.database(), Question(FOR_EVER, {}, 1), seconds=0.3)
    assert time.monotonic() - began < 3


def test_values_of_every_kind_reach_a_program_and_a_terminal_safely(program: Program) -> None:
    odd = "select null, 1.5, 9e999, x'00ff', cast(x'ff41' as text), 'a' || char(27) || '[31m' || char(0) || 'b', 9223372036854775807"
    asking(program, odd)
    (row,) = program.answer("query", "demo", "it").document["result"]["rows"]
    assert row == [
        None,
        1.5,
        {"number": "Infinity"},
        {"base64": "AP8="},
        {"base64": "/0E="},
        "a\x1b[31m\x00b",
        9223372036854775807,
    ]
    shown = program.run("query", "demo", "it").out.splitlines()[-1]
    assert all(word in shown for word in ("(null)", "Infinity", "x'00ff' (2 bytes)", "a?[31m?b", "9223372036854775807"))
    assert shown.isprintable()


def test_an_answer_has_a_size_that_fits(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storekeeper.stores.questions.MOST_BYTES", 2000)
    found = answering.answer(program.database(), Question("select zeroblob(600) from documents", {}, 100))
    assert (len(found.rows), found.more) == (2, True)
    with pytest.raises(Refused, match="a value of more than 64 MB"):
        answering.answer(program.database(), Question("select zeroblob(100000000)", {}, 1))


def test_a_database_that_is_damaged_or_gone_is_no_empty_answer(program: Program) -> None:
    program.database().write_bytes(b"no database at all" * 100)
    hold_to(program.answer("query", "demo", "some"), 1, "failed", "is damaged")
    program.database().unlink()
    hold_to(program.answer("query", "demo", "some"), 3, "unknown", "is not there")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(tcp=True) as server:
        server.run("create database app")
        server.run("create table things (id int primary key, word text)", "app")
        server.run("insert into things select n, 'word ' || n from generate_series(1, 50) n", "app")
        yield server


@pytest.fixture
def ask(server: Server, tmp_path: Path) -> Any:
    """Ask one query of the server; `said` is kept for what no output may hold."""
    (tmp_path / "secret").write_text(PASSWORD)
    (tmp_path / "secret").chmod(0o600)
    program = Program(tmp_path)

    def ask(query: str, *values: str, arguments: str = "[]", more: tuple[str, ...] = ()) -> Any:
        secret = f"{{file: {tmp_path}/secret}}"
        store = f"{{kind: postgresql, database: app, user: postgres, host: 127.0.0.1, port: {server.port}, password: {secret}}}"
        it = f'{{store: main, query: "{query}", arguments: {arguments}}}'
        program.declare(f"stack: demo\nstores: {{main: {store}}}\nqueries: {{it: {it}}}\n")
        ended = program.run("--json", "query", "demo", "it", *more, "--", *values)
        assert PASSWORD not in ended.out + ended.err
        return ended

    return ask


WORDED = "select id, word from things where word = :word or id = :id order by id"


def test_postgresql_binds_each_value_on_the_server_with_the_type_that_it_wants(ask: Any) -> None:
    result = hold_to(ask(WORDED, "word 2", "7", arguments="[word, id]"), 0, "ok")["result"]
    assert (result["columns"], result["rows"]) == (["id", "word"], [[2, "word 2"], [7, "word 7"]])


@pytest.mark.fault("H10")
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:20])
def test_postgresql_takes_a_hostile_value_as_a_text(ask: Any, server: Server, value: str) -> None:
    server.run("update things set word = 'another' where id = 3", "app")
    with server.connect("app") as connection:
        connection.execute("update things set word = %s where id = 3", (value,))
    assert hold_to(ask("select id from things where word = :word", value, arguments="[word]"), 0, "ok")["result"]["rows"] == [[3]]
    assert server.ask("select count(*) from things", "app") == 50


def test_postgresql_answers_no_more_rows_than_declared(ask: Any) -> None:
    result = ask("select id from things order by id", more=("--limit", "4")).document["result"]
    assert (result["rows"], result["more"]) == ([[1], [2], [3], [4]], True)


BY_THE_SERVER = {
    "a function that writes": ("select purge()", "read-only transaction"),
    "the way out of reading": ("select set_config('transaction_read_only', 'off', false)", "before any query"),
    "a lock": ("select id from things for update", "read-only transaction"),
    "no such table": ("select * from nowhere", 'relation \\"nowhere\\" does not exist'),
    "no number": ("select id from things where id = :id", "invalid input syntax"),
}


@pytest.mark.parametrize("case", BY_THE_SERVER)
def test_postgresql_refuses_what_writes_or_does_not_run(ask: Any, server: Server, case: str) -> None:
    server.run("create or replace function purge() returns bigint language sql as 'delete from things; select 1::bigint'", "app")
    query, sentence = BY_THE_SERVER[case]
    ended = ask(query, *(["x"] if ":id" in query else []), arguments="[id]" if ":id" in query else "[]")
    hold_to(ended, 2, "refused", "the query does not run: ", sentence.replace("\\", ""))
    assert server.ask("select count(*) from things", "app") == 50


@pytest.mark.parametrize(
    ("column", "said"), [("id", None), ("idd", r"the query does not run: column \"idd\" does not exist")], ids=["it runs", "no such column"]
)
def test_postgresql_says_whether_it_understands_a_query_without_running_it(server: Server, column: str, said: str | None) -> None:
    query = f"select {column}, pg_sleep(100) from things where id = cast(:least as integer) limit cast(:many as integer)"
    question, began = Question(query, {"least": None, "many": None}, 0), time.monotonic()
    with server.connect("app") as connection, nullcontext() if said is None else pytest.raises(Refused, match=said):
        assert list(of_a_server.answer(connection, question).columns) == ["id", "pg_sleep"]
    assert time.monotonic() - began < 50


def test_postgresql_ends_a_query_that_takes_too_long(server: Server) -> None:
    began = time.monotonic()
    with server.connect("app") as connection, pytest.raises(Failed, match=r"the query was ended after 0.5 s"):
        of_a_server.answer(connection, Question("select pg_sleep(6)", {}, 1), seconds=0.5)
    assert time.monotonic() - began < 5


def test_postgresql_tells_every_type_as_its_own_text(ask: Any) -> None:
    query = (
        "select null::int, 1.10::numeric, 'NaN'::numeric, 'NaN'::float8, 'infinity'::timestamptz, date '4713-01-01 BC',"
        " array[1, 2], '{}'::jsonb, '\\\\x00ff'::bytea, true, interval '1 day', 'x'::name"
    )
    (row,) = hold_to(ask(query), 0, "ok")["result"]["rows"]
    assert row[:4] == [None, {"number": "1.10"}, {"number": "NaN"}, {"number": "NaN"}]
    assert row[4:] == ["infinity", "4713-01-01 BC", "{1,2}", "{}", {"base64": "AP8="}, True, "1 day", "x"]

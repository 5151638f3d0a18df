"""doctor: what is missing is named with the command that mends it; what cannot be looked at is unknown."""

from __future__ import annotations

import sys

import pytest

from storekeeper.outcomes import Outcome
from storekeeper.stack.config import load_places
from storekeeper.verbs.doctor import doctor
from storekeeper.verbs.report import Report
from tests.harness.program import Program


@pytest.fixture
def program(tmp_path) -> Program:
    program = Program(tmp_path)
    program.declare_small()
    return program


def look(program: Program, stack: str | None = None) -> Report:
    report = doctor(load_places(program.config), stack)
    for each in report.result["missing"]:
        assert each["what"]
        assert each["command"], f"nothing says how to mend: {each['what']}"
    return report


def missing(report: Report) -> str:
    return "\n".join(f"{each['store']}: {each['what']} -> {each['command']}" for each in report.result["missing"])


def test_nothing_is_missing_where_a_backup_and_a_proof_work(program):
    report = look(program)
    assert (report.ended(), report.result) == (Outcome.OK, {"missing": []})
    assert program.run("backup", "demo").code == 0
    assert program.run("prove", "demo").code == 0
    assert look(program).ended() is Outcome.OK


def test_a_host_without_any_stack_is_told_so(program):
    (program.config / "stacks/demo.yml").unlink()
    report = look(program)
    assert report.ended() is Outcome.WARNING
    assert "no stack is declared" in missing(report)


def test_a_schedule_without_a_cron_daemon_is_missing_one(program, monkeypatch):
    file = program.config / "stacks/demo.yml"
    file.write_text(file.read_text() + 'schedule: {backup: "0 3 * * *"}\n')
    found: list[str] = []
    monkeypatch.setattr("storekeeper.verbs.doctor.shutil.which", lambda name, path: found[0] if found else None)
    assert "apt-get install -y cron" in missing(look(program))
    found.append("/usr/sbin/cron")
    assert look(program).ended() is Outcome.OK


def test_every_mistake_of_a_stack_file_is_said(program):
    program.declare("stack: demo\nstroes: {}\n")
    report = doctor(load_places(program.config), None)
    assert report.ended() is Outcome.WARNING
    assert "stroes" in report.problems[0].message


def test_a_secret_that_others_may_read_is_found_before_a_backup_needs_it(program):
    secret = program.root / "password"
    secret.write_text("canary-secret")
    secret.chmod(0o644)
    program.declare(
        f"stack: open\nstores:\n  db: {{kind: postgresql, database: a, user: a, host: 127.0.0.1, port: 9, password: {{file: {secret}}}}}\n",
        "open",
    )
    report = look(program, "open")
    assert f"chmod 600 {secret}" in missing(report)
    assert "canary-secret" not in missing(report)


def test_a_server_that_does_not_answer_is_unknown_and_not_missing(program):
    program.declare("stack: away\nstores:\n  db: {kind: postgresql, database: a, user: a, host: 127.0.0.1, port: 9}\n", "away")
    report = look(program, "away")
    assert report.ended() is Outcome.UNKNOWN
    assert {problem.store for problem in report.problems} == {"db"}


def test_a_repository_that_others_may_write_to_is_named_with_its_mode(program):
    assert program.run("backup", "demo").code == 0
    program.repository.chmod(0o777)
    report = look(program)
    assert f"chmod 0700 {program.repository}" in missing(report)


def test_an_unmounted_repository_is_found(program):
    assert program.run("backup", "demo").code == 0
    program.repository.rename(program.root / "gone")
    assert "is the disk mounted" in missing(look(program))


def test_too_little_room_for_the_next_backup_is_found(program, monkeypatch):
    assert program.run("backup", "demo").code == 0
    monkeypatch.setattr("storekeeper.host.space.free_bytes", lambda _: 10)
    assert "the next backup needs" in missing(look(program))


def test_a_scratch_place_that_is_not_there_is_found(program):
    settings = program.config / "storekeeper.yml"
    settings.write_text(settings.read_text().replace(f"scratch: {program.root}", f"scratch: {program.root}/nowhere"))
    assert f"install -d -m 1777 {program.root}/nowhere" in missing(look(program))


def test_an_interpreter_without_chromadb_cannot_prove_a_chroma_store(program):
    path = program.root / "live/vectors"
    path.mkdir()
    with_it, without = sys.executable, "/usr/bin/python3"
    for python, is_missing in ((without, True), (with_it, False)):
        program.declare(f"stack: vectors\nstores:\n  v: {{kind: chroma, path: {path}, python: {python}}}\n", "vectors")
        found = doctor(load_places(program.config), "vectors").result["missing"]
        assert any("it has no chromadb" in each["what"] for each in found) is is_missing


ASKED = """
consistency:
  documents:
    authority: {{store: main, query: "select id from {table}"}}
    replicas: [{{store: papers, pattern: "{{id}}.txt"}}]
queries:
  some: {{store: main, query: "select {column} from documents where id > :least limit :many", arguments: [least, many]}}
migration: {{applied: {{store: main, query: "select title from {record}"}}}}
"""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, None),
        ({"table": "documens"}, "main: consistency.documents, query: the query does not run: no such table: documens"),
        ({"column": "titel"}, "main: queries.some: the query does not run: no such column: titel"),
        ({"record": "versions"}, "main: migration.applied: the query does not run: no such table: versions"),
    ],
    ids=["nothing", "a rule", "a query", "the migrations"],
)
def test_what_is_asked_of_a_store_and_cannot_be_is_missing_with_the_stack_file_to_correct(program, wrong, said):
    words = {"table": "documents", "column": "title", "record": "documents", **wrong}
    file = program.config / "stacks/demo.yml"
    file.write_text(file.read_text() + ASKED.format(**words))
    report = look(program)
    assert missing(report) == ("" if said is None else f"{said} -> editor {file}")
    assert report.ended() is (Outcome.OK if said is None else Outcome.WARNING)


def test_a_store_that_cannot_be_asked_is_unknown_once(program):
    file = program.config / "stacks/demo.yml"
    file.write_text(file.read_text() + ASKED.format(table="documents", column="title", record="documents"))
    program.database().write_bytes(b"no database at all" * 1000)
    report = look(program)
    assert report.ended() is Outcome.UNKNOWN
    assert [problem.store for problem in report.problems] == ["main"]

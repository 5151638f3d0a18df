"""The contract of `--json`: one document, whatever happens, and exactly the fields that the reference says."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest

from storekeeper.cli import reference
from storekeeper.cli.catalogue import VERBS
from storekeeper.cli.contract import RESULTS, document_schema, usage_schema
from storekeeper.cli.main import main
from storekeeper.host import locks
from storekeeper.outcomes import EXIT_CODES, Outcome
from tests.harness.program import CHECKOUT, Ended, Program, run_plainly


def hold_to_contract(ended: Ended, verb: str, outcome: str) -> dict:
    """The document, after it was held against its schema and its exit code."""
    document = ended.document
    jsonschema.validate(document, document_schema(verb))
    assert (document["outcome"], ended.code) == (outcome, EXIT_CODES[Outcome(outcome)]), document["problems"]
    if document["result"] is None:
        assert document["problems"], "an answer without a result says why"
    return document


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Program:
    """A stack with one proven set, which the tests of this module leave as it is."""
    program = Program(tmp_path_factory.mktemp("contract"))
    program.declare_small()
    assert program.run("backup", "demo").code == 0
    assert program.run("prove", "demo").code == 0
    return program


@pytest.fixture
def own(tmp_path) -> Program:
    """A stack of a test's own, without any set."""
    program = Program(tmp_path)
    program.declare_small()
    return program


def test_every_verb_that_answers_has_a_schema_that_is_one():
    assert set(RESULTS) == {verb.name for verb in VERBS} - {"completion"}
    for verb in RESULTS:
        jsonschema.Draft202012Validator.check_schema(document_schema(verb))


def test_control_a_document_that_lacks_or_adds_a_field_is_found(program):
    document = program.answer("list", "demo").document
    without = json.loads(json.dumps(document))
    del without["result"]["sets"][0]["stores"]["main"]["pause_ms"]
    for wrong in ({**document, "more": 1}, {**document, "outcome": "fine"}, {**document, "started": "today"}, without):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, document_schema("list"))


def test_a_backup_answers_with_its_set_and_what_retention_did(own):
    found = hold_to_contract(own.answer("backup", "demo"), "backup", "ok")
    made = found["result"]["set"]
    assert made["state"] == "verified"
    assert made["stores"]["main"]["counts"] == {"documents": 40}
    assert Path(made["path"]).is_dir()
    assert [each["id"] for each in found["result"]["retention"]["kept"]] == [made["id"]]


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (("list", "demo"), "ok"),
        (("verify", "demo"), "ok"),
        (("verify", "demo", "latest"), "ok"),
        (("verify", "demo", "--all"), "ok"),
        (("verify", "demo", "--read-subset", "1/3"), "ok"),
        (("restore", "demo", "latest", "--plan"), "ok"),
        (("prune", "demo", "--dry-run"), "ok"),
        (("prune", "demo"), "ok"),
        (("resume", "demo"), "ok"),
        (("jobs",), "ok"),
        (("jobs", "demo"), "ok"),
        (("status",), "ok"),
        (("status", "demo", "--live"), "ok"),
        (("doctor",), "ok"),
        (("list", "nosuch"), "refused"),
        (("backup", "../demo"), "refused"),
        (("verify", "demo", "20200101_000000"), "refused"),
        (("prove", "demo", "../../etc"), "refused"),
        (("restore", "demo", "latest"), "refused"),
        (("restore", "demo", "latest", "--confirm", "demo@elsewhere"), "refused"),
        (("restore", "demo", "latest", "--only", "nosuch", "--yes"), "refused"),
        (("restore", "demo", "--back", "--yes"), "refused"),
        (("pin", "demo", "latest; rm"), "refused"),
        (("unpin", "demo", "9" * 4000), "refused"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else value,
)
def test_an_answer_is_the_one_that_the_contract_says(program, words, outcome):
    document = hold_to_contract(program.answer(*words), words[0], outcome)
    assert document["stack"] == (words[1] if len(words) > 1 else None)
    if outcome == "refused":
        assert document["result"] is None


def test_a_stack_without_a_set_is_listed_and_says_so(own):
    document = hold_to_contract(own.answer("list", "demo"), "list", "ok")
    assert document["result"] == {"sets": []}
    assert document["problems"][0]["message"] == "there is no set"


def test_a_set_is_pinned_and_unpinned_by_latest(own):
    assert own.run("backup", "demo").code == 0
    pinned = hold_to_contract(own.answer("pin", "demo", "latest"), "pin", "ok")
    assert pinned["result"]["pinned"] is True
    assert own.answer("list", "demo").document["result"]["sets"][0]["pinned"] is True
    assert hold_to_contract(own.answer("unpin", "demo", pinned["result"]["id"]), "unpin", "ok")["result"]["pinned"] is False
    assert own.answer("list", "demo").document["result"]["sets"][0]["pinned"] is False


def test_a_restore_and_the_way_back_answer_with_figures_of_each_store(own):
    assert own.run("backup", "demo").code == 0
    with closing(sqlite3.connect(own.database())) as database, database:
        database.execute("delete from documents where id > 3")
    restored = hold_to_contract(own.answer("restore", "demo", "latest", "--yes"), "restore", "ok")["result"]
    assert set(restored["stores"]) == {"main", "papers"}
    assert restored["back"] == f"storekeeper --config {own.config} restore demo --back"
    assert own.rows() == 40
    back = hold_to_contract(own.answer("restore", "demo", "--back", "--yes"), "restore", "ok")["result"]
    assert back["set"] is None
    assert own.rows() == 3


def test_a_store_that_fails_leaves_nothing_published_and_prune_then_refuses(own):
    own.database().write_bytes(b"no database at all" * 100)
    failed = hold_to_contract(own.answer("backup", "demo"), "backup", "failed")
    assert (failed["result"], failed["problems"][0]["store"]) == (None, "main")
    refused = hold_to_contract(own.answer("prune", "demo"), "prune", "refused")
    assert "newest backup" in refused["problems"][0]["message"]
    attention = hold_to_contract(own.answer("status"), "status", "warning")
    assert any("ended failed" in alert["message"] for alert in attention["result"]["stacks"]["demo"]["alerts"])


def test_a_damaged_set_fails_its_verify_and_is_refused_as_a_target(own):
    path = Path(own.answer("backup", "demo").document["result"]["set"]["path"])
    victim = next(each for each in (path / "main").iterdir() if each.is_file())
    victim.chmod(0o600)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    verified = hold_to_contract(own.answer("verify", "demo"), "verify", "failed")
    assert verified["result"]["sets"][0]["stores"]["main"]["outcome"] == "failed"
    hold_to_contract(own.answer("restore", "demo", path.name, "--yes"), "restore", "refused")
    assert own.rows() == 40


def test_a_wrong_stack_file_is_one_problem_a_mistake_and_still_lets_its_sets_be_listed(own):
    assert own.run("backup", "demo").code == 0
    file = own.config / "stacks/demo.yml"
    file.write_text(file.read_text().replace("kind: sqlite", "kind: sqllite").replace("stack: demo", "stack: demo\nstcak: demo"))
    refused = hold_to_contract(own.answer("backup", "demo"), "backup", "refused")
    assert len(refused["problems"]) == 2
    assert all(f"{file}:" in problem["message"] for problem in refused["problems"])
    assert len(hold_to_contract(own.answer("list", "demo"), "list", "ok")["result"]["sets"]) == 1
    unknown = hold_to_contract(own.answer("status"), "status", "unknown")
    assert unknown["result"]["stacks"]["demo"]["last_backup"] is not None


def test_another_run_at_work_is_busy(own):
    own.run("backup", "demo")
    with locks.hold(own.state / "demo" / "lock", "backup"):
        for words in (
            ("backup", "demo"),
            ("prune", "demo"),
            ("restore", "demo", "latest", "--yes"),
            ("pin", "demo", "latest"),
            ("resume", "demo"),
        ):
            document = hold_to_contract(own.answer(*words), words[0], "busy")
            assert "backup has been running since" in document["problems"][0]["message"]
        assert own.run("verify", "demo").code == 0
        assert own.run("restore", "demo", "latest", "--plan").code == 0


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ((), None),
        (("bakup", "demo"), None),
        (("backup",), "backup"),
        (("backup", "demo", "--nosuch"), "backup"),
        (("--color", "pink", "list", "x"), "list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_wrong_usage_is_one_document_too(words, verb):
    ended = run_plainly("--json", *words)
    jsonschema.validate(ended.document, usage_schema())
    assert (ended.code, ended.document["outcome"], ended.document["verb"], ended.document["result"]) == (2, "refused", verb, None)
    assert len(ended.complaints) == 1


def test_a_configuration_that_is_not_there_is_one_document_too(tmp_path):
    ended = run_plainly("--config", str(tmp_path / "nowhere"), "status", "--json")
    hold_to_contract(ended, "status", "refused")


@pytest.mark.parametrize("verb", ["backup", "list"])
def test_a_crash_is_one_document_that_says_where_its_traceback_is(own, monkeypatch, capsys, verb):
    def crash(*_: object, **__: object) -> None:
        raise KeyError("canary-of-a-crash")

    monkeypatch.setattr({"backup": "storekeeper.verbs.backup.backup", "list": "storekeeper.verbs.listing.list_sets"}[verb], crash)
    code = main(["--config", str(own.config), "--json", verb, "demo"])
    out, err = capsys.readouterr()
    document = hold_to_contract(Ended(code, out, err), verb, "failed")
    message = document["problems"][0]["message"]
    assert "canary-of-a-crash" not in out + err
    assert "Traceback" not in out + err
    kept = Path(message.rpartition("the traceback is in ")[2])
    assert "canary-of-a-crash" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    if verb == "backup":
        assert kept.parent == own.state / "jobs/demo"
    kept.unlink()


def test_a_crash_shows_its_traceback_only_where_it_is_asked_for(own, monkeypatch, capsys):
    monkeypatch.setattr("storekeeper.verbs.backup.backup", lambda *_: 1 / 0)
    assert main(["--config", str(own.config), "--json", "--debug", "backup", "demo"]) == 1
    out, err = capsys.readouterr()
    assert "ZeroDivisionError: division by zero" in err
    assert len(out.splitlines()) == 1


def test_text_that_cannot_be_made_does_not_hide_how_the_command_ended(program, monkeypatch, capsys):
    monkeypatch.setattr("storekeeper.cli.render.sets.table", lambda *_: 1 / 0)
    assert main(["--config", str(program.config), "list", "demo"]) == 0
    out, err = capsys.readouterr()
    jsonschema.validate(json.loads(out), document_schema("list"))
    assert "ZeroDivisionError" in err


def test_the_reference_says_what_the_program_says():
    assert (CHECKOUT / reference.FOLDER / "cli.md").read_text(encoding="utf-8") == reference.cli_text(), "run `make docs`"
    assert (CHECKOUT / reference.FOLDER / "json.md").read_text(encoding="utf-8") == reference.json_text(), "run `make docs`"

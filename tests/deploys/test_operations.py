"""The operations on sets: what they type, why they do nothing, and whom they fail."""

from __future__ import annotations

import re
import shlex
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pyinfra.api import OperationValueError

from operations import care, entries, sets
from operations.program import tell
from tests.deploys.fake import END, PROGRAM, TYPED, answer, fake_host, followed, recorded, verb

LIST = f"{TYPED} list demo; "


@pytest.mark.parametrize(
    ("operation", "arguments", "typed"),
    [
        (sets.backup, {}, "backup demo"),
        (sets.verify, {}, "verify demo"),
        (sets.verify, {"set": "latest"}, "verify demo latest"),
        (sets.verify, {"all": True}, "verify demo --all"),
        (sets.prove, {}, "prove demo"),
        (sets.prove, {"set": "20250109_030000"}, "prove demo 20250109_030000"),
        (sets.prune, {}, "prune demo"),
        (sets.prune, {"dry_run": True}, "prune demo --dry-run"),
        (sets.restore, {"set": "latest", "plan": True}, "restore demo latest --plan"),
        (sets.restore, {"back": True, "plan": True}, "restore demo --back --plan"),
        (sets.restore, {"set": "latest", "document": "47 11", "plan": True}, "restore demo latest --document '47 11' --plan"),
        (
            sets.restore,
            {"set": "latest", "document": "4711", "rule": "r", "confirm": "demo@h"},
            "restore demo latest --document 4711 --rule r --confirm demo@h",
        ),
        (sets.restore, {"set": "latest", "confirm": "demo@h"}, "restore demo latest --confirm demo@h"),
        (sets.restore, {"back": True, "confirm": "demo@h"}, "restore demo --back --confirm demo@h"),
        (
            sets.restore,
            {"set": "latest", "only": ["a", "b"], "nobody_uses": ["a"], "no_owners": ["b"], "plan": True},
            "restore demo latest --only a --only b --nobody-uses a --no-owners b --plan",
        ),
        (
            sets.restore,
            {"set": "latest", "accept_unreadable": ["a"], "stage_dir": "/big/place", "confirm": "demo@h"},
            "restore demo latest --accept-unreadable a --stage-dir /big/place --confirm demo@h",
        ),
        (care.examine, {}, "examine demo"),
        (care.examine, {"store": "main"}, "examine demo --store main"),
        (care.recover, {"store": "main"}, "recover demo --store main --plan"),
        (
            care.recover,
            {"store": "a", "nobody_uses": ["a"], "confirm": "demo@h"},
            "recover demo --store a --nobody-uses a --confirm demo@h",
        ),
        (sets.reset, {}, "reset demo --plan"),
        (sets.reset, {"confirm": "demo@h"}, "reset demo --confirm demo@h"),
        (
            sets.reset,
            {"nobody_uses": ["a"], "no_owners": ["b"], "accept_unreadable": ["a", "b"], "confirm": "demo@h"},
            "reset demo --nobody-uses a --no-owners b --accept-unreadable a --accept-unreadable b --confirm demo@h",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation_types_one_verb_and_nothing_else(operation, arguments, typed):
    with fake_host() as fake:
        is_short = "--plan" in typed or "--dry-run" in typed
        assert fake.commands(operation, stack="demo", **arguments) == [f"{TYPED} {typed}" if is_short else followed(typed)]
        assert fake.typed == []


HOSTILE = {
    "a second command": "x; touch MARK",
    "a substitution": "$(touch MARK)",
    "backticks": "`touch MARK`",
    "quotes": "it's \"so\"'; touch MARK; '",
    "a redirection": "x > MARK",
    "a glob and a home": "~/* {a,b} $HOME",
    "a letter of another script": "документ 😀",
    "a long one": "x" * 4000,
}
IMPOSSIBLE = {
    "a newline": "x\ntouch MARK",
    "an option": "-rf",
    "a long option": "--yes",
    "NUL": "x\0y",
    "an escape": "x\x1b[2J",
    "another control character": "x\x9b2J",
    "half a letter": "x\ud800",
    "nothing": "",
    "ten thousand letters": "x" * 10_000,
    "a number": 5,
}
FIELDS = {
    "stack": lambda value: (sets.backup, {"stack": value}),
    "set": lambda value: (sets.verify, {"stack": "demo", "set": value}),
    "set to prove": lambda value: (sets.prove, {"stack": "demo", "set": value}),
    "set to restore": lambda value: (sets.restore, {"stack": "demo", "set": value, "plan": True}),
    "only": lambda value: (sets.restore, {"stack": "demo", "set": "latest", "only": [value], "plan": True}),
    "nobody_uses": lambda value: (sets.restore, {"stack": "demo", "set": "latest", "nobody_uses": [value], "plan": True}),
    "stage_dir": lambda value: (sets.restore, {"stack": "demo", "set": "latest", "stage_dir": value, "plan": True}),
    "confirm": lambda value: (sets.restore, {"stack": "demo", "set": "latest", "confirm": value}),
    "store of a look": lambda value: (care.examine, {"stack": "demo", "store": value}),
    "document of a history": lambda value: (care.history, {"stack": "demo", "document": value}),
    "store of a recovery": lambda value: (care.recover, {"stack": "demo", "store": value}),
    "confirm of a recovery": lambda value: (care.recover, {"stack": "demo", "store": "main", "confirm": value}),
    "confirm of a reset": lambda value: (sets.reset, {"stack": "demo", "confirm": value}),
    "nobody_uses of a reset": lambda value: (sets.reset, {"stack": "demo", "nobody_uses": [value]}),
}


@pytest.fixture
def echo(tmp_path: Path) -> str:
    """A program that writes down the words it was given."""
    program = tmp_path / "a program's place" / "echo"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    program.chmod(0o700)
    return str(program)


def _shell(command: str, directory: Path) -> list[str]:
    """The words that a remote shell would hand to the program."""
    done = subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, check=True)
    return done.stdout.decode("utf-8").split("\0")[:-1]


@pytest.mark.fault("H10")
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_value_reaches_the_program_as_the_one_word_it_is(field, value, echo, tmp_path):
    operation, arguments = FIELDS[field](value)
    with fake_host(storekeeper_program=echo) as fake:
        (command,) = fake.commands(operation, **arguments)
    words = _shell(command.removesuffix(" >/dev/null"), tmp_path)
    assert words.count(value) == 1
    assert not (tmp_path / "MARK").exists()


@pytest.mark.control("H10")
def test_control_the_same_value_unquoted_runs_what_it_says(echo, tmp_path):
    _shell(f"{shlex.quote(echo)} backup {HOSTILE['a second command']}", tmp_path)
    assert (tmp_path / "MARK").exists()


@pytest.mark.fault("H10")
@pytest.mark.parametrize("value", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("field", FIELDS)
def test_a_value_that_could_be_no_word_or_an_option_is_refused_before_anything_is_typed(field, value):
    operation, arguments = FIELDS[field](value)
    with fake_host() as fake:
        with pytest.raises(OperationValueError) as refusal:
            fake.commands(operation, **arguments)
        assert fake.typed == []
    assert len(str(refusal.value)) < 200
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"storekeeper_program": "storekeeper"}, "storekeeper_program"),
        ({"storekeeper_program": "-rf"}, "storekeeper_program"),
        ({"storekeeper_config": "etc"}, "storekeeper_config"),
        ({"storekeeper_config": "/etc\n"}, "storekeeper_config"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused_and_named(data, named):
    with fake_host(**data) as fake, pytest.raises(OperationValueError, match=named):
        fake.commands(sets.backup, stack="demo")


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (sets.verify, {"set": "latest", "all": True}),
        (sets.prove, {"set": "latest", "within": "7d"}),
        (sets.prove, {"within": "7"}),
        (sets.recent, {"within": "0h"}),
        (sets.recent, {"within": "26 hours"}),
        (sets.recent, {"within": "-1h"}),
        (sets.recent, {"within": None}),
        (sets.restore, {"plan": True}),
        (sets.restore, {"set": "latest", "back": True, "plan": True}),
        (sets.restore, {"set": "latest"}),
        (sets.restore, {"back": True}),
        (sets.restore, {"set": "latest", "plan": True, "confirm": "demo@h"}),
        (sets.restore, {"set": "latest", "plan": True, "only": "main"}),
        (sets.reset, {"nobody_uses": "main"}),
        (sets.restore, {"back": True, "document": "4711", "plan": True}),
        (sets.restore, {"set": "latest", "document": "4711", "only": ["main"], "plan": True}),
        (sets.restore, {"set": "latest", "rule": "r", "plan": True}),
        (sets.restore, {"set": "latest", "document": "--yes", "plan": True}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_contradicting_arguments_raise_before_anything_is_typed(operation, arguments):
    with fake_host() as fake:
        with pytest.raises(OperationValueError):
            fake.commands(operation, stack="demo", **arguments)
        assert fake.typed == []


def test_a_restore_without_a_confirmation_says_what_to_pass():
    with fake_host() as fake, pytest.raises(OperationValueError, match="confirm='demo@HOST'"):
        fake.commands(sets.restore, stack="demo", set="latest")


def _aged(name: str, seconds: int, field: str = "time") -> list[str]:
    """The recorded answer to a fact, given so long after the newest set was made or proven."""
    document = recorded(name)
    at = datetime.fromisoformat(document["result"]["sets"][-1][field])
    later = (at + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return [line.replace(f'"started": "{document["started"]}"', f'"started": "{later}"') for line in answer(name)]


def test_a_young_set_is_left_at_that_and_its_age_is_said():
    with fake_host({LIST: _aged("list-unproven", 7 * 3600 + 300)}) as fake:
        assert fake.execute(sets.recent, stack="demo", within="26h") == []
        assert re.search(r"noop: newest verified set \S+-000001 of demo is 7 h 5 min old, within 26h", fake.said.text)


@pytest.mark.parametrize(
    ("listed", "seconds", "arguments"),
    [
        ("list-unproven", 27 * 3600, {"within": "26h"}),
        ("list-unproven", -600, {"within": "26h"}),
        ("list-damaged", 60, {"within": "30m", "proven": True}),
    ],
    ids=["too old", "dated after now", "too long since the newest proven one"],
)
def test_a_set_that_is_not_young_is_followed_by_a_new_one(listed, seconds, arguments):
    answered = _aged(listed, seconds) if "proven" not in arguments else _aged(listed, 3600)
    with fake_host({LIST: answered}) as fake:
        typed = fake.commands(sets.recent, stack="demo", **arguments)
    assert typed == [followed(f"{each} demo") for each in (["backup", "prove"] if "proven" in arguments else ["backup"])]


def test_a_damaged_set_is_none_that_counts_however_young():
    with fake_host({LIST: _aged("list-damaged", 60)}) as fake:
        document = recorded("list-damaged")
        assert [each["state"] for each in document["result"]["sets"]] == ["proven", "damaged"]
        assert fake.execute(sets.recent, stack="demo", within="26h") == []
        assert document["result"]["sets"][0]["id"] in fake.said.text, "the older, good one is what counts"


def test_only_a_proven_set_counts_where_that_is_asked_for():
    with fake_host({LIST: _aged("list-unproven", 60)}) as fake:
        assert fake.commands(sets.recent, stack="demo", within="26h") == []
        assert fake.commands(sets.recent, stack="demo", within="26h", proven=True) == [followed("backup demo"), followed("prove demo")]


def test_a_stack_without_any_set_gets_its_first():
    with fake_host({LIST: answer("list-empty"), "backup demo": verb("backup")}) as fake:
        assert fake.execute(sets.recent, stack="demo") == [True]
        assert fake.typed[-2:] == [followed("backup demo"), f"{TYPED} --heard backup demo"]


def test_a_recent_proof_is_left_at_that_and_its_age_is_said():
    with fake_host({LIST: _aged("list-proven", 3 * 86400, "proven_at")}) as fake:
        assert fake.commands(sets.prove, stack="demo", within="7d") == []
        assert re.search(r"noop: set \S+-000001 of demo was proven 72 h 0 min ago, within 7d", fake.said.text)
        assert fake.commands(sets.prove, stack="demo", within="2d") == [followed("prove demo")]


def test_a_verified_set_is_no_proof():
    with fake_host({LIST: _aged("list-unproven", 60)}) as fake:
        assert fake.commands(sets.prove, stack="demo", within="7d") == [followed("prove demo")]


UNREADABLE = {
    "cut off before its end": answer("list-empty")[:-1],
    "cut off within the document": [answer("list-proven")[0][:400]],
    "nothing at all": [],
    "no document": ["Welcome to this server", "", "storekeeper-code:0", END],
    "the program is missing": ["", "storekeeper-code:127", END],
    "the document of another version": [answer("list-empty")[0].replace('"schema": 1', '"schema": 2'), "", "storekeeper-code:0", END],
    "another question's answer": answer("status"),
    "refused": answer("list-no-stack"),
    "the wire broke": {"success": False, "stderr": "broken"},
}


@pytest.mark.parametrize("said", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("operation", [sets.recent, sets.prove], ids=["recent", "prove"])
def test_sets_that_could_not_be_read_fail_that_host_only_and_are_never_taken_for_none(operation, said):
    with fake_host({LIST: said}) as fake:
        assert fake.execute(operation, stack="demo", within="26h") == [False]
        assert "which sets demo has could not be read, so nothing was decided" in fake.said.text
        assert [each for each in fake.typed if "; printf" not in each] == [], "nothing but the question was typed"
        assert fake.state.failed_hosts == set(), "pyinfra fails the host of a failed command, and no other"


def test_control_with_a_default_of_no_sets_a_missing_program_would_look_like_a_host_without_backups(monkeypatch):
    monkeypatch.setattr(sets, "ask", lambda *_, **__: {"started": "2026-11-21T12:00:00Z", "result": {"sets": []}})
    with fake_host() as fake:
        assert fake.commands(sets.recent, stack="demo") == [followed("backup demo")]


@pytest.mark.parametrize(
    ("name", "succeeds", "said"),
    [
        ("backup", True, "ok: backup  demo  "),
        ("backup-warning", True, "demo main: holds 13 objects, the set "),
        ("backup-failed", False, "demo main: "),
        ("backup-refused", False, 'unknown key "bakup"'),
        ("backup-busy", False, "has been running since"),
    ],
)
def test_warnings_are_success_that_is_said_and_every_other_outcome_fails_the_host(name, succeeds, said):
    with fake_host({"backup demo": verb(name)}) as fake:
        assert fake.execute(sets.backup, stack="demo") == [succeeds]
        assert said in fake.said.text
        assert "progress that nobody needs" not in fake.said.text
        assert fake.state.failed_hosts == set(), "pyinfra fails the host of a failed command, and no other"


def test_what_could_not_be_tried_fails_the_host():
    with fake_host({"prove demo": verb("prove-unknown")}) as fake:
        assert fake.execute(sets.prove, stack="demo") == [False]
        assert "unknown: prove  demo" in fake.said.text


def test_exit_codes_0_and_4_are_what_pyinfra_is_told_to_accept():
    with fake_host() as fake:
        (command,) = sets.backup._inner(stack="demo")
        assert command.connector_arguments["_success_exit_codes"] == [0, 4]
        assert fake.typed == []


@pytest.mark.parametrize("output", [[], ["bash: no such file"], ['{"schema": 2, "outcome": "ok"}'], ['{"schema": 1']], ids=str)
def test_success_without_a_document_that_is_understood_is_no_success(output):
    with fake_host({"backup demo": {"stdout": output, "success": True}}) as fake:
        assert fake.execute(sets.backup, stack="demo") == [False]


def test_a_failed_backup_is_not_followed_by_its_proof():
    with fake_host({LIST: answer("list-empty"), "backup demo": verb("backup-failed"), "prove demo": verb("prove")}) as fake:
        assert fake.execute(sets.recent, stack="demo", proven=True) == [False]
        assert not any("prove demo" in each for each in fake.typed)


def test_a_plan_says_what_it_would_do_to_each_store():
    with fake_host({"restore demo": verb("restore-plan")}) as fake:
        fake.execute(sets.restore, stack="demo", set="latest", plan=True)
        assert re.search(r"main +documents +10 +40", fake.said.text)
        assert re.search(r"papers +bytes +5 +5\n.* files +1 +1\n", fake.said.text)


def test_a_plan_of_one_document_says_what_differs_in_each_place():
    with fake_host({"restore demo": verb("restore-document-plan")}) as fake:
        fake.execute(sets.restore, stack="demo", set="latest", document="2", plan=True)
        assert re.search(r"main/documents +0 +1 +put back", fake.said.text)
        assert re.search(r"papers/\{id\}\.txt +1 +1 +replaced", fake.said.text)


def test_a_document_that_came_back_says_the_way_back():
    with fake_host({"restore demo": verb("restore-document")}) as fake:
        fake.execute(sets.restore, stack="demo", set="latest", document="2", confirm="demo@prod-ai-1")
        assert "the way back: storekeeper --config /srv/app/etc repair undo demo" in fake.said.text


def test_a_plan_of_a_reset_is_not_called_one_of_the_old_sides():
    with fake_host({"reset demo": verb("reset-plan")}) as fake:
        fake.execute(sets.reset, stack="demo")
        assert "plan: all stores emptied" in fake.said.text
        assert re.search(r"main +documents +40 +0", fake.said.text)


def test_a_restore_says_the_way_back_and_what_to_know():
    with fake_host({"restore demo": verb("restore")}) as fake:
        fake.execute(sets.restore, stack="demo", set="latest", confirm="demo@prod-ai-1")
        assert "the way back: storekeeper --config /srv/app/etc restore demo --back" in fake.said.text
        assert "demo: what was written after safety set" in fake.said.text


def test_a_name_of_a_file_cannot_drive_the_terminal():
    hostile = recorded("backup-warning")
    hostile["problems"][0]["message"] = "a file \x1b[2J\x07\nstorekeeper: all is well"
    with fake_host() as fake:
        tell(fake.host, hostile)
        assert not any("\x1b" in line or "\x07" in line or line.startswith("storekeeper: all") for line in fake.said.lines)


def test_a_verb_is_typed_as_its_words_and_not_as_a_sentence():
    with fake_host({"backup demo": verb("backup")}) as fake:
        fake.execute(sets.backup, stack="demo")
        assert shlex.split(fake.typed[-1])[-7:] == [PROGRAM, "--config", "/etc/storekeeper", "--json", "--heard", "backup", "demo"]


def test_a_directory_of_uploads_that_nobody_has_named_is_not_made():
    with fake_host() as fake:
        fake.state.config.TEMP_DIR = None
        assert fake.execute(entries.uploads) == [False]
        assert "set it in config.py" in fake.said.text
        assert fake.typed == []

"""The operations that compare stores: what they type, what of a disagreement a person reads, and whom they fail."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from pyinfra.api import OperationValueError

from operations import consistency, declared, page
from storekeeper.stack.loader import check_text
from tests.deploys.fake import TYPED, Fake, fake_host, followed, recorded, verb

HOSTILE = ["-rf", "--lines", "x\ny", "x\0y", "x\x1b[2J", "", "x" * 5000, 42]
PLAIN = "stack: {name}\nstores:\n  main: {{kind: sqlite, path: /srv/app/main.db}}\n  papers: {{kind: files, path: /srv/app/papers}}\n"
RULES = """consistency:
  {rule}:
    authority: {{store: main, query: "select id from documents", columns: [id]}}
    replicas: [{{store: papers, pattern: "{{id}}.txt"}}]
"""


def declaring(name: str, *rules: str) -> str:
    """A stack file with these rules."""
    first, *others = [RULES.format(rule=rule) for rule in rules] or [""]
    return PLAIN.format(name=name) + first + "".join(other.removeprefix("consistency:\n") for other in others)


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        ({}, "check demo"),
        ({"rule": "library"}, "check demo --rule library"),
        ({"document": "0042"}, "check demo --document 0042"),
        ({"rule": "library", "document": "a b", "owner": "7"}, "check demo --rule library --document 'a b' --owner 7"),
        ({"document": "x; touch MARK $(id) `id`"}, "check demo --document 'x; touch MARK $(id) `id`'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_look_types_one_verb_with_each_value_as_the_one_word_it_is(arguments, typed):
    with fake_host() as fake:
        assert fake.commands(consistency.check, stack="demo", **arguments) == [followed(typed)]
        assert fake.typed == []


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("field", ["stack", "rule", "document", "owner"])
def test_a_value_that_could_be_an_option_or_no_word_is_refused_before_anything_is_typed(field, value):
    with fake_host() as fake:
        with pytest.raises(OperationValueError, match=field):
            fake.commands(consistency.check, **{"stack": "demo", field: value})
        assert fake.typed == []


PLAN, CONFIRM = "20260101T030000Z-0123456789ab", "demo@prod-ai-1"


def test_a_repair_is_planned_applied_and_undone_with_each_value_as_one_word():
    with fake_host() as fake:
        planned = fake.commands(consistency.plan, stack="demo", document="a b", at_once=True)
        assert planned == [f"{TYPED} repair plan demo --document 'a b' --at-once"]
        applied = fake.commands(consistency.apply, stack="demo", plan=PLAN, confirm=CONFIRM, limit=7)
        assert applied == [followed(f"repair apply demo {PLAN} --confirm {CONFIRM} --limit 7")]
        again = fake.commands(consistency.reingest, stack="demo", plan=PLAN, confirm=CONFIRM, limit=7)
        assert again == [followed(f"repair reingest demo {PLAN} --confirm {CONFIRM} --limit 7")]
        assert fake.commands(consistency.undo, stack="demo", plan=PLAN, confirm=CONFIRM) == [
            followed(f"repair undo demo {PLAN} --confirm {CONFIRM}")
        ]
        assert fake.typed == []


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("field", ["stack", "plan", "confirm"])
@pytest.mark.parametrize("operation", ["apply", "reingest", "undo"])
def test_a_plan_that_could_be_an_option_or_no_word_is_refused_before_anything_is_typed(operation, field, value):
    with fake_host() as fake:
        with pytest.raises(OperationValueError, match=field):
            fake.commands(getattr(consistency, operation), **{"stack": "demo", "plan": PLAN, "confirm": CONFIRM, field: value})
        assert fake.typed == []


def test_what_a_plan_would_remove_and_what_was_removed_is_told():
    with fake_host({"repair plan demo": {"stdout": [json.dumps(recorded("repair-plan"))], "success": True}}) as fake:
        assert fake.execute(consistency.plan, stack="demo") == [True]
    plan = recorded("repair-plan")["result"]["plan"]
    assert f"plan {plan['id']}" in fake.said.text
    assert f"repair apply demo {plan['id']}" in fake.said.text
    typed = f"repair apply demo {plan['id']} --confirm {CONFIRM}"
    for name, done in (("repair-apply", True), ("repair-refused", False)):
        with fake_host({typed: verb(name)}) as fake:
            assert fake.execute(consistency.apply, stack="demo", plan=plan["id"], confirm=CONFIRM) == [done]
    assert "nothing was changed" in fake.said.text


def test_clean_looks_at_every_rule_and_at_all_documents():
    with fake_host() as fake:
        assert fake.commands(consistency.clean, stack="demo") == [followed("check demo")]
        with pytest.raises(OperationValueError):
            fake.commands(consistency.clean, stack="--yes")


@pytest.mark.parametrize(
    ("name", "looked", "agreed"),
    [
        ("check", True, True),
        ("check-findings", True, False),
        ("check-unknown", False, False),
        ("backup-busy", False, False),
        ("list-no-stack", False, False),
    ],
)
@pytest.mark.parametrize("operation", ["check", "clean"])
def test_a_disagreement_is_a_warning_to_check_and_a_failure_to_clean_and_what_was_not_read_fails_both(operation, name, looked, agreed):
    with fake_host({"check demo": verb(name)}) as fake:
        assert fake.execute(getattr(consistency, operation), stack="demo") == [looked if operation == "check" else agreed]
        assert fake.typed[-1] == f"{TYPED} --heard check demo"
        assert fake.state.failed_hosts == set(), "pyinfra fails the host of a failed command, and no other"


def findings_in(fake: Fake) -> list[str]:
    """The lines of single findings."""
    lines = [line.removeprefix("[@fake/prod-ai-1]   ") for line in fake.said.lines]
    return [line for line in lines if line.startswith((*page.CLASSES, "and "))]


def test_what_disagrees_is_told_with_its_first_documents_and_how_many_there_are_beyond():
    with fake_host({"check demo": verb("check-findings")}) as fake:
        fake.execute(consistency.check, stack="demo")
    assert "demo: library: 30 orphan, 1 missing in papers" in fake.said.text
    told = findings_in(fake)
    first = recorded("check-findings")["result"]["rules"]["library"]["findings"][0]
    assert told[0] == f"orphan: 10 in papers/{{id}}.txt, since {first['since'][:19]}Z: 1 entry"
    assert len(told) == 21
    assert told[-1] == "and 11 more"
    assert "disagree" not in fake.said.text


def test_findings_that_the_answer_leaves_out_are_counted():
    many = recorded("check-findings")
    many["result"]["rules"]["library"]["left_out"] = 50_000
    assert list(consistency.told(many))[-1] == "and 50,011 more"


def test_a_look_at_one_document_tells_of_that_alone():
    with fake_host({"check demo --document 2": verb("check-document")}) as fake:
        assert fake.execute(consistency.check, stack="demo", document="2") == [True]
    assert [line.split(",")[0] for line in findings_in(fake)] == ["missing: 2 in papers/{id}.txt"]


def test_clean_says_last_what_disagrees():
    with fake_host({"check demo": verb("check-findings")}) as fake:
        fake.execute(consistency.clean, stack="demo")
    assert fake.said.lines[-1].endswith("the stores of demo disagree: library: 30 orphan, 1 missing")


def test_clean_does_not_call_it_agreement_that_the_program_warns_of_something_else():
    warned = recorded("check")
    warned["outcome"] = "warning"
    warned["problems"] = [
        {"stack": "demo", "store": "cards", "severity": "warning", "message": "library: 3 entries of cards/cards have no id", "next": None}
    ]
    answered = {"stdout": [json.dumps({**warned, "job": "20260101T000000Z-check-00000000"})], "success": True}
    with fake_host({"check demo": answered}) as fake:
        assert fake.execute(consistency.clean, stack="demo") == [False]
        assert "nothing says that the stores of demo agree: library: 3 entries of cards/cards have no id" in fake.said.lines[-1]
        assert fake.execute(consistency.check, stack="demo") == [True]


def test_a_place_that_could_not_be_read_is_named_and_said_to_be_unknown():
    with fake_host({"check demo": verb("check-unknown")}) as fake:
        fake.execute(consistency.check, stack="demo")
    assert "unknown: check  demo" in fake.said.text
    assert "library: cards/tags cannot be read, so nothing is known of it" in fake.said.text


@pytest.mark.parametrize("output", [[], ["bash: no such file"], ['{"schema": 2, "outcome": "ok"}'], ['{"schema": 1']], ids=str)
def test_success_without_a_document_that_is_understood_is_no_agreement(output):
    with fake_host({"check demo": {"stdout": output, "success": True}}) as fake:
        assert fake.execute(consistency.clean, stack="demo") == [False]
        assert fake.execute(consistency.check, stack="demo") == [False]


def test_an_id_cannot_drive_the_terminal_and_fills_no_screen():
    hostile = copy.deepcopy(recorded("check-document"))
    (finding,) = hostile["result"]["rules"]["library"]["findings"]
    finding.update(document="\x1b[2J\x07\nstorekeeper: all is well" + "x" * 5000, detail="two\nlines")
    answered = {"stdout": [json.dumps({**hostile, "job": "20260101T000000Z-check-00000000"})], "success": True}
    with fake_host({"check demo": answered}) as fake:
        fake.execute(consistency.check, stack="demo")
    assert not any("\x1b" in line or "\x07" in line or "\n" in line or line.startswith("storekeeper: all") for line in fake.said.lines)
    assert max(map(len, fake.said.lines)) < 300


def test_only_the_stacks_that_declare_rules_are_looked_at():
    stacks = {"a": declaring("a", "library"), "b": declaring("b"), "c": declaring("c", "library", "titles")}
    with fake_host(storekeeper_stacks=stacks) as fake:
        assert declared.compared_stacks(fake.host) == ["a", "c"]
    with fake_host(storekeeper_stacks=stacks, stack="c") as fake:
        assert declared.compared_stacks(fake.host) == ["c"]
    with fake_host(storekeeper_stacks=stacks, rule="titles") as fake:
        assert declared.compared_stacks(fake.host) == ["c"]
        assert fake.said.lines == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"stack": "b"}, "b declares no rule, so nothing says what its stores must agree on"),
        ({"stack": "d"}, "has no stack 'd'; it has a, b"),
        ({"rule": "titles"}, "has no rule 'titles'; it has library"),
        ({"stack": "b", "rule": "library"}, "has no rule 'library'; it has none"),
        ({"rule": "--yes"}, "cannot begin with a dash"),
    ],
    ids=str,
)
def test_a_rule_or_stack_that_cannot_be_looked_at_is_refused_and_never_means_that_all_agrees(data, said):
    stacks = {"a": declaring("a", "library"), "b": declaring("b")}
    with fake_host(storekeeper_stacks=stacks, **data) as fake, pytest.raises(SystemExit, match=said):
        declared.compared_stacks(fake.host)


def test_a_host_whose_stacks_declare_no_rule_is_told_so():
    with fake_host(storekeeper_stacks={"b": declaring("b")}) as fake:
        assert declared.compared_stacks(fake.host) == []
        assert "no stack of this host declares a rule: nothing is done" in fake.said.text
    with fake_host() as fake:
        assert declared.compared_stacks(fake.host) == []
        assert fake.said.lines == ["[@fake/prod-ai-1] no stack is declared for this host: nothing is done"]


def test_a_stack_file_with_a_mistake_stops_a_look_before_any_host_is_touched(tmp_path: Path):
    (tmp_path / "a.yml").write_text(declaring("a", "library").replace("replicas", "replica"))
    mistake = r"a\.yml:8:5: consistency\.library: unknown key \"replica\""
    with fake_host(storekeeper_stacks={"a": tmp_path / "a.yml"}) as fake, pytest.raises(SystemExit, match=mistake):
        declared.compared_stacks(fake.host)


def test_the_stack_files_of_these_tests_declare_what_they_say():
    assert list(check_text(declaring("a", "library", "titles"), "a").consistency) == ["library", "titles"]
    assert not check_text(declaring("a"), "a").consistency

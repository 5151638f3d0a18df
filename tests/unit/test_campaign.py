"""The fault campaign's own bookkeeping: what counts as held, and that no case is without its tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import PARTS, words_of
from tests.faults.catalogue import CASES, GROUPS
from tests.faults.guards import GUARDS
from tests.harness.campaign import Case, Found, SwitchedOff
from tests.harness.faults_page import not_held, render
from tests.harness.mutation import Guard, replaced

TESTS = Path(__file__).parents[1]


def marked(kind: str) -> set[str]:
    """The cases that some test of the tree names outright with this mark; what a table hands to a mark is seen by pytest alone."""
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
                found |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    return found


def test_every_case_has_a_test_that_holds_it() -> None:
    assert set(CASES) - marked("fault") == set()


def test_every_case_has_a_control_that_shows_its_damage() -> None:
    """A guard that is switched off in a copy is one: tests/faults/test_guards.py marks its cases while it runs."""
    assert set(CASES) - marked("control") - {case for guard in GUARDS for case in guard.cases} == set()


def test_every_case_belongs_to_a_group() -> None:
    assert {case[0] for case in CASES} == set(GROUPS)


@pytest.mark.parametrize(
    ("case", "holds"),
    [
        (Case(passed=["a"], controls=["b"]), True),
        (Case(passed=["a"]), False),
        (Case(controls=["b"]), False),
        (Case(passed=["a"], controls=["b"], failed=["a"]), False),
        (Case(), False),
    ],
)
def test_a_case_is_held_only_by_a_test_and_a_control_that_both_passed(case: Case, holds: bool) -> None:
    page = render({"faults": found(A2=case)})
    row = next(line for line in page.splitlines() if line.startswith("| A2 |"))
    assert ("| held |" in row, "| **not held** |" in row) == (holds, not holds)
    assert f"{int(holds)} of {len(CASES)} cases held" in page


def test_a_case_is_what_all_parts_say_of_it() -> None:
    """A test in one part and its control in another hold it; one that failed anywhere does not."""
    held, shown, failed = Case(passed=["a"], figures=["9 kills"]), Case(controls=["b"]), Case(failed=["c"])
    assert "A2" not in not_held({"faults": found(A2=held), "guards": found(A2=shown)})
    assert "A2" in not_held({"faults": found(A2=held), "guards": found(A2=shown), "stores": found(A2=failed)})
    assert "| held | 9 kills | 1 | 1 |" in render({"faults": found(A2=held), "guards": found(A2=shown)})


def test_what_a_part_found_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole = found(A2=Case(["9 kills"], ["a"], ["b"], ["c"]))
    whole.guards.append(SwitchedOff("fsync", "without `x` (f.py)", ["test_it_is_durable"]))
    whole.write(tmp_path / "part.json")
    assert Found.read(tmp_path / "part.json") == whole


def test_every_test_of_the_campaign_is_run_by_exactly_one_part() -> None:
    def of(part: str) -> set[Path]:
        words = words_of(part)
        ignored = [TESTS.parent / word.removeprefix("--ignore=") for word in words if word.startswith("--")]
        files = {file for word in words if not word.startswith("--") for file in below(TESTS.parent / word)}
        return {file for file in files if not any(file.is_relative_to(each) for each in ignored)}

    parts = [of(part) for part in PARTS]
    assert set.union(*parts) == set(TESTS.rglob("test_*.py"))
    assert sum(map(len, parts)) == len(set.union(*parts))


def below(path: Path) -> set[Path]:
    return {path} if path.is_file() else set(path.rglob("test_*.py"))


def found(**cases: Case) -> Found:
    return Found("2026-11-21 10:00", 180, "abc1234", ["Python 3.11.7"], cases=dict(cases))


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_it_is_said_to_stand_and_names_cases_and_tests_that_exist(guard: Guard) -> None:
    source = (TESTS.parent / guard.file).read_text(encoding="utf-8")
    ast.parse(replaced(source, guard))
    assert guard.cases
    assert set(guard.cases) <= set(CASES)
    assert guard.tests
    for test in guard.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in functions(TESTS.parent / file)


def test_the_guards_whose_loss_is_worst_are_switched_off_in_every_run() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
    assert len([guard for guard in GUARDS if guard.always]) == 8


def test_the_page_says_of_each_guard_what_was_switched_off_and_what_caught_it() -> None:
    guards = [SwitchedOff("fsync", "without `a | b` (f.py)", ["test_it_is_durable"]), SwitchedOff("a lock", "`x` → `y` (f.py)", [])]
    run = found()
    run.guards += guards
    page = render({"guards": run})
    assert r"| fsync | without `a \| b` (f.py) | it is durable |" in page
    assert "| a lock | `x` → `y` (f.py) | **nothing** |" in page
    assert "1 of 2 were noticed" in page


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    a()\n    b()\n", "    a()\n", "without `b()` (f.py)"),
        ("    if x:\n        y\n", "    if False:\n        y\n", "`if x:` → `if False:` (f.py)"),
        ("a\n", "a\nb\n", "with `b` (f.py)"),
        ("x" * 300, "", f"without `{'x' * 100} …` (f.py)"),
    ],
)
def test_a_change_is_told_by_the_lines_that_differ(old: str, new: str, said: str) -> None:
    assert Guard("", "", (), "f.py", old, new, ()).change == said


def test_a_guard_that_has_moved_or_stands_twice_is_an_error_and_not_a_change() -> None:
    guard = Guard("g", "", (), "f.py", "guard", "", ())
    assert replaced("a guard b", guard) == "a  b"
    for source in ("none", "guard guard"):
        with pytest.raises(AssertionError, match=r"stands [02] times in f\.py"):
            replaced(source, guard)


INNER = """
import pytest
pytestmark = pytest.mark.fault("A2")

def test_holds(campaign):
    trials = campaign.trials(reduced=20, full=1000)
    campaign.found(trials, "kills", "0 invalid sets listed")

@pytest.mark.control("A1")
def test_fails():
    assert False
"""
REGISTER = """
[pytest]
markers =
    fault: a case
    control: a case
    timeout: seconds
"""


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """A directory with two tests, whose run can be told to write `found.json`."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n", encoding="utf-8")
    (tmp_path / "test_inner.py").write_text(INNER, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(REGISTER, encoding="utf-8")
    return tmp_path


def run_inner(inner: Path, *words: str) -> int:
    """How a run of these tests ends."""
    command = [sys.executable, "-m", "pytest", "--full", "--faults-found", "found.json", f"--basetemp={inner / 'inner'}", *words]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    return subprocess.run(command, cwd=inner, env=environment, capture_output=True, check=False).returncode


def test_a_run_of_the_campaign_writes_what_it_found(inner: Path) -> None:
    assert run_inner(inner) == pytest.ExitCode.TESTS_FAILED
    run = Found.read(inner / "found.json")
    assert run.tests == {"passed": 1, "failed": 1}
    assert run.cases["A2"] == Case(["1,000 kills: 0 invalid sets listed"], ["test_inner.py::test_holds"], ["test_inner.py::test_fails"], [])
    assert run.cases["A1"] == Case(failed=["test_inner.py::test_fails"])
    assert "**not held**" in next(line for line in render({"faults": run}).splitlines() if line.startswith("| A2 |"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--collect-only"], pytest.ExitCode.OK),
        (["-k", "nothing"], pytest.ExitCode.NO_TESTS_COLLECTED),
        (["-p", "interrupting"], pytest.ExitCode.INTERRUPTED),
    ],
    ids=["only a look", "no test", "interrupted"],
)
def test_a_run_that_has_found_nothing_leaves_what_the_one_before_found(inner: Path, words: list[str], code: int) -> None:
    (inner / "interrupting.py").write_text("def pytest_runtest_call(item):\n    raise KeyboardInterrupt\n", encoding="utf-8")
    (inner / "found.json").write_text("the run before", encoding="utf-8")
    assert run_inner(inner, *words) == code
    assert (inner / "found.json").read_text(encoding="utf-8") == "the run before"


def test_the_page_of_the_documentation_is_of_a_campaign_in_which_everything_held() -> None:
    page = (TESTS.parent / "docs/faults.md").read_text(encoding="utf-8")
    (held, cases) = re.findall(r"(\d+) of (\d+) cases held", page)[0]
    assert held == cases
    assert int(cases) >= 100
    assert "not held" not in page

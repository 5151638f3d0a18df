"""The fault campaign's own bookkeeping: what counts as held, and that no case is without its tests."""

from __future__ import annotations

import ast
import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.catalogue import CASES, GROUPS
from tests.harness.campaign import Case, render

TESTS = Path(__file__).parents[1]


def marked(kind: str) -> set[str]:
    """The cases that some test of the tree names with this mark."""
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
                found |= {ast.literal_eval(word) for word in node.args}
    return found


def test_every_case_has_a_test_that_holds_it() -> None:
    assert set(CASES) - marked("fault") == set()


def test_every_case_has_a_control_that_shows_its_damage() -> None:
    assert set(CASES) - marked("control") == set()


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
    page = render({"A2": case}, datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC), datetime.timedelta(minutes=3))
    row = next(line for line in page.splitlines() if line.startswith("| A2 |"))
    assert ("| held |" in row, "| **not held** |" in row) == (holds, not holds)
    assert f"{int(holds)} of {len(CASES)} cases held" in page


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


def test_a_run_of_the_campaign_writes_what_it_found_and_fails_when_a_case_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n", encoding="utf-8")
    (tmp_path / "test_inner.py").write_text(INNER, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(REGISTER, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--full", "--faults-page", "page.md", f"--basetemp={tmp_path / 'inner'}"]
    ended = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TESTS.parent)}, capture_output=True, check=False)
    row = next(line for line in (tmp_path / "page.md").read_text(encoding="utf-8").splitlines() if line.startswith("| A2 |"))
    assert "1,000 kills: 0 invalid sets listed" in row
    assert "**not held**" in row
    assert ended.returncode == 1

"""A plugin of pytest for runs inside of a run (`mutation.py`): writes how each test ended, and why, as JSON lines.

Only an assertion that did not hold counts as `failed`: a missing import, a timeout or an error of the machine proves nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

FILE = "STOREKEEPER_TEST_VERDICTS"
PASSED, FAILED, SKIPPED, BROKEN = "passed", "failed", "skipped", "broken"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.when == "call" or not report.passed:
        _tell(item.nodeid, _verdict(report, call), _words(call))
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _tell(report.nodeid, BROKEN, "it could not be collected")


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> str:
    if report.passed or report.skipped:
        return PASSED if report.passed else SKIPPED
    return FAILED if report.when == "call" and call.excinfo is not None and _is_assertion(call.excinfo.value) else BROKEN


def _is_assertion(error: BaseException) -> bool:
    """An `assert`, or `pytest.raises` around what raised nothing; a timeout is a failure of pytest's own too."""
    return isinstance(error, AssertionError) or (isinstance(error, pytest.fail.Exception) and "DID NOT RAISE" in str(error))


def _words(call: pytest.CallInfo[Any]) -> str:
    return "" if call.excinfo is None else call.excinfo.exconly(tryshort=True)[:300]


def _tell(test: str, verdict: str, words: str) -> None:
    with open(os.environ[FILE], "a", encoding="utf-8") as file:
        file.write(json.dumps([test, verdict, words]) + "\n")

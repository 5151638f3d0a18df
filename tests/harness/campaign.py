"""The fault campaign: which case a test holds, how many trials it runs, and what it found.

`make test` runs each case with few trials, `make faults` (tests/campaign.py) with all of them, part by part.
"""

from __future__ import annotations

import datetime
import json
import platform
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import pytest

from tests.faults.catalogue import CASES
from tests.harness.postgresql import programs_of

# What travels from a test to the page stands in the report's own list of properties, which also crosses processes.
HOLDS, SHOWS, FIGURE, GUARD = "fault", "control", "figure", "guard"


class Campaign:
    """What a test asks for the number of its trials, and tells what they found."""

    def __init__(self, item: pytest.Item, full: bool) -> None:
        self._item = item
        self.full = full

    def trials(self, reduced: int, full: int) -> int:
        """How many trials to run: few in every run of the tests, all in the campaign."""
        return full if self.full else reduced

    def found(self, trials: int, what: str, result: str) -> None:
        """Put a figure on the page. Called after the trials, before the assertion, with what was counted, never with what is hoped for.

        >>> campaign.found(1000, "kills", f"{len(invalid)} invalid sets listed")
        """
        self._item.user_properties.append((FIGURE, f"{trials:,} {what}: {result}"))

    def switched_off(self, guard: str, change: str, caught_by: Sequence[str]) -> None:
        """Put a guard on the page, with the tests that noticed its absence. Called before the assertion that there were any."""
        self._item.user_properties.append((GUARD, [guard, change, list(caught_by)]))


@dataclass
class Case:
    """What was said of one case."""

    figures: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return bool(self.passed and self.controls) and not self.failed

    def add(self, other: Case) -> None:
        """What another part of the campaign said of it."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            for each in theirs:
                _once(mine, each)


@dataclass(frozen=True)
class SwitchedOff:
    """A guard that was switched off in a copy of the program, and the tests that noticed it."""

    guard: str
    change: str
    caught_by: Sequence[str]


@dataclass
class Found:
    """What one run of a part found: how its tests ended, each case, and the guards that were switched off."""

    began: str  # to the minute, in UTC
    seconds: int = 0
    commit: str = ""
    versions: list[str] = field(default_factory=list)
    tests: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0})
    cases: dict[str, Case] = field(default_factory=dict)
    guards: list[SwitchedOff] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Found:
        document = json.loads(path.read_bytes())
        document["cases"] = {name: Case(**each) for name, each in document["cases"].items()}
        document["guards"] = [SwitchedOff(**each) for each in document["guards"]]
        return cls(**document)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Record:
    """Gathers the reports of a run by case, and writes what was found when it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.monotonic()
        self._found = Found(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        said = report.user_properties
        name = report.nodeid.partition("[")[0]
        if not report.skipped:
            self._found.tests["passed" if report.passed else "failed"] += 1
        self._found.guards += [SwitchedOff(*found) for kind, found in said if kind == GUARD and isinstance(found, list)]
        for kind, word in said:
            if kind not in (HOLDS, SHOWS):
                continue
            case = self._found.cases.setdefault(str(word), Case())
            if not report.passed:
                _once(case.failed, name)
            elif kind == SHOWS:
                _once(case.controls, name)
            else:
                case.add(Case(figures=[str(figure) for each, figure in said if each == FIGURE], passed=[name]))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that was cut off, or that only looked which tests there are, has found nothing: what the one before found stays."""
        if session.config.option.collectonly or session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        self._found.seconds = round(time.monotonic() - self._began)
        self._found.commit, self._found.versions = _commit(), list(_versions())
        self._found.write(self._path)


def mark(items: Sequence[pytest.Item]) -> None:
    """Write what each test holds and shows into its properties; a case that the catalogue does not know is an error."""
    for item in items:
        for kind in (HOLDS, SHOWS):
            for marker in item.iter_markers(kind):
                for case in marker.args:
                    if case not in CASES:
                        raise pytest.UsageError(f"{item.nodeid}: no such case: {case!r}")
                    item.user_properties.append((kind, case))


def _once(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _commit() -> str:
    """Of which commit the program was; with a plus where something was changed since."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return said.stdout.strip() or "unknown"


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    yield f"SQLite {sqlite3.sqlite_version}"
    yield f"chromadb {_version('chromadb')}"
    yield "PostgreSQL " + ", ".join(_postgresql())
    yield f"Linux {platform.release()}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _postgresql() -> Iterator[str]:
    for major in (15, 16, 18):
        try:
            program = programs_of(major) / "postgres"
        except pytest.skip.Exception:
            continue
        yield subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


def options(parser: pytest.Parser) -> None:
    """What pytest is told by the campaign."""
    parser.addoption("--full", action="store_true", help="run every fault with its full number of trials")
    parser.addoption("--faults-found", metavar="FILE", help="write what the run found of each fault to this file")

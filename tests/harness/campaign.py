"""The fault campaign: which case a test holds, how many trials it runs, what it found, and the page that says so.

`make test` runs each case with few trials, `make faults` (`pytest --full`) with all of them and writes docs/faults.md from that run.
"""

from __future__ import annotations

import datetime
import platform
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest

from tests.faults.catalogue import CASES, GROUPS
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
    """What one run said of one case."""

    figures: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return bool(self.passed and self.controls) and not self.failed


@dataclass(frozen=True)
class SwitchedOff:
    """A guard that was switched off in a copy of the program, and the tests that noticed it."""

    guard: str
    change: str
    caught_by: Sequence[str]


class Record:
    """Gathers the reports of a run by case, and writes the page when it ends."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._cases: defaultdict[str, Case] = defaultdict(Case)
        self._guards: list[SwitchedOff] = []
        self._began = datetime.datetime.now(datetime.UTC)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        said = report.user_properties
        name = report.nodeid.partition("[")[0]
        self._guards += [SwitchedOff(*found) for kind, found in said if kind == GUARD and isinstance(found, list)]
        for kind, case in said:
            if kind == SHOWS and report.passed:
                _once(self._cases[str(case)].controls, name)
            if kind in (HOLDS, SHOWS) and not report.passed:
                _once(self._cases[str(case)].failed, name)
            if kind == HOLDS and report.passed:
                _once(self._cases[str(case)].passed, name)
                for each, figure in said:
                    if each == FIGURE:
                        _once(self._cases[str(case)].figures, str(figure))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that was cut off, or that only looked which tests there are, has found nothing: the page of the one before stays."""
        if session.config.option.collectonly or session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        took = datetime.datetime.now(datetime.UTC) - self._began
        self._page.write_text(render(self._cases, self._began, took, self._guards), encoding="utf-8")
        unheld = [case for case in CASES if not self._cases[case].holds]
        if unheld and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"{len(CASES) - len(unheld)} of {len(CASES)} cases held; {self._page} is written")
            if unheld:
                reporter.write_line(f"not held: {', '.join(unheld)}", red=True)


def render(cases: dict[str, Case], began: datetime.datetime, took: datetime.timedelta, guards: Sequence[SwitchedOff] = ()) -> str:
    """The page of one run."""
    held = sum(cases[case].holds for case in CASES if case in cases)
    counts = f"{held} of {len(CASES)} cases held on {began:%Y-%m-%d}, in {round(took.total_seconds() / 60)} minutes"
    lines = [
        "# Faults",
        "",
        f"What Storekeeper was put through, and what came of it. `make faults` runs all of it and writes this page: {counts}.",
        "",
        f"With {', '.join(_versions())}.",
        "",
        "Each case has tests that inject the fault into real stores, and at least one control: the same fault without the guard, which",
        "must do its damage. Figures are counts of that run; a case without one has no count beyond its tests. `make test` holds the",
        "same with fewer trials.",
    ]
    for letter, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| case | what goes wrong | result | figures | tests | controls |", "|---|---|---|---|---|---|"]
        for case, fault in CASES.items():
            if case[0] == letter:
                lines.append(_row(case, fault, cases.get(case, Case())))
    lines += _about_guards(guards)
    return "\n".join(lines) + "\n"


def _row(case: str, fault: str, found: Case) -> str:
    result = "held" if found.holds else "**not held**"
    return f"| {case} | {fault} | {result} | {'<br>'.join(found.figures)} | {len(found.passed)} | {len(found.controls)} |"


def _about_guards(guards: Sequence[SwitchedOff]) -> Iterator[str]:
    """What is left of the suite's eyes: a guard whose absence nothing notices could be lost in any change."""
    if not guards:
        return
    noticed = sum(bool(each.caught_by) for each in guards)
    yield from ("", "## Guards", "")
    yield f"Each guard was switched off in a copy of the program, one at a time, and {noticed} of {len(guards)} were noticed: a test"
    yield from ("that passes without the change fails with it, by an assertion.", "")
    yield from ("| guard | switched off by | caught by |", "|---|---|---|")
    for each in guards:
        caught = "<br>".join(name.removeprefix("test_").replace("_", " ") for name in each.caught_by) or "**nothing**"
        yield f"| {each.guard} | {_cell(each.change)} | {caught} |"


def _cell(text: str) -> str:
    """A bar would end the cell, also inside of code."""
    return text.replace("|", "\\|")


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
    """What pytest is told by `make faults`."""
    parser.addoption("--full", action="store_true", help="run every fault with its full number of trials")
    parser.addoption("--faults-page", metavar="FILE", help="write what the run found of each fault to this page")

"""What holds for all tests: the header that names what is tested, in CI that a skipped part is a failure, and what many of them need."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from storekeeper.sets.repository import StackSets
from storekeeper.stores.surroundings import Surroundings
from tests.harness import campaign as faults
from tests.harness import chroma
from tests.harness.postgresql import Server, start_server, surroundings
from tests.harness.sets import open_sets, write_source
from tests.harness.stacks import Lab, make_lab

IN_CI = os.environ.get("CI") == "true"
RANK = os.getpriority(os.PRIO_PROCESS, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    faults.options(parser)


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what it puts in the background deaf to SIGINT, and with it every program under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.full:
        config.option.timeout = 4 * 3600
    if config.option.faults_found:
        config.pluginmanager.register(faults.Record(Path(config.option.faults_found)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    faults.mark(items)


@pytest.fixture(autouse=True)
def usual_rank() -> Iterator[None]:
    """A verb that a test carries out in this process lowers its thread for good: the tests after it, and what they start, keep their rank.

    Without the privilege to raise it again, they do not.
    """
    yield
    if os.getpriority(os.PRIO_PROCESS, 0) != RANK:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, RANK)


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> faults.Campaign:
    """How many trials to run, and where to say what they found."""
    return faults.Campaign(request.node, request.config.option.full)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the sets of `sets` are published of."""
    return write_source(tmp_path / "source")


@pytest.fixture
def sets(tmp_path: Path) -> StackSets:
    """A stack's sets, of which there are none yet."""
    return open_sets(tmp_path)


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A stack of one database and a tree of files that hold `one`; under `pytest.mark.lab` of what that says, and empty."""
    marked = request.node.get_closest_marker("lab")
    made = make_lab(tmp_path, **(marked.kwargs if marked else {"sqlites": 1, "services": 0}))
    if marked is None:
        made.write("one")
    yield made
    made.close()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A Chroma directory for each of two words, its vectors in files of their own: what tests/harness/stacks.py: chroma_part takes."""
    made = {word: tmp_path_factory.mktemp(word) for word in ("first", "second")}
    for word, path in made.items():
        chroma.execute(path, "load(collection(arguments['name'], sync=100), 300, 8)", name=f"{word}-papers")
    return made


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    """What a store knows of its host, with directories that a server's user can reach."""
    with surroundings() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server of the newest version, with a socket and a port."""
    with start_server(major=18, tcp=True) as running:
        yield running


def pytest_report_header() -> list[str]:
    tools = ", ".join(f"{name} {'found' if shutil.which(name) else 'missing'}" for name in ("zstd", "strace", "faketime", "systemd-nspawn"))
    who = "root" if os.geteuid() == 0 else "not root"
    return [f"storekeeper: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {who}, {tools}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if IN_CI and skipped:
        terminalreporter.section("a skipped part is a failure in CI", red=True)
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

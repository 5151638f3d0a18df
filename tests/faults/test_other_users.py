"""Another user of the host: can read nothing of what is kept, and cannot lead the program's files elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness.campaign import Campaign
from tests.harness.postgresql import Server, reachable_directory, start_server
from tests.harness.program import Program

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")]

NOBODY = 65534
PIDS_AHEAD = 400


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@dataclass
class Spied:
    looks: int = 0
    entered: set[str] = field(default_factory=set)  # directories below the roots that could be listed
    read: set[str] = field(default_factory=set)  # files that could be opened


@contextmanager
def _spying(*roots: Path) -> Iterator[Spied]:
    """A process of user nobody that opens whatever it can below some directories, again and again, until the block ends."""
    home = reachable_directory()
    told = home / "told"
    pid = os.fork()
    if pid == 0:
        try:
            found = Spied()
            ended: list[int] = []
            signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
            os.chown(home, NOBODY, NOBODY)
            _become_nobody()
            while not ended or not found.looks:
                for root in roots:
                    _look_into(root, found)
                found.looks += 1
                time.sleep(0.005)
            told.write_text(json.dumps([found.looks, sorted(found.entered), sorted(found.read)]))
        finally:
            os._exit(0)
    spied = Spied()
    try:
        yield spied
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        looks, entered, read = json.loads(told.read_text())
        spied.looks, spied.entered, spied.read = looks, set(entered), set(read)
        shutil.rmtree(home)


def _look_into(place: Path, found: Spied) -> None:
    try:
        with os.scandir(place) as entries:
            names = list(entries)
    except OSError:
        return  # this is what should happen
    found.entered.add(str(place))
    for entry in names:
        if entry.is_dir(follow_symlinks=False):
            _look_into(Path(entry.path), found)
            continue
        try:
            with open(entry.path, "rb") as file:
                file.read(1)
        except OSError:
            continue
        found.read.add(entry.path)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18) as running:
        running.run("create database app")
        running.run("create table t as select generate_series(1, 20000) as n", "app")
        yield running


@pytest.fixture
def program(server: Server) -> Iterator[Program]:
    """Below a directory that everybody may enter; its scratch directory is one that everybody may write to, as /var/tmp is."""
    root = reachable_directory()
    program = Program(root / "host")
    program.root.chmod(0o755)
    program.declare_small()
    live = program.root / "live/demo"
    (root / "scratch").mkdir()
    (root / "scratch").chmod(0o1777)
    settings = f"repository: {program.repository}\nstate: {program.state}\nscratch: {root}/scratch\n"
    (program.config / "storekeeper.yml").write_text(settings)
    stores = f"  main: {{kind: sqlite, path: {live}/main.db}}\n  papers: {{kind: files, path: {live}/papers}}\n"
    stores += f"  db: {{kind: postgresql, database: app, user: postgres, host: {server.socket}, programs: {server.programs}}}\n"
    program.declare(f"stack: demo\nstores:\n{stores}")
    yield program
    shutil.rmtree(root)


RUNS = (
    ["backup", "demo"],
    ["verify", "demo"],
    ["prove", "demo"],
    ["restore", "demo", "latest", "--yes", "--nobody-uses", "papers"],
    ["restore", "demo", "--back", "--yes", "--nobody-uses", "papers"],
)


@pytest.mark.fault("H12")
def test_another_user_can_open_nothing_of_sets_state_and_scratch_copies_while_the_program_works_and_after(
    program: Program, campaign: Campaign
) -> None:
    scratch = program.root.parent / "scratch"
    with _spying(program.repository, program.state, scratch) as spied:
        for words in RUNS if campaign.full else RUNS[:3:2]:
            ended = program.run(*words)
            assert ended.code in (0, 4), ended.err
    with _spying(program.repository, program.state, scratch) as after:
        time.sleep(0.1)
    looks, read = spied.looks + after.looks, spied.read | after.read
    campaign.found(looks, "looks of another user into sets, state and scratch copies", f"{len(read)} files opened")
    assert read == set()
    assert (spied.entered | after.entered) <= {str(scratch)}, "and no directory of ours is listed"
    assert spied.looks > 20
    assert list(scratch.iterdir()) == []


@pytest.mark.control("H12")
def test_control_a_copy_that_is_made_as_it_comes_is_read_by_that_user(program: Program) -> None:
    """The same look at sets that were copied away with ordinary modes."""
    assert program.run("backup", "demo").code in (0, 4)
    copy = program.root / "copy"
    with _spying(copy) as spied:
        copy.mkdir()
        for path in sorted(program.repository.rglob("*")):
            target = copy / path.relative_to(program.repository)
            if path.is_dir():
                target.mkdir()
            else:
                target.write_bytes(path.read_bytes())
        time.sleep(0.1)
    assert any(name.endswith("manifest.json") for name in spied.read)


@pytest.mark.fault("H11")
def test_names_that_another_user_made_first_in_the_scratch_directory_lead_nowhere(program: Program, server: Server) -> None:
    """Links under every name of the next processes that could be foreseen: no file of ours is made behind one, and no victim is changed."""
    scratch = program.root.parent / "scratch"
    victim = program.root / "victim"
    victim.write_text("precious")
    assert program.run("backup", "demo").code in (0, 4)
    links = _make_links(scratch, victim)
    for words in RUNS[2:4]:
        ended = program.run(*words)
        assert ended.code in (0, 4), ended.err
    assert victim.read_text() == "precious"
    left = {path.name for path in scratch.iterdir()}
    assert left <= links, "nothing of ours stays behind"
    assert server.ask("select count(*) from t", "app") == 20000


def _make_links(scratch: Path, victim: Path) -> set[str]:
    """As nobody, whom the directory's mode lets in."""
    pid = os.fork()
    if pid == 0:
        try:
            _become_nobody()
            for number in range(os.getpid(), os.getpid() + PIDS_AHEAD):
                fixed = f"pg_restore-{number}.list"
                for name in (fixed, f".{fixed}.{number}.new", f"passfile-{number}", f"storekeeper-{number}"):
                    os.symlink(victim, scratch / name)
            for name in ("server", "directory", "pg_restore.list", "storekeeper-demo", "demo", "copy", ".storekeeper"):
                os.symlink(victim, scratch / name)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    made = {path.name for path in scratch.iterdir()}
    assert len(made) > PIDS_AHEAD
    return made

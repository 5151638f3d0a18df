"""Faults at the level of the program that people type: how it ends, what its document says, what is on disk, what lives on.

Each case holds all of that at once; where a guard is shown, its control takes the guard away and sees the damage.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.cli.main import main
from storekeeper.host import space
from storekeeper.stores.trees import is_settled
from tests.harness.damage import flip
from tests.harness.mounts import disk, fill
from tests.harness.program import CHECKOUT, RESTORE_LATEST, Ended, Program, hold_to


@pytest.mark.fault("B1")
def test_one_flipped_bit_fails_verify_and_no_verb_uses_the_set_any_more(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    assert program.run("backup", "demo").code == 0
    flip(program.newest() / "main/database.sqlite")
    before = program.live()
    document = hold_to(program.answer("verify", "demo"), 1, "failed", "main/database.sqlite is altered")
    assert document["result"]["sets"][0]["stores"]["main"]["outcome"] == "failed"
    assert program.sets() == [(1, "verified"), (2, "damaged")]
    hold_to(program.answer("restore", "demo", program.newest().name, "--yes"), 2, "refused", "is damaged")
    hold_to(program.answer("prove", "demo"), 1, "failed", "is altered")
    plan = hold_to(program.answer(*RESTORE_LATEST, "--plan"), 4, "warning", "was passed over")["result"]["plan"]
    assert plan["set"].endswith("-000001")
    assert program.live() == before


@pytest.mark.root
def test_a_scratch_disk_that_is_full_tells_nothing_of_the_set(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    settings = program.config / "storekeeper.yml"
    scratch = program.root / "scratch"
    settings.write_text(settings.read_text().replace(f"scratch: {program.root}", f"scratch: {scratch}"))
    with disk(scratch, "64k", mode="1777"):
        ballast = fill(scratch)
        hold_to(program.answer("prove", "demo"), 3, "unknown", "No space left on device", "scratch:")
        assert program.sets() == [(1, "verified")], "and not unprovable"
        ballast.unlink()
    hold_to(program.answer("prove", "demo"), 0, "ok")
    assert program.sets() == [(1, "proven")]


@pytest.mark.root
def test_control_a_full_disk_taken_for_a_bad_set_disqualifies_it(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program.run("backup", "demo").code == 0
    settings = program.config / "storekeeper.yml"
    scratch = program.root / "scratch"
    settings.write_text(settings.read_text().replace(f"scratch: {program.root}", f"scratch: {scratch}"))
    monkeypatch.setattr(space, "is_for_want_of_room", lambda _: False)
    with disk(scratch, "64k", mode="1777"):
        program.grow(100_000)
        assert program.run("backup", "demo").code == 0
        assert main(["--config", str(program.config), "--json", "prove", "demo"]) == 1
    assert program.sets()[-1] == (2, "unprovable")


def test_a_store_that_is_declared_as_another_kind_is_not_proven_and_not_disqualified(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    other = f"stack: demo\nstores:\n  main: {{kind: files, path: {program.root}/live}}\n"
    program.declare(other)
    hold_to(program.answer("prove", "demo"), 3, "unknown", "is declared as files, the set holds sqlite")
    assert program.sets() == [(1, "verified")]


@pytest.mark.fault("C1", "C3", "C9", "C13")
def test_the_last_good_set_outlives_newer_bad_ones_and_prune_says_so(program: Program) -> None:
    """C1, C3, C9, C13 as one evening at a terminal."""
    program.declare(
        (program.config / "stacks/demo.yml").read_text() + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 1}}\n"
    )
    assert program.run("backup", "demo").code == 0
    good = program.newest()
    assert program.run("pin", "demo", good.name).code == 0
    for _ in range(2):
        assert program.run("backup", "demo").code == 0
        program.grow()
    (program.repository / "demo/notes.txt").write_text("mine")
    flip(program.newest() / "main/database.sqlite")
    assert program.run("verify", "demo", "--all").code == 1
    assert program.run("unpin", "demo", good.name).code == 0
    document = hold_to(program.answer("prune", "demo"), 0, "ok")
    assert document["result"]["removed"] == []
    assert program.sets() == [(1, "verified"), (3, "damaged")]
    assert (program.repository / "demo/notes.txt").read_text() == "mine"


@pytest.mark.fault("C2")
@pytest.mark.control("C2")
def test_after_a_failed_backup_prune_removes_nothing(program: Program) -> None:
    """C2: what is there may be all that there will be. The control: the same prune after a good one removes."""
    for _ in range(3):
        assert program.run("backup", "demo").code == 0
        program.grow()
    program.declare(
        (program.config / "stacks/demo.yml").read_text() + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 1}}\n"
    )
    content = program.database().read_bytes()
    program.database().write_bytes(b"no database at all" * 100)
    hold_to(program.answer("backup", "demo"), 1, "failed", "main.db")
    hold_to(program.answer("prune", "demo"), 2, "refused", "nothing was removed", "storekeeper")
    assert len(program.sets()) == 3
    program.database().write_bytes(content)
    assert program.run("backup", "demo").code == 4, "three of four sets would go: that needs somebody's word"
    assert program.run("prune", "demo", "--yes").code == 0
    assert len(program.sets()) == 1, "the control"


def test_a_working_directory_that_is_gone_is_no_crash(program: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [sys.executable, "-P", "-m", "storekeeper", "--config", "etc", "--json", "list", "demo"]
    done = subprocess.run(
        ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *words],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    hold_to(Ended(done.returncode, done.stdout, done.stderr), 2, "refused", "expected an absolute path")


def test_a_restore_that_is_killed_at_any_moment_leaves_both_stores_on_one_side_and_is_ended_by_resume(program: Program) -> None:
    """E-1 from outside: the process itself is killed, whatever it is doing."""
    assert program.run("backup", "demo").code == 0
    old = program.live()
    taken = program.newest().name
    started = time.monotonic()
    assert program.run("restore", "demo", taken, "--yes", "--nobody-uses", "papers").code == 0
    whole = time.monotonic() - started
    killed = 0
    for part in (0.55, 0.65, 0.75, 0.85, 0.95):
        with closing(sqlite3.connect(program.database())) as database, database:
            database.execute("insert into documents (title) values ('new')")
        (program.root / "live/demo/papers/new.txt").write_text("new")
        new = program.live()
        process = program.start("restore", "demo", taken, "--yes", "--nobody-uses", "papers")
        time.sleep(whole * part)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert program.answer("resume", "demo").code in (0, 4)
        assert program.live() in (old, new)
        assert program.answer("resume", "demo").document["result"] == {"ended": None}
        assert program.run("restore", "demo", taken, "--yes", "--nobody-uses", "papers").code == 0
        assert program.live() == old
    assert killed


def test_a_command_that_was_stopped_is_given_back_as_it_was_typed(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    taken = program.newest().name
    for wait in (0.4, 0.3, 0.2, 0.1):
        process = program.start("restore", "demo", taken, "--yes", "--nobody-uses", "papers", "--json")
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        if process.returncode == 1 and out and "was stopped by SIGINT" in out:
            break
    else:
        pytest.fail(f"no signal came at a moment that is told: {err}")
    [problem] = json.loads(out)["problems"]
    again = f"storekeeper --config {program.config} restore demo {taken} --nobody-uses papers --yes"
    assert problem["next"] == again
    assert program.run(*again.split()[3:]).code == 0, "it can be pasted"


@pytest.mark.root
def test_a_disk_that_fills_while_staging_leaves_live_data_as_it_is(program: Program) -> None:
    """E-3, refused before anything: nothing is staged, and the safety set is not even begun."""
    program.grow(200_000)
    assert program.run("backup", "demo").code == 0
    before = program.live()
    shutil.move(program.root / "live", program.root / "elsewhere")
    with disk(program.root / "live", "700k", mode="0755") as small:
        shutil.copytree(program.root / "elsewhere", small, dirs_exist_ok=True)
        ballast = fill(small)
        refused = hold_to(program.answer(*RESTORE_LATEST), 2, "refused", "restore needs", str(small))
        assert refused["result"] is None
        ballast.unlink()
        assert (program.live(), program.sets()) == (before, [(1, "verified")])


def test_a_clock_that_was_put_back_does_not_make_files_look_as_if_they_were_being_written(tmp_path: Path) -> None:
    """Chroma's files are copied when they rest. The control: a file of this very moment is not settled."""
    (tmp_path / "file").write_text("x")
    status = os.stat(tmp_path / "file")
    hour = 3_600_000_000_000
    assert is_settled(status, status.st_ctime_ns - hour)
    assert is_settled(status, status.st_ctime_ns + hour)
    assert not is_settled(status, status.st_ctime_ns)

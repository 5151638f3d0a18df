"""Faults of a backup, at the level of the program that people type: no room, an empty mount point, rot, a caller that is gone."""

from __future__ import annotations

import errno
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

from storekeeper.cli.calls import CALLS
from storekeeper.cli.main import main
from tests.harness.mounts import disk, fill
from tests.harness.program import CHECKOUT, RESTORE_LATEST, Program, hold_to


@pytest.mark.root
@pytest.mark.fault("A7")
def test_a_repository_without_room_refuses_a_backup_and_prune_frees_it_when_fewer_sets_are_kept(program: Program) -> None:
    """A7. The control: what is refused would fill the disk; and prune, which a failed backup forbids, is what mends this one."""
    program.grow()
    with disk(program.repository, "2m", "0700"):
        for _ in range(4):
            assert program.run("backup", "demo").code == 0
            program.grow()
        before = program.live()
        hold_to(program.answer("backup", "demo"), 2, "refused", "a backup needs", str(program.repository))
        assert (len(program.sets()), program.live()) == (4, before)
        text = (program.config / "stacks/demo.yml").read_text()
        program.declare(text + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 2}}\n")
        removed = hold_to(program.answer("prune", "demo", "--yes"), 0, "ok")["result"]["removed"]
        assert len(removed) == 2
        assert program.run("backup", "demo").code == 0


@pytest.mark.root
def test_files_that_the_set_before_holds_need_no_room_a_second_time(program: Program) -> None:
    """Half of the disk is one file: a backup of it is refused once it has changed, and taken as long as it has not."""
    program.grow(1_200_000)
    with disk(program.repository, "2m", "0700"):
        for _ in range(3):
            assert program.run("backup", "demo").code == 0
        assert program.run("restore", "demo", "latest", "--plan").code == 0
        program.grow(1_200_000)
        hold_to(program.answer("backup", "demo"), 2, "refused", "a backup needs")
        assert len(program.sets()) == 3


@pytest.mark.fault("B1")
def test_a_listing_that_rotted_costs_neither_the_next_backup_nor_the_restore_of_an_older_set(program: Program) -> None:
    for _ in range(2):
        assert program.run("backup", "demo").code == 0
    listing = program.newest() / "papers/tree.jsonl"
    listing.chmod(0o600)
    listing.write_bytes(b"\xff" + listing.read_bytes()[1:])
    first = Path(program.answer("list", "demo").document["result"]["sets"][0]["path"]).name
    assert program.answer("doctor", "demo").code in (0, 4)
    assert program.run("restore", "demo", first, "--plan").code == 0
    assert program.run("backup", "demo").code == 0
    assert program.answer("verify", "demo").document["outcome"] == "ok"


@pytest.mark.root
def test_a_state_without_room_is_said_in_a_sentence_and_nothing_is_begun(program: Program) -> None:
    with disk(program.state, "1m", "0700") as state:
        assert program.run("backup", "demo").code == 0
        ballast = fill(state)
        before = program.live()
        for words in (("backup", "demo"), ("verify", "demo"), ("prove", "demo"), RESTORE_LATEST, ("prune", "demo")):
            hold_to(program.answer(*words), 1, "failed", f"{words[0]} could not go on: No space left on device: {state}", "df -h")
        assert program.run("list", "demo").code == 0
        assert "keeping records needs" in json.dumps(program.answer("doctor").document["result"])
        ballast.unlink()
        assert (program.live(), program.sets()) == (before, [(1, "verified")])
        assert program.run("backup", "demo").code == 0


def test_a_run_whose_record_cannot_be_finished_is_told_as_it_went(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    from storekeeper.host.jobs import Job  # noqa: PLC0415

    def full(self: Job, document: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    monkeypatch.setattr(Job, "finish", full)
    assert main(["--config", str(program.config), "--json", "backup", "demo"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["result"]["set"]["state"] == "verified"
    assert "the record of this run could not be written: No space left" in document["problems"][-1]["message"]


@pytest.mark.fault("A24")
@pytest.mark.control("A24")
def test_an_empty_mount_point_is_no_repository_and_stays_empty(program: Program) -> None:
    """A24. The control: a host that has forgotten its repository makes a new one right there, on the disk below."""
    assert program.run("backup", "demo").code == 0
    program.repository.rename(program.root / "unmounted")
    program.repository.mkdir(mode=0o700)
    for words in (("backup", "demo"), ("list", "demo"), ("prune", "demo"), RESTORE_LATEST):
        hold_to(program.answer(*words), 2, "refused", "is the disk mounted?", f"mount {program.repository}")
    assert list(program.repository.iterdir()) == []
    (program.state / "repository-id").unlink()
    assert program.run("backup", "demo").code == 0
    assert list(program.repository.iterdir()), "the control"


def test_retention_that_fails_does_not_make_a_published_set_a_failure(program: Program, capsys, monkeypatch) -> None:
    from storekeeper.outcomes import Failed  # noqa: PLC0415
    from storekeeper.verbs import backup as verb  # noqa: PLC0415

    def broken(*_: object, **__: object) -> None:
        raise Failed("the trash could not be emptied")

    monkeypatch.setattr(verb, "apply_retention", broken)
    assert main(["--config", str(program.config), "--json", "backup", "demo"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["result"]["set"]["state"], document["result"]["retention"]) == ("verified", None)
    assert program.sets() == [(1, "verified")]


def test_a_record_that_cannot_be_read_does_not_keep_the_next_run_from_beginning(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    [record] = (program.state / "jobs/demo").glob("*.json")
    record.write_text("{")
    hold_to(program.answer("backup", "demo"), 0, "ok")
    hold_to(program.answer("jobs", "demo"), 3, "unknown", str(record))
    assert (len(program.sets()), record.read_text()) == (2, "{")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_caller_that_closed_its_streams_gets_its_backup_and_no_byte_goes_where_it_does_not_belong(program: Program, closed: str) -> None:
    """A closed stream's number is given to the next file that is opened: what is printed would be written into a store or a set."""
    words = " ".join([sys.executable, "-m", "storekeeper", "--config", str(program.config), "backup", "demo"])
    done = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=CHECKOUT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    hold_to(program.answer("verify", "demo", "--all"), 0, "ok")
    assert (program.sets(), program.rows()) == ([(1, "verified")], 40)


def test_control_a_closed_stream_s_number_goes_to_the_next_file(tmp_path: Path) -> None:
    code = f"import os; print(os.open({str(tmp_path / 'store.db')!r}, os.O_CREAT | os.O_RDWR), file=open('/dev/stderr', 'w'))"
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" >&-'], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "1"


def test_many_large_files_of_sqlite_take_no_more_memory_than_small_ones(program: Program) -> None:
    small, large = _peak(program, rows=100), _peak(program, rows=60_000)
    assert large < small + 12_000, f"{small} kB grew to {large} kB"


def _peak(program: Program, rows: int) -> int:
    """Kilobytes that a backup of three databases took at most."""
    paths = [program.root / f"live/{rows}-{number}.db" for number in range(3)]
    for path in paths:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("pragma journal_mode = wal")
            database.execute("create table documents (id integer primary key, body text)")
            database.executemany("insert into documents (body) values (?)", (("x" * 400,) for _ in range(rows)))
    stores = "".join(f"  s{number}: {{kind: sqlite, path: {path}}}\n" for number, path in enumerate(paths))
    program.declare(f"stack: many\nstores:\n{stores}", "many")
    pid = os.fork()
    if pid == 0:
        os.execv(sys.executable, program.argv("backup", "many", "--quiet"))
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shutil.rmtree(program.repository)
    shutil.rmtree(program.state)
    return used.ru_maxrss


@pytest.mark.fault("A3")
def test_a_signal_that_comes_out_as_another_error_is_told_as_the_signal(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that arrives while a lock of Python's own is taken again leaves as `cannot release un-acquired lock`."""

    def interrupted(_desk: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    monkeypatch.setitem(CALLS, "backup", interrupted)
    assert main(["--config", str(program.config), "--json", "backup", "demo"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["message"] == "backup was stopped by SIGTERM before its end"

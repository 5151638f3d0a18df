"""Records of runs: written first, finished last, bounded, and truthful about a run that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from storekeeper.host import jobs, locks
from storekeeper.host.jobs import Record, recorded, records
from storekeeper.outcomes import Refused, Unknown
from storekeeper.stack.config import Places
from storekeeper.verbs.jobs import list_jobs, records_of
from tests.harness.program import CHECKOUT

_DONE = {"outcome": "ok", "seconds": 1.5, "problems": []}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "jobs/demo"
    folder.mkdir(parents=True)
    return folder


def only(folder) -> Record:
    (found,) = records(folder)
    return found


def test_a_run_is_on_record_while_it_runs_and_finished_with_its_document(folder):
    with recorded(folder, "backup", "demo", {"set": "latest"}) as job:
        during = only(folder)
        assert (during.running, during.outcome, during.pid, during.arguments) == (True, None, os.getpid(), {"set": "latest"})
        job.finish(_DONE)
    after = only(folder)
    assert (after.running, after.outcome, after.seconds, after.message) == (False, "ok", 1.5, None)
    assert after.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [after.path.name], "nothing else is left"


def test_a_run_that_ends_without_a_word_is_interrupted(folder):
    with pytest.raises(KeyboardInterrupt), recorded(folder, "backup", "demo", {}):
        raise KeyboardInterrupt
    assert (only(folder).running, only(folder).interrupted, only(folder).outcome) == (False, True, "failed")


def test_a_program_that_outlives_a_killed_run_does_not_make_it_look_alive(folder):
    code = (
        "import os, pathlib, subprocess, sys\n"
        "from storekeeper.host import jobs, processes\n"
        f"with jobs.recorded(pathlib.Path({str(folder)!r}), 'backup', 'demo', {{}}):\n"
        "    child = processes.start(processes.Command(['sleep', '600']))\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    child = int(done.stdout)
    try:
        os.kill(child, 0)  # it is there
        assert only(folder).interrupted
    finally:
        os.kill(child, 9)


def test_a_run_that_finishes_between_two_looks_is_not_called_interrupted(folder, monkeypatch):
    with recorded(folder, "backup", "demo", {}) as job:
        real = locks.is_held

        def finished_meanwhile(path):
            monkeypatch.setattr(locks, "is_held", real)
            job.finish(_DONE)
            return False

        monkeypatch.setattr(locks, "is_held", finished_meanwhile)
        assert only(folder).outcome == "ok"


def test_the_oldest_records_go_and_a_running_one_stays(folder, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT", 3)
    with recorded(folder, "backup", "demo", {}):
        oldest = only(folder).id
        for _ in range(6):
            with recorded(folder, "verify", "demo", {}) as job:
                job.keep_traceback("where it crashed")
                job.finish(_DONE)
        found = records(folder)
        assert found[0].id == oldest
        assert len(found) == 4, "three, and the one that still runs"
        assert len(list(folder.glob("*.traceback"))) == 3


def test_control_without_room_being_made_records_would_pile_up(folder, monkeypatch):
    monkeypatch.setattr(jobs, "_make_room", lambda _: None)
    monkeypatch.setattr(jobs, "KEPT", 3)
    for _ in range(6):
        with recorded(folder, "verify", "demo", {}) as job:
            job.finish(_DONE)
    assert len(records(folder)) == 6


def test_runs_of_one_second_have_records_of_their_own(folder):
    with recorded(folder, "backup", "demo", {}) as first, recorded(folder, "backup", "demo", {}) as second:
        assert first.id != second.id
        first.finish(_DONE)
        second.finish(_DONE)
    assert [record.id for record in records(folder)] == [first.id, second.id]


def test_a_record_that_cannot_be_read_is_unknown_and_not_passed_over(tmp_path, folder):
    (folder / "20250109T030000Z-backup-00000000.json").write_text("{")
    places = Places(config=tmp_path, repository=tmp_path / "sets", state=tmp_path, scratch=tmp_path)
    with pytest.raises(Unknown, match="is no job's record"):
        records_of(places, "demo")


def test_runs_of_a_stack_that_is_declared_no_more_are_still_shown(tmp_path, folder):
    with recorded(folder, "backup", "demo", {}) as job:
        job.finish({**_DONE, "outcome": "failed", "problems": [{"message": "the disk is full"}]})
    (tmp_path / "etc").mkdir()
    places = Places(config=tmp_path / "etc", repository=tmp_path / "sets", state=tmp_path, scratch=tmp_path)
    (shown,) = list_jobs(places, "demo").result["jobs"]
    assert (shown["outcome"], shown["message"]) == ("failed", "the disk is full")
    assert list_jobs(places, None).result["jobs"] == [shown]
    for name in ("nosuch", "../demo", "."):
        with pytest.raises(Refused):
            list_jobs(places, name)


def test_a_host_without_any_run_says_so_plainly(tmp_path):
    places = Places(config=tmp_path, repository=tmp_path / "sets", state=tmp_path / "state", scratch=tmp_path)
    assert list_jobs(places, None).result == {"jobs": []}
    assert records(tmp_path / "nowhere") == []


def test_a_record_is_whole_json_at_every_moment(folder):
    with recorded(folder, "backup", "demo", {}) as job:
        assert json.loads(job.path.read_text())["document"] is None
        job.finish(_DONE)
        assert json.loads(job.path.read_text())["document"] == _DONE

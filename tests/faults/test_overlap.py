"""Runs that meet: at once, one after a kill or a reboot, and one that takes longer than the time between two."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from storekeeper.cli.main import main
from storekeeper.host import locks
from storekeeper.verbs import attention
from storekeeper.verbs import backup as verb
from tests.harness.campaign import Campaign
from tests.harness.program import Program

RUNS = 10
_PATIENCE = 60.0


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.declare_small()
    assert program.run("backup", "demo").code == 0
    return program


class Meeting:
    """Ten backups that begin together; one that has the lock stays at work until all others have ended or are at work too."""

    def __init__(self, program: Program, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = program
        self._place = place
        self._real = verb.take_set
        place.mkdir()
        monkeypatch.setattr(verb, "take_set", self._slowly)

    def run(self) -> dict[int, dict[str, Any]]:
        """The documents of all runs by their pid; `at_work` of each is how many others were at work during it."""
        read, write = os.pipe()
        pids = [self._start(read, write) for _ in range(RUNS)]
        os.close(read)
        os.close(write)
        running, deadline = set(pids), time.monotonic() + _PATIENCE
        while running:
            for pid in [each for each in running if os.waitpid(each, os.WNOHANG)[0]]:
                running.remove(pid)
            if len(list(self._place.glob("*.at-work"))) >= len(running):
                (self._place / "go").touch()
            assert time.monotonic() < deadline, "the runs do not end"
            time.sleep(0.005)
        return {pid: json.loads((self._place / f"{pid}.json").read_text()) for pid in pids}

    @property
    def at_work(self) -> int:
        return len(list(self._place.glob("*.at-work")))

    def _start(self, read: int, write: int) -> int:
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the last one was started
            with open(self._place / f"{os.getpid()}.json", "w") as out, open(os.devnull, "w") as err:
                with redirect_stdout(out), redirect_stderr(err):
                    code = main(["--config", str(self._program.config), "--json", "--quiet", "backup", "demo"])
                out.flush()
            os._exit(code)
        return pid

    def _slowly(self, *arguments: Any, **options: Any) -> Any:
        (self._place / f"{os.getpid()}.at-work").touch()
        while not (self._place / "go").exists():
            time.sleep(0.002)
        return self._real(*arguments, **options)


@pytest.mark.fault("D1")
def test_of_ten_backups_at_once_one_works_and_nine_say_by_whom_and_since_when(
    program: Program, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
):
    rounds, overlaps, unsaid = campaign.trials(reduced=2, full=20), 0, 0
    for number in range(rounds):
        meeting = Meeting(program, program.root / f"meeting-{number}", monkeypatch)
        said = meeting.run()
        monkeypatch.undo()
        overlaps += meeting.at_work - 1
        (winner,) = (pid for pid, document in said.items() if document["outcome"] == "ok")
        refused = [document for pid, document in said.items() if pid != winner]
        unsaid += sum(not _says_who(document, winner) for document in refused)
    campaign.found(rounds * RUNS, f"backups, {RUNS} of them at once", f"{overlaps} overlaps, {unsaid} unsaid")
    assert (overlaps, unsaid) == (0, 0)
    document = program.answer("list", "demo").document
    assert [each["sequence"] for each in document["result"]["sets"]] == list(range(1, rounds + 2))


def _says_who(document: dict[str, Any], winner: int) -> bool:
    message = document["problems"][0]["message"]
    return document["outcome"] == "busy" and "backup has been running since 20" in message and f"(pid {winner})" in message


@pytest.mark.control("D1")
def test_without_the_lock_ten_backups_work_at_once(program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "hold", lambda *_: nullcontext(-1))
    meeting = Meeting(program, program.root / "meeting", monkeypatch)
    meeting.run()
    assert meeting.at_work == RUNS


@pytest.mark.fault("D3")
def test_a_lock_file_of_before_a_reboot_needs_no_hand(program: Program):
    """What a power cut leaves: the file, with the purpose and the pid of then, and no lock on it."""
    lock = program.state / "demo/lock"
    lock.write_text(json.dumps({"purpose": "backup", "pid": os.getpid(), "since": "2020-01-01T00:00:00Z"}))
    assert program.run("backup", "demo").code == 0


def start_as(pid: int) -> int | None:
    """A process of that number that sleeps; None where the kernel gave it another. The number must be free."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    child = os.fork()
    if child == 0:
        time.sleep(_PATIENCE)
        os._exit(0)
    if child == pid:
        return child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@pytest.mark.fault("D4", "D3")
@pytest.mark.control("D4", "D3")
@pytest.mark.skipif(os.geteuid() != 0, reason="choosing a process's number needs root")
def test_the_number_of_a_killed_holder_that_lives_again_holds_nothing(tmp_path: Path):
    """The control is what a file with a pid does: its holder is alive, so that it would be refused for ever."""
    lock = tmp_path / "lock"
    holder = os.fork()
    if holder == 0:
        with locks.hold(lock, "backup"):
            time.sleep(_PATIENCE)
        os._exit(0)
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.002)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    said = json.loads(lock.read_text())["pid"]
    assert said == holder
    again = next((pid for _ in range(200) if (pid := start_as(holder)) is not None), None)
    assert again is not None, "the number was never given again"
    try:
        os.kill(said, 0)  # the control: whoever looks whether that pid lives takes the lock for held
        with locks.hold(lock, "backup"):
            assert json.loads(lock.read_text())["pid"] == os.getpid()
    finally:
        os.kill(again, signal.SIGKILL)
        os.waitpid(again, 0)


@pytest.mark.fault("D6")
def test_a_run_that_is_longer_than_its_period_is_skipped_counted_and_warned_of_after_two(program: Program):
    assert program.run("prove", "demo").code == 0
    with locks.hold(program.state / "demo/lock", "backup"):
        skipped = program.answer("backup", "demo")
        assert (skipped.code, skipped.document["outcome"]) == (75, "busy")
        assert "(pid" in skipped.document["problems"][0]["message"]
        assert program.run("status", "demo").code == 0, "once is no news"
        assert program.run("backup", "demo").code == 75
    status = program.answer("status", "demo")
    messages = [problem["message"] for problem in status.document["problems"]]
    assert (status.code, messages) == (4, ["the last 2 runs of backup were skipped, another run was at work"])
    jobs = program.answer("jobs", "demo").document["result"]["jobs"]
    assert [job["outcome"] for job in jobs if job["verb"] == "backup"] == ["ok", "busy", "busy"], "counted"
    assert len(program.answer("list", "demo").document["result"]["sets"]) == 1
    assert program.run("backup", "demo").code == 0
    assert program.run("prove", "demo").code == 0
    assert program.run("status", "demo").code == 0, "one that ran takes the warning back"


@pytest.mark.control("D6")
def test_skips_that_nobody_counts_look_well(program: Program, monkeypatch: pytest.MonkeyPatch):
    assert program.run("prove", "demo").code == 0
    with locks.hold(program.state / "demo/lock", "backup"):
        for _ in range(3):
            assert program.run("backup", "demo").code == 75
    words = ["--config", str(program.config), "--quiet", "status", "demo"]
    assert main(words) == 4
    monkeypatch.setattr(attention, "_count_trailing_busy", lambda _: 0)
    assert main(words) == 0

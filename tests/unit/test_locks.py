"""Locks: one at a time, until the last program that works under them has ended, and never longer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storekeeper.host import locks
from storekeeper.outcomes import Busy, Refused

PROGRAM = Path(__file__).parents[2]

# Holds the lock, and starts a child through `processes` that goes on when this program is killed.
WORK_UNDER_A_LOCK = """
import sys
from pathlib import Path
from storekeeper.host import locks, processes

with locks.hold(Path(sys.argv[1]), "backup of demo"):
    command = processes.Command(["sleep", "60"], keeps_locks=sys.argv[2] == "keeps")
    print(processes.start(command).pid, flush=True)
    sys.stdin.read()
"""

TRY_FOR_THE_LOCK = """
import sys
from pathlib import Path
from storekeeper.host import locks
from storekeeper.outcomes import Busy

sys.stdin.readline()
try:
    with locks.hold(Path(sys.argv[1]), "backup of demo"):
        print("mine", flush=True)
        sys.stdin.readline()
except Busy as busy:
    print(busy.message, flush=True)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def start(code: str, *words: str | Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", code, *(str(word) for word in words)]
    return subprocess.Popen(argv, cwd=PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def is_free(path: Path) -> bool:
    try:
        with locks.hold(path, "test"):
            return True
    except Busy:
        return False


@pytest.mark.fault("D1")
def test_of_ten_runs_at_once_one_works_and_nine_say_who_does(lock: Path):
    processes = [start(TRY_FOR_THE_LOCK, lock) for _ in range(10)]
    for process in processes:
        say(process)
    said = {process.pid: line(process) for process in processes}
    (winner,) = (pid for pid, what in said.items() if what == "mine")
    for pid, what in said.items():
        assert pid == winner or what.startswith("backup of demo has been running since 20"), what
        assert pid == winner or f"(pid {winner})" in what
    assert not is_free(lock)
    for process in processes:
        process.communicate("\n", timeout=30)
    assert is_free(lock)


@pytest.mark.parametrize(("how", "free"), [("keeps", False), ("does not", True)])
@pytest.mark.fault("D2")
@pytest.mark.control("D2")
def test_a_killed_parent_does_not_free_the_lock_of_its_living_child(lock: Path, how: str, free: bool):
    """The control is the second case: without the descriptor a second run would start beside the child's writes."""
    parent = start(WORK_UNDER_A_LOCK, lock, how)
    child = int(line(parent))
    parent.kill()
    parent.communicate()
    try:
        assert Path(f"/proc/{child}").exists()
        assert is_free(lock) is free
    finally:
        os.kill(child, signal.SIGKILL)
    with locks.hold(lock, "test") if free else _patiently(lock):
        pass


def _patiently(lock: Path) -> object:
    """The lock goes when the kernel has taken the killed child apart: that is the child's end, not ours to time."""
    for _ in range(200):
        if is_free(lock):
            return locks.hold(lock, "test")
    raise AssertionError("the lock outlived everybody who held it")


@pytest.mark.fault("D3", "D4")
def test_a_lock_file_left_by_a_reboot_is_not_stale(lock: Path):
    """Nobody holds it: what it says of a pid is only text, also when that pid lives again."""
    lock.write_text(json.dumps({"purpose": "backup", "pid": 1, "since": "2020-01-01T00:00:00Z"}))
    assert not locks.is_held(lock)
    with locks.hold(lock, "restore of demo"):
        assert json.loads(lock.read_text())["purpose"] == "restore of demo"
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_an_old_lock_is_never_broken(lock: Path):
    with locks.hold(lock, "a long restore"):
        os.utime(lock, (0, 0))
        with pytest.raises(Busy, match="a long restore has been running"), locks.hold(lock, "backup"):
            pass


@pytest.mark.parametrize("rubbish", [b"", b"[]", b"{}", b"\xff\xfe", b"x" * 10_000])
def test_whatever_the_file_says_a_held_lock_is_busy(lock: Path, rubbish: bytes):
    with locks.hold(lock, "x"):
        lock.write_bytes(rubbish)
        with pytest.raises(Busy, match="another run holds the lock"), locks.hold(lock, "y"):
            pass


def test_looking_at_a_lock_does_not_disturb_it(lock: Path):
    assert not locks.is_held(lock)
    assert not lock.exists(), "looking makes nothing"
    with locks.hold(lock, "x"):
        assert locks.is_held(lock)
    assert not locks.is_held(lock)
    assert is_free(lock)


def test_a_link_in_the_place_of_a_lock_is_not_followed(lock: Path, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), locks.hold(lock, "x"):
        pass
    assert victim.read_text() == "precious"


def test_a_lock_is_not_readable_by_others(lock: Path):
    with locks.hold(lock, "x"):
        assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_file_system_is_refused_by_name(lock: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr(locks, "file_system_type", lambda path: kind)
    with pytest.raises(Refused, match=f"is on {kind}"), locks.hold(lock, "x"):
        pass
    assert not lock.exists()


def test_the_type_of_a_file_system_is_the_one_that_is_mounted(tmp_path: Path):
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", "/proc"], capture_output=True, text=True, check=True
    )
    assert locks.file_system_type(Path("/proc")) == found.stdout.split()[-1] == "proc"
    assert locks.file_system_type(tmp_path) != "unknown"


def test_only_held_locks_are_passed_on(lock: Path, tmp_path: Path):
    assert locks.inheritable() == ()
    with locks.hold(lock, "x") as first, locks.hold_directory(tmp_path) as held:
        assert held
        assert locks.inheritable()[0] == first
        assert len(locks.inheritable()) == 2
    assert locks.inheritable() == ()


def test_a_directory_is_shared_by_readers_or_held_by_one(tmp_path: Path):
    with locks.hold_directory(tmp_path, shared=True) as one, locks.hold_directory(tmp_path, shared=True) as two:
        assert one
        assert two
        with locks.hold_directory(tmp_path) as alone:
            assert not alone
    with locks.hold_directory(tmp_path) as alone:
        assert alone
        for shared in (True, False):
            with locks.hold_directory(tmp_path, shared=shared) as another:
                assert not another


def test_a_lock_that_was_refused_leaves_no_descriptor_behind(lock: Path, tmp_path: Path):
    with locks.hold(lock, "x"), locks.hold_directory(tmp_path):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            assert not is_free(lock)
            with locks.hold_directory(tmp_path):
                pass
        assert len(os.listdir("/proc/self/fd")) == before

"""Chroma's lock while a real server is written to: whatever becomes of the program that holds it, writers go on."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.stores.chroma.hold import ChromaHold
from tests.harness.campaign import Campaign
from tests.harness.chroma import Writer, serving, writing_to
from tests.harness.chroma_files import locked_by_another, write_to
from tests.harness.program import Program

DIMENSION = 16
CAP_S = 0.8


@pytest.fixture
def writer(live: Path) -> Iterator[Writer]:
    """A client that writes to a real server of the directory; it ends, and `look` raises, at the first write that is refused."""
    with serving(live) as server, writing_to(server, dimension=DIMENSION, batch=5) as writer:
        yield writer


@dataclass
class Holding:
    """A program of ours that holds the lock."""

    pid: int
    said: Path

    def ended(self) -> str:
        """What it said in the end: nothing when it was killed."""
        os.waitpid(self.pid, 0)
        return self.said.read_text()


@contextmanager
def _holding(live: Path, room: Path, cap_s: float) -> Iterator[Holding]:
    """A child that goes on with its backup one second after it has taken the lock, as it would after a long copy."""
    room.mkdir()
    end, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _hold_on(live, room, cap_s, start)
        except BaseException:  # noqa: BLE001 said, and the test waits for what it should have written
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(start)
    try:
        assert os.read(end, 4) == b"held"
        yield Holding(pid, room / "said")
    finally:
        os.close(end)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def _hold_on(live: Path, room: Path, cap_s: float, told: int) -> None:
    hold = ChromaHold(live, room, cap_s=cap_s)
    hold.prepare()
    hold.pin()
    os.write(told, b"held")
    time.sleep(cap_s / 2)
    try:
        hold.copy()
        hold.release()
        said = "released"
    except StorekeeperError as error:
        said = error.message
    (room / "said").write_text(said)
    os._exit(0)


def _is_held(live: Path) -> bool:
    try:
        write_to(live, wait_s=0)
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    return False


def _stall_s(writer: Writer) -> float:
    """Seconds until a batch is acknowledged that was not begun before now."""
    began = time.monotonic()
    writer.wait_for(2)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.fault("J8")
def test_writers_of_a_server_go_on_when_the_program_is_killed_while_it_holds_the_lock(
    live: Path, writer: Writer, tmp_path: Path, campaign: Campaign
) -> None:
    trials, stalls = campaign.trials(reduced=5, full=20), []
    for trial in range(trials):
        with _holding(live, tmp_path / f"work-{trial}", cap_s=60) as holding:
            assert _is_held(live)
            os.kill(holding.pid, signal.SIGKILL)
            stalls.append(_stall_s(writer))
            assert not holding.said.exists()
    said = f"writes stood still for {max(stalls):.1f} s at most, none was refused"
    writer.wait_for(1)  # it ends at the first refusal
    campaign.found(trials, "kills of the program while it holds the lock, with a writer", said)
    assert len(stalls) == trials


@pytest.mark.slow
@pytest.mark.fault("J9")
def test_writers_of_a_server_go_on_when_the_program_is_stopped_and_it_learns_that_its_copy_is_worthless(
    live: Path, writer: Writer, tmp_path: Path, campaign: Campaign
) -> None:
    trials, stalls, wrong = campaign.trials(reduced=4, full=20), [], []
    for trial in range(trials):
        with _holding(live, tmp_path / f"work-{trial}", cap_s=CAP_S) as holding:
            os.kill(holding.pid, signal.SIGSTOP)
            assert _is_held(live)
            stalls.append(_stall_s(writer))
            os.kill(holding.pid, signal.SIGCONT)
            said = holding.ended()
            if f"locked for {CAP_S:g} s at most, but" not in said:
                wrong.append(said)
    said = f"writes stood still for {max(stalls):.1f} s at most, {len(wrong)} copies taken for good"
    campaign.found(trials, f"stops of the program while it holds the lock (cap {CAP_S} s), with a writer", said)
    assert wrong == []


@pytest.mark.slow
def test_a_program_that_is_not_stopped_releases_the_lock_and_has_its_copy(live: Path, tmp_path: Path) -> None:
    with _holding(live, tmp_path / "work", cap_s=CAP_S) as holding:
        assert holding.ended() == "released"


@pytest.mark.slow
@pytest.mark.control("J8", "J9")
def test_control_a_lock_that_a_stopped_program_holds_itself_keeps_a_server_from_writing(live: Path, writer: Writer) -> None:
    """And killing whoever started that program changes nothing: the lock is not in the killed one."""
    with locked_by_another(live) as pid:
        os.kill(pid, signal.SIGSTOP)
        writer.look()
        time.sleep(0.5)  # what was under way is answered
        before = writer.look()
        time.sleep(4 * CAP_S)
        assert writer.look() == before
        os.kill(pid, signal.SIGCONT)
    writer.wait_for(2)


# --- Another tool's lock ---------------------------------------------------------------------------------------------


@pytest.mark.fault("J7")
def test_a_lock_that_another_tool_keeps_fails_the_store_and_leaves_no_copy(live: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    hold = ChromaHold(live, tmp_path / "work", wait_s=0.3)
    with locked_by_another(live):
        try:
            hold.prepare()
            with pytest.raises(Failed, match="being written by another program"):
                hold.pin()
        finally:
            hold.close()
    assert not hold.directory.exists()


@pytest.mark.slow
@pytest.mark.fault("J7")
def test_a_backup_ends_by_itself_while_another_tool_keeps_the_lock_and_the_next_one_is_whole(two: Path, tmp_path: Path) -> None:
    program = Program(tmp_path / "host")
    program.declare_small()
    live = Path(shutil.copytree(two, program.root / "live/demo/vectors"))
    before = {path.name: path.read_bytes() for path in live.rglob("*") if path.is_file()}
    stores = f"  main: {{kind: sqlite, path: {live.parent}/main.db}}\n  vectors: {{kind: chroma, path: {live}}}\n"
    program.declare(f"stack: demo\nstores:\n{stores}")
    with locked_by_another(live):
        failed = program.answer("backup", "demo")
    (said,) = [problem for problem in failed.document["problems"] if problem["severity"] == "error"]
    assert (failed.code, failed.document["outcome"], said["store"]) == (1, "failed", "vectors")
    assert "kept its lock for more than 10 s" in said["message"]
    assert program.answer("list", "demo").document["result"]["sets"] == []
    assert not list((program.repository / "demo").glob(".*.partial"))
    assert {path.name: path.read_bytes() for path in live.rglob("*") if path.is_file()} == before
    assert program.run("backup", "demo").code == 0


@pytest.mark.control("J7")
def test_control_who_asks_for_the_lock_as_the_library_does_hangs(live: Path, tmp_path: Path) -> None:
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=1000); c.execute('begin immediate')"
    with locked_by_another(live):
        pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", code, str(live / "chroma.sqlite3")])
        try:
            time.sleep(2)
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it waits on"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

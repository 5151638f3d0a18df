"""The lock on a SQLite file is never held longer than the cap, whatever happens to the program or to the process that holds it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import textwrap
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storekeeper.host import locks, processes
from storekeeper.outcomes import Failed
from storekeeper.stores import lockholder
from storekeeper.stores.lockholder import LockHolder
from tests.harness import sqlite as lab

# Takes the lock the way a backup does; after its standard input ends it lets go, and says how that went.
PROGRAM = """
    import sys
    from pathlib import Path
    from storekeeper.outcomes import Failed
    from storekeeper.stores.lockholder import LockHolder
    holder = LockHolder(Path(sys.argv[1]), cap_s=float(sys.argv[2]))
    holder.start()
    holder.take(5)
    print(holder._process.pid, flush=True)
    sys.stdin.read()
    try:
        holder.release()
        print("released", flush=True)
    except Failed as error:
        print(error.message, flush=True)
"""
# The lock without all this: in the program itself, and in a child that nobody watches.
NAIVE = """
    import sqlite3, sys, time
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("begin immediate")
    print("locked", flush=True)
    time.sleep(1000)
"""
NAIVE_CHILD = """
    import subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return lab.make(tmp_path / "live.db", 10)


def write(database: Path, timeout: float = 30) -> None:
    lab.tell(database, "insert into papers (title) values ('written')", timeout)


def is_blocked(database: Path) -> bool:
    try:
        write(database, timeout=0)
    except sqlite3.OperationalError:
        return True
    return False


def test_writers_wait_while_it_is_held_and_go_on_after(database: Path) -> None:
    holder = LockHolder(database)
    with closing(holder):
        holder.start()
        assert not is_blocked(database)
        before = datetime.now(UTC)
        moment = holder.take(5)
        assert before <= moment <= datetime.now(UTC)
        assert is_blocked(database)
        assert lab.ask(database, "select count(*) from papers") == [(11,)]
        holder.release()
        first = holder.pause_ms
        assert first > 0
        assert not is_blocked(database)
        holder.take(5)
        holder.release()
        assert holder.pause_ms > first
    holder.close()


@pytest.mark.fault("J7")
def test_a_lock_that_another_tool_keeps_is_waited_for_within_bounds(database: Path) -> None:
    with lab.program(NAIVE, database), closing(LockHolder(database)) as holder:
        holder.start()
        with pytest.raises(Failed, match=r"another program that kept its lock for more than 0.2 s"):
            holder.take(0.2)
    with closing(LockHolder(database)) as holder:
        holder.start()
        holder.take(0.2)


@pytest.mark.fault("J8")
def test_a_killed_program_takes_the_lock_with_it(database: Path) -> None:
    with lab.program(PROGRAM, database, 1000) as program:
        assert is_blocked(database)
        program.kill()
        write(database)


@pytest.mark.control("J8")
def test_control_a_child_that_nobody_watches_keeps_the_lock_of_a_killed_program(database: Path) -> None:
    with lab.program(NAIVE_CHILD, database, textwrap.dedent(NAIVE)) as program:
        child = int(program.first)
        try:
            program.kill()
            program.wait()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                write(database, timeout=1)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.fault("J9")
def test_a_stopped_program_loses_the_lock_at_the_cap_and_learns_it(database: Path) -> None:
    with lab.program(PROGRAM, database, 0.4) as program:
        program.send_signal(signal.SIGSTOP)
        write(database)
        program.send_signal(signal.SIGCONT)
        program.stdin.close()
        said = program.stdout.readline()
    assert "locked for 0.4 s at most, but" in said
    assert "s were needed" in said


@pytest.mark.control("J9")
def test_control_a_stopped_program_that_holds_the_lock_itself_blocks_writers(database: Path) -> None:
    with lab.program(NAIVE, database) as program:
        program.send_signal(signal.SIGSTOP)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write(database, timeout=1)


def test_a_copy_by_this_program_leaves_the_lock_where_it_is(database: Path, tmp_path: Path) -> None:
    with closing(LockHolder(database)) as holder:
        holder.start()
        holder.take(5)
        shutil.copy(database, tmp_path / "copy.db")
        assert is_blocked(database)


def test_control_a_copy_by_the_process_that_holds_the_lock_drops_it(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        assert _blocked_for_others(database)
        shutil.copy(database, tmp_path / "copy.db")
        assert not _blocked_for_others(database)


def _blocked_for_others(database: Path) -> bool:
    source = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
        try:
            connection.execute("insert into papers (title) values ('written')")
            print("written", flush=True)
        except sqlite3.OperationalError as error:
            print(error, flush=True)
    """
    with lab.program(source, database) as program:
        return "locked" in program.first


@pytest.mark.fault("J8", "J9")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lock_lost_with_its_process_is_never_taken_for_held(database: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockholder, "_PATIENCE", 0.3)
    with closing(LockHolder(database, cap_s=1000)) as holder:
        holder.start()
        holder.take(5)
        os.kill(holder._process.pid, how)
        with pytest.raises(Failed, match="needed"):
            holder.release()
        write(database)
        with pytest.raises(Failed, match="not locked"):
            holder.release()
        with pytest.raises(Failed, match="has ended"):
            holder.take(1)


def test_closing_ends_the_process_and_the_lock_from_any_state(database: Path) -> None:
    for steps in (0, 1, 2):
        holder = LockHolder(database)
        if steps > 0:
            holder.start()
        if steps > 1:
            holder.take(5)
        process = holder._process
        holder.close()
        holder.close()
        assert process is None or process.returncode is not None
        assert not is_blocked(database)


def test_a_key_typed_at_the_terminal_does_not_reach_the_process(database: Path) -> None:
    with closing(LockHolder(database)) as holder:
        holder.start()
        assert os.getsid(holder._process.pid) != os.getsid(0)


def test_our_own_locks_do_not_live_on_in_the_process(database: Path, tmp_path: Path) -> None:
    with closing(LockHolder(database)) as holder:
        with locks.hold(tmp_path / "stack.lock", "backup"):
            holder.start()
        assert not locks.is_held(tmp_path / "stack.lock")


def test_control_a_program_that_keeps_our_locks_holds_them_on(tmp_path: Path) -> None:
    with locks.hold(tmp_path / "stack.lock", "backup"):
        process = processes.start(processes.Command(["sleep", "1000"]))
    try:
        assert locks.is_held(tmp_path / "stack.lock")
    finally:
        processes.end(process)


def test_a_missing_file_is_not_made_and_one_that_is_no_database_is_said(tmp_path: Path) -> None:
    with closing(LockHolder(tmp_path / "missing.db")) as holder, pytest.raises(Failed, match="cannot be locked: unable to open"):
        holder.start()
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "text.db").write_text("not a database at all " * 100)
    with closing(LockHolder(tmp_path / "text.db")) as holder:
        holder.start()
        with pytest.raises(Failed, match="not a database"):
            holder.take(1)


def test_a_log_is_never_checkpointed_by_the_lock(tmp_path: Path) -> None:
    database = lab.make(tmp_path / "live.db", 0, mode="wal")
    with lab.writing(database, tmp_path / "written") as writer:
        lab.wait_for(lambda: len(lab.acknowledged(tmp_path / "written")) > 50)
        writer.kill()
        writer.wait()
    log = database.with_name("live.db-wal")
    before = (database.read_bytes(), log.read_bytes())
    with closing(LockHolder(database)) as holder:
        holder.start()
        holder.take(5)
        holder.release()
    assert (database.read_bytes(), log.read_bytes()) == before

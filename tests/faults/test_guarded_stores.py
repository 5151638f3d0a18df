"""Guards of the stores: who holds a lock, what is durable before the next step, and what one transaction holds together."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from storekeeper.host import processes
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed
from storekeeper.sets.point import one_point
from storekeeper.sets.publishing import take_set
from storekeeper.stores.chroma import catalogue
from storekeeper.stores.chroma.hold import ChromaHold
from storekeeper.stores.files.hold import FilesHold
from storekeeper.stores.lockholder import LockHolder
from storekeeper.stores.postgresql import build, side
from storekeeper.stores.postgresql.connection import access_to
from storekeeper.stores.postgresql.dump import SEQUENCES
from storekeeper.stores.sqlite.holds import CopyHold, SnapshotHold
from tests.harness import sqlite as lab
from tests.harness.chroma import execute
from tests.harness.chroma_files import enqueue, settle
from tests.harness.postgresql import Server, start_server, surroundings
from tests.harness.sets import tampered
from tests.harness.stacks import Lab, make_lab
from tests.stores.walk import Journal, take

HOLD = """
import sys
from pathlib import Path
from storekeeper.stores.lockholder import LockHolder
holder = LockHolder(Path(sys.argv[1]), cap_s=float(sys.argv[2]))
holder.start()
holder.take(5)
print("taken", flush=True)
sys.stdin.read()
"""
WRITE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None).execute("insert into papers (title) values ('written')")
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return lab.make(tmp_path / "live.db", 10)


def said_to_a_writer(database: Path, patience_s: float) -> str:
    """Of another process: SQLite tells its own process of a lock that the kernel has dropped already."""
    words = [sys.executable, "-c", WRITE, str(database), str(patience_s)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


# --- the process that holds a lock ---


@pytest.mark.fault("J8", "J12")
def test_a_copy_by_this_program_leaves_the_lock_that_other_processes_meet(database: Path, tmp_path: Path) -> None:
    with closing(LockHolder(database)) as holder:
        holder.start()
        holder.take(5)
        shutil.copy(database, tmp_path / "copy.db")
        assert said_to_a_writer(database, 0) == "database is locked"
        holder.release()
        assert said_to_a_writer(database, 0) == "", "the control: released, it is free"


@pytest.mark.control("J8", "J12")
def test_control_a_copy_by_the_process_that_has_the_lock_lets_other_processes_in(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        assert said_to_a_writer(database, 0) == "database is locked"
        shutil.copy(database, tmp_path / "copy.db")
        assert said_to_a_writer(database, 0) == ""


@pytest.mark.fault("A14")
def test_a_store_that_cannot_be_pinned_leaves_no_other_store_locked(database: Path, tmp_path: Path) -> None:
    other = lab.make(tmp_path / "other.db", 10)
    holds = {"main": CopyHold(database, tmp_path), "other": CopyHold(other, tmp_path, wait_s=0.1)}
    with closing(sqlite3.connect(other, isolation_level=None)) as somebody:
        somebody.execute("begin immediate")
        with pytest.raises(Failed, match="kept its lock"), one_point(holds, Progress()):
            pass
    assert said_to_a_writer(database, 0) == ""


@pytest.mark.fault("A17")
def test_locks_are_had_before_snapshots_are_taken_and_both_before_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a lock lets time pass, and a snapshot before it would be of an earlier moment."""
    made, pinned = make_lab(tmp_path, sqlites=2, services=0), []
    made.write("one")
    with closing(sqlite3.connect(tmp_path / "live" / "main.db")) as first:
        first.execute("pragma journal_mode=wal")
    for kind in (CopyHold, SnapshotHold, FilesHold):
        monkeypatch.setattr(kind, "pin", lambda hold, pin=kind.pin: pinned.append(type(hold)) or pin(hold))
    take_set(made.context, purpose="backup")
    made.close()
    assert pinned == [CopyHold, SnapshotHold, FilesHold]


@pytest.mark.fault("A13")
def test_nothing_of_the_caller_s_environment_reaches_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPASSWORD", "LD_PRELOAD_CANARY"):
        monkeypatch.setenv(name, "canary")
    said = processes.run(processes.Command(["env"])).stdout
    assert b"LC_ALL=C" in said
    assert b"canary" not in said


@pytest.mark.fault("J8", "J9")
@pytest.mark.parametrize(("how", "cap_s"), [(signal.SIGSTOP, 0.5), (signal.SIGKILL, 1000)], ids=["stopped", "killed"])
def test_a_stopped_or_killed_program_lets_writers_go_on(database: Path, how: signal.Signals, cap_s: float) -> None:
    words = [sys.executable, "-c", HOLD, str(database), str(cap_s)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "taken\n"
            program.send_signal(how)
            assert said_to_a_writer(database, 5) == ""
        finally:
            program.kill()


@pytest.mark.fault("A17", "J12")
def test_what_was_written_after_the_first_pass_and_before_the_lock_is_in_the_copy(tmp_path: Path) -> None:
    """The last moment at which somebody may write: the lock is not had yet, and everything was copied once."""
    live, work = tmp_path / "live", tmp_path / "work"
    execute(live, "load(collection('notes'), 50, 4)")
    settle(live)
    work.mkdir()
    hold = ChromaHold(live, work)
    with closing(hold):
        hold.prepare()
        enqueue(live, "notes", [(0, "fresh", {})])
        hold.pin()
        hold.copy()
        hold.release()
        hold.finish()
        with catalogue.open_catalogue(hold.directory, sealed=True) as copied:
            assert copied.counts() == {"notes": 51}


# --- what rotted ---


@pytest.mark.fault("E-10")
@pytest.mark.parametrize("name", ["papers"])
def test_a_file_that_rotted_since_it_was_verified_is_not_staged(lab: Lab, tmp_path: Path, name: str) -> None:
    store = lab.context.stores[name]
    folder, record = take(store, tmp_path / "set")
    rotten = next(path for path in folder.rglob("*.pdf") if path.stat().st_size > 1000)
    tampered(rotten).write_bytes(b"\xff" * rotten.stat().st_size)
    with pytest.raises(Failed, match="not what was recorded"):
        store.stage(folder, record, store.place("0123abcd", None))


# --- a database that changes its name ---


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as running:
        yield running


@pytest.fixture
def sides(server: Server, tmp_path: Path) -> Iterator[side.Sides]:
    """A live database and a staged one."""
    for name in ("app", "app_side_0123abcd"):
        server.run(f"create database {name}")
    with surroundings() as around:
        admin = access_to(str(server.socket), server.port, "postgres", None, around.private)
        yield side.Sides(admin, "postgres", **side.names_for("app", "0123abcd"))
    for name in ("app", "app_side_0123abcd", "app_old_0123abcd"):
        server.run(f"drop database if exists {name}")


@pytest.mark.fault("E-7")
def test_nobody_is_let_in_while_names_change_and_everybody_after_they_did_not(
    server: Server, sides: side.Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in = []

    def fail(*_: object) -> None:
        let_in.extend(allowed(server))
        raise Failed("no rename today")

    monkeypatch.setattr(side, "_rename", fail)
    with pytest.raises(Failed, match="no rename today"):
        sides.switch(Journal())
    assert let_in == []
    assert allowed(server) == ["app"]


def allowed(server: Server) -> list[str]:
    with server.connect() as connection:
        found = connection.execute("select datname from pg_database where datallowconn and datname like 'app%' order by 1")
        return [name for (name,) in found]


@pytest.mark.fault("J19")
def test_a_sequence_that_stands_elsewhere_than_the_set_says_is_not_staged(server: Server, tmp_path: Path) -> None:
    """Its number would be given a second time."""
    server.run("create database counted")
    server.run("create sequence numbers; select setval('numbers', 500)", "counted")
    with surroundings() as around:
        store = build("main", server.declared("counted"), around)
        folder, record = take(store, tmp_path)
        sequences = tampered(folder / SEQUENCES)
        sequences.write_text(sequences.read_text().replace("500", "700"))
        with pytest.raises(Failed, match="stands at 500, the set says 700 to 700"):
            store.stage(folder, record, store.place("0123abcd", None))
        store.discard_stage(store.place("0123abcd", None))


@pytest.mark.fault("E-1")
def test_a_second_rename_that_fails_undoes_the_first(server: Server, sides: side.Sides) -> None:
    with server.connect() as connection:
        with pytest.raises(psycopg.errors.InvalidCatalogName):
            side._rename_once(connection, [("app", sides.old), ("nothing", "app")])
        names = {name for (name,) in connection.execute("select datname from pg_database")}
    assert "app" in names
    assert sides.old not in names

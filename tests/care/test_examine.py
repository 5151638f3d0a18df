"""examine and evict on real SQLite files and trees: what is planted is found, who uses a file is named, and only who is meant is ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Outcome, Refused, Unknown
from storekeeper.stores.examination import InUse
from storekeeper.stores.files import examining
from storekeeper.stores.files.scope import Scope
from storekeeper.verbs import evict as verb
from tests.harness.postgresql import reachable_directory
from tests.harness.program import Ended, Program, hold_to
from tests.harness.stacks import in_child

READ, WRITE, OPEN = "begin; select count(*) from documents", "begin immediate", "select 1"
# Holds a lock, or only the file, until it is ended; says when it has it. With "deaf" it does not end when it is asked to.
USER = """
import signal, sqlite3, sys, time
path, words, deaf = sys.argv[1:]
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
database = sqlite3.connect(path, isolation_level=None)
for statement in words.split(";"):
    database.execute(statement).fetchone()
print("ready", flush=True)
time.sleep(600)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
MODES = ("wal", "delete")


@pytest.fixture(params=MODES)
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Program:
    program = Program(tmp_path)
    program.declare_small()
    with closing(sqlite3.connect(program.database())) as database:
        database.execute(f"pragma journal_mode={request.param}")
    return program


@contextmanager
def user(program: Program, words: str, *, deaf: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the database, until the block ends."""
    argv = [sys.executable, "-c", USER, str(program.database()), words, "deaf" if deaf else ""]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def flaws(ended: Ended, store: str = "main") -> list[tuple[str, str | None]]:
    return [(each["kind"], each["object"]) for each in ended.document["result"]["stores"][store]["flaws"]]


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_stores_without_a_flaw_are_told_with_their_figures(program: Program) -> None:
    ended = program.answer("examine", "demo")
    stores = hold_to(ended, 0, "ok")["result"]["stores"]
    assert {name: each["outcome"] for name, each in stores.items()} == {"main": "ok", "papers": "ok"}
    assert stores["main"]["counts"] == {"documents": 40}
    assert stores["main"]["figures"]["journal_mode"] in MODES
    assert (stores["main"]["figures"]["page_count"], stores["main"]["users"]) == (2, [])
    assert stores["papers"]["counts"] == {"files": 1, "bytes": 5}
    shown = program.run("examine", "demo").out
    assert "main   sqlite   nothing wrong" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert list(program.root.glob("storekeeper-*")) == [], "no copy is left"


def test_nothing_of_the_store_is_changed(program: Program) -> None:
    before = program.database().read_bytes()
    program.answer("examine", "demo")
    assert program.database().read_bytes() == before


def test_only_one_store_is_looked_into_where_one_is_named(program: Program) -> None:
    assert set(program.answer("examine", "demo", "--store", "papers").document["result"]["stores"]) == {"papers"}
    hold_to(program.answer("examine", "demo", "--store", "paper"), 2, "refused", "there is no store 'paper'", "did you mean papers?")


def test_a_row_that_refers_to_none_is_named_with_its_table(program: Program) -> None:
    execute(
        program.database(),
        "create table notes (id integer primary key, of integer references documents)",
        "insert into notes values (1, 99)",
    )
    ended = program.answer("examine", "demo", "--store", "main")
    hold_to(ended, 4, "warning", "1 rows of notes refer to rows that are not there", "pragma foreign_key_check")
    assert flaws(ended) == [("dangling", "notes")]


def test_a_damaged_page_is_found_and_a_restore_is_what_comes_next(program: Program) -> None:
    execute(program.database(), "create index titles on documents (title)", "pragma wal_checkpoint(truncate)")
    with open(program.database(), "r+b") as file:
        file.seek(3 * 4096 - 400)  # the last entries of the index
        file.write(b"\xff" * 400)
    ended = program.answer("examine", "demo", "--store", "main")
    hold_to(ended, 4, "warning", "restore demo latest --only main --plan")
    assert {kind for kind, _ in flaws(ended)} == {"damage"}


def test_what_is_no_database_is_damage_and_what_is_gone_is_unknown(program: Program) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{program.database()}{suffix}").unlink(missing_ok=True)
    hold_to(program.answer("examine", "demo", "--store", "main"), 3, "unknown", "main.db is not there")
    program.database().write_bytes(b"no database at all" * 300)
    ended = program.answer("examine", "demo", "--store", "main")
    hold_to(ended, 4, "warning", "is damaged")
    assert flaws(ended) == [("damage", None)]


INDEXES: dict[str, tuple[str, list[str], list[tuple[str, str | None]]]] = {
    "none": ("[title]", [], [("index", "documents")]),
    "one column": ("[title]", ["create index t on documents (title)"], []),
    "the first of two": ("[title]", ["create index t on documents (title, id)"], []),
    "the second of two": ("[title]", ["create index t on documents (id, title)"], [("index", "documents")]),
    "two in their order": ("[[title, id]]", ["create index t on documents (title, id)"], []),
    "two in the other order": ("[[id, title]]", ["create index t on documents (title, id)"], [("index", "documents")]),
    "one that leaves rows out": ("[title]", ["create index t on documents (title) where id > 3"], [("index", "documents")]),
    "one of an expression": ("[title]", ["create index t on documents (lower(title))"], [("index", "documents")]),
    "a unique one, in capitals": ("[title]", ["create unique index t on documents (TITLE)"], []),
    "the rows themselves": ("[id]", [], []),
    "no such column": ("[tilte]", [], [("index", "documents")]),
}


@pytest.mark.parametrize("program", ["wal"], indirect=True)
@pytest.mark.parametrize("case", INDEXES)
def test_a_declared_index_is_there_or_named_with_what_makes_it(program: Program, case: str) -> None:
    declared, made, expected = INDEXES[case]
    execute(program.database(), *made)
    program.declare(f"stack: demo\nstores: {{main: {{kind: sqlite, path: {program.database()}, indexes: {{documents: {declared}}}}}}}\n")
    ended = program.answer("examine", "demo")
    assert flaws(ended) == expected
    if case in ("none", "no such column"):
        subprocess.run(["sh", "-c", ended.document["problems"][0]["next"]], check=case == "none", capture_output=True)
        assert program.answer("examine", "demo").code == (0 if case == "none" else 4)


@pytest.mark.parametrize("program", ["wal"], indirect=True)
def test_a_table_that_is_not_there_has_no_index_either(program: Program) -> None:
    program.declare(f"stack: demo\nstores: {{main: {{kind: sqlite, path: {program.database()}, indexes: {{chats: [id]}}}}}}\n")
    hold_to(program.answer("examine", "demo"), 4, "warning", "there is no table chats, of which an index is declared")


@pytest.mark.parametrize(("words", "lock"), [(READ, "read"), (WRITE, "write"), (OPEN, None)], ids=["read", "write", "open"])
def test_who_uses_the_file_is_named_with_the_lock_that_it_holds(program: Program, words: str, lock: str | None) -> None:
    with user(program, words) as process:
        ended = program.answer("examine", "demo", "--store", "main")
        (found,) = ended.document["result"]["stores"]["main"]["users"]
        assert found == {"pid": process.pid, "program": comm(process.pid), "lock": lock, "waits": False}
        shown = program.run("examine", "demo", "--store", "main").out
        assert f"{process.pid}  {comm(process.pid)}  holds".replace("  holds", "") in shown
    assert program.answer("examine", "demo", "--store", "main").document["result"]["stores"]["main"]["users"] == []


@pytest.mark.parametrize("program", ["delete"], indirect=True)
def test_a_file_that_somebody_goes_on_writing_is_unknown_and_its_writer_named(program: Program) -> None:
    with user(program, WRITE) as process:
        ended = program.answer("examine", "demo", "--store", "main")
        hold_to(ended, 3, "unknown", "kept its lock for more than 10 s")
        assert [each["pid"] for each in ended.document["result"]["stores"]["main"]["users"]] == [process.pid]


def test_what_cannot_be_read_of_a_tree_is_named_and_the_rest_is_counted() -> None:
    room = reachable_directory()
    try:
        for name, mode in (("open.txt", 0o644), ("closed.txt", 0o000), ("folder/inside.txt", 0o644)):
            path = room / "papers" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("hello")
            path.chmod(mode)
        (room / "papers/folder").chmod(0)

        def look() -> None:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            found = examining.examine(room / "papers", Scope((), ()))
            assert [(flaw.kind, flaw.object) for flaw in found.flaws] == [("unreadable", "closed.txt"), ("unreadable", "folder")]
            assert found.flaws[0].message == "closed.txt cannot be read: Permission denied"
            assert found.counts == {"files": 2, "bytes": 10}

        assert in_child(look) == 0
    finally:
        (room / "papers/folder").chmod(0o700)
        shutil.rmtree(room)


def evicting(program: Program, pid: int, name: str, *words: str) -> Ended:
    return program.answer("evict", "demo", "main", str(pid), name, *words)


def test_who_holds_a_lock_ends_when_it_is_asked_to(program: Program) -> None:
    with user(program, READ) as process:
        name = comm(process.pid)
        hold_to(evicting(program, process.pid, name), 2, "refused", "nobody is there to be asked", "--yes")
        assert process.poll() is None
        document = hold_to(evicting(program, process.pid, name, "--yes"), 0, "ok")
        assert document["result"] == {"store": "main", "pid": process.pid, "program": name, "ended": True, "held": "read", "lock": None}
        assert process.wait(5) == -signal.SIGTERM
        hold_to(evicting(program, process.pid, name, "--yes"), 2, "refused", f"there is no process {process.pid}")


@pytest.mark.parametrize("program", ["wal"], indirect=True)
def test_nobody_is_asked_who_is_another_program_holds_no_lock_or_uses_another_file(program: Program) -> None:
    with user(program, OPEN) as idle, user(program, READ) as reader:
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            hold_to(evicting(program, idle.pid, comm(idle.pid), "--yes"), 2, "refused", "has it open and holds no lock")
            hold_to(evicting(program, reader.pid, "postgres", "--yes"), 2, "refused", f"is {comm(reader.pid)}, and not postgres")
            hold_to(evicting(program, stranger.pid, "sleep", "--yes"), 2, "refused", "does not have it open at this moment")
            hold_to(evicting(program, 1, comm(1), "--yes"), 2, "refused", "the first process of the system")
            hold_to(program.answer("evict", "demo", "papers", str(reader.pid), "x", "--yes"), 2, "refused", "files are guarded by no lock")
            hold_to(evicting(program, reader.pid, comm(reader.pid), "--confirm", "demo@elsewhere"), 2, "refused", "--confirm names")
            assert program.answer("evict", "demo", "main", "-1", "x").code == 2
            assert program.answer("evict", "demo", "main", "12x", "x").code == 2
            assert [each.poll() for each in (idle, reader, stranger)] == [None] * 3
        finally:
            stranger.kill()
            stranger.wait()


@pytest.mark.parametrize("program", ["wal"], indirect=True)
def test_one_that_does_not_end_is_told_with_what_it_holds_and_never_killed(program: Program) -> None:
    with user(program, READ, deaf=True) as process:
        document = hold_to(
            evicting(program, process.pid, comm(process.pid), "--yes"), 4, "warning", "has not within 10 s; it holds the read lock now"
        )
        assert (document["result"]["ended"], document["result"]["lock"]) == (False, "read")
        assert process.poll() is None


class FakeStore:
    """Says that some process holds the lock, whoever it is; `seen` times, and then that it cannot be seen."""

    name = "main"

    def __init__(self, found: InUse, meanwhile: Callable[[], None] = lambda: None, seen: int = 99) -> None:
        self._found, self._meanwhile, self._seen = found, meanwhile, seen

    def users(self) -> list[InUse]:
        self._meanwhile()
        self._seen -= 1
        if self._seen < 0:
            raise Unknown("the open files of pid 7 may not be read")
        return [self._found]


def holder(found: InUse, **more: Any) -> verb.Holder:
    store: Any = FakeStore(found, more.pop("meanwhile", lambda: None), more.pop("seen", 99))
    return verb.Holder("demo", store, found.pid, found.program, **more)


def words_of(pid: int) -> bytes:
    """The command of a process that runs; of one that is still about to begin nothing is told yet, and of one that was ended never."""
    deadline = time.monotonic() + 5
    while not (words := Path(f"/proc/{pid}/cmdline").read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return words


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that this test starts are not taken for those of the program."""
    monkeypatch.setattr(verb.holders, "family", lambda: frozenset({os.getpid()}))


@pytest.mark.usefixtures("alone")
def test_runs_of_our_own_and_what_they_started_are_never_asked(tmp_path: Path) -> None:
    (tmp_path / "storekeeper").write_text("import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()")
    words = [sys.executable, str(tmp_path / "storekeeper")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = int(process.stdout.readline())
        try:
            for pid in (process.pid, started):
                with pytest.raises(Refused, match="at work for storekeeper itself"):
                    verb.evict(holder(InUse(pid, comm(pid), "write")))
            assert process.poll() is None
            assert words_of(started) == b"sleep\0" + b"60\0"
        finally:
            os.kill(started, signal.SIGKILL)
            process.kill()


@pytest.mark.usefixtures("alone")
def test_the_run_of_a_job_is_known_by_its_record(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        with pytest.raises(Refused, match="at work for storekeeper itself"):
            verb.evict(holder(InUse(process.pid, "sleep", "write"), jobs=frozenset({process.pid})))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("alone")
def test_a_process_that_ended_while_it_was_looked_at_is_not_taken_for_its_successor() -> None:
    """The number is free when the signal would be sent: the grip taken before leads to no other process."""
    process = subprocess.Popen(["sleep", "60"])

    def end() -> None:
        process.kill()
        process.wait()

    found = InUse(process.pid, "sleep", "write")
    with pytest.raises(Unknown, match="cannot be seen"):
        verb.evict(holder(found, meanwhile=end))


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody asked to end."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        words_of(process.pid)
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("alone")
def test_a_process_that_the_kernel_gives_no_grip_on_is_not_taken_for_one_that_is_gone() -> None:
    ready, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), over.wait()))
    thread.start()
    ready.wait()
    try:
        assert thread.native_id is not None  # a number of /proc that leads to no process of its own
        with pytest.raises(Unknown, match="cannot be gripped"):
            verb.evict(holder(InUse(thread.native_id, "python3", "write")))
    finally:
        over.set()
        thread.join()
    with sleeping() as process:
        gone = process.pid
    with pytest.raises(Refused, match=f"there is no process {gone}"):
        verb.evict(holder(InUse(gone, "sleep", "write")))


@pytest.mark.usefixtures("alone")
def test_one_whose_parents_cannot_be_read_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with sleeping() as ended:
        gone = ended.pid
    monkeypatch.setattr(verb, "_line_of", lambda pid: [pid, gone])
    with sleeping() as process, pytest.raises(Unknown, match=f"whether process {gone} is at work for storekeeper itself cannot be seen"):
        verb.evict(holder(InUse(process.pid, "sleep", "write")))


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_seen_after_somebody_was_asked_is_not_taken_for_let_go() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        report = verb.evict(holder(InUse(process.pid, comm(process.pid), "write"), seen=1), patience_s=0.1)
        assert (report.ended(), report.result["lock"]) == (Outcome.UNKNOWN, "unknown")
        (problem,) = report.problems
        assert "which lock it holds now is not known: the open files of pid 7 may not be read" in problem.message
        assert problem.next == "storekeeper examine demo --store main"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.fault("J4")
@pytest.mark.parametrize("program", ["delete"], indirect=True)
def test_a_restore_beside_an_endless_reader_says_within_its_deadline_who_it_is_and_goes_on_when_that_has_ended(program: Program) -> None:
    taken = program.answer("backup", "demo").document["result"]["set"]["id"]
    execute(program.database(), "delete from documents where id > 5")
    with user(program, READ) as reader:
        began = time.monotonic()
        restore = ("restore", "demo", taken, "--yes", "--only", "main")
        ended = program.answer(*restore)
        hold_to(ended, 1, "failed", "could not be locked within", f"{comm(reader.pid)} (pid {reader.pid})")
        assert time.monotonic() - began < 60
        assert program.rows() == 5
        assert hold_to(evicting(program, reader.pid, comm(reader.pid), "--yes"), 0, "ok")["result"]["held"] == "read"
        assert program.answer(*restore).code in (0, 4)
    assert program.rows() == 40


def test_a_look_is_a_job_that_a_schedule_can_ask_for(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.declare_small(more="schedule: [{verb: examine, at: '0 5 * * *'}]\n")
    assert program.answer("examine", "demo").code == 0
    (run,) = program.answer("jobs", "demo").document["result"]["jobs"]
    assert (run["verb"], run["outcome"]) == ("examine", "ok")
    assert json.loads(Path(run["path"]).read_text())["document"]["result"]["stores"]["main"]["outcome"] == "ok"

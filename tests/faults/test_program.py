"""Faults at the level of the program that people type: how it ends, what its document says, what is on disk, what lives on.

Each case holds all of that at once; where a guard is shown, its control takes the guard away and sees the damage.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from storekeeper.cli.calls import CALLS
from storekeeper.cli.main import main
from storekeeper.host import space
from storekeeper.stores.trees import is_settled
from tests.harness.mounts import disk
from tests.harness.program import CHECKOUT, Ended, Program

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a disk of a given size needs root")
RESTORE = ("restore", "demo", "latest", "--yes", "--nobody-uses", "papers")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    program.declare_small()
    return program


def grow(program: Program, size: int = 400_000) -> None:
    """Papers of that many bytes, which no disk compresses."""
    (program.root / "live/demo/papers/large.bin").write_bytes(os.urandom(size))


def live(program: Program) -> dict[str, Any]:
    """What the stores themselves answer."""
    papers = program.root / "live/demo/papers"
    return {"rows": program.rows(), **{str(path.relative_to(papers)): path.read_bytes() for path in papers.rglob("*") if path.is_file()}}


def sets(program: Program) -> list[tuple[int, str]]:
    return [(each["sequence"], each["state"]) for each in program.answer("list", "demo").document["result"]["sets"]]


def newest(program: Program) -> Path:
    return Path(program.answer("list", "demo").document["result"]["sets"][-1]["path"])


def flip(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.chmod(0o400)


def hold_to(ended: Ended, code: int, outcome: str, *said: str) -> dict[str, Any]:
    """Exit status, document and sentences of one command; returns the document."""
    document = ended.document
    assert (ended.code, document["outcome"]) == (code, outcome), ended.err
    went_well = outcome in ("ok", "warning")
    assert went_well or document["result"] is None or document["verb"] in ("verify", "prove"), document
    assert not went_well or document["result"] is not None, document
    messages = " | ".join(f"{problem['message']} -> {problem['next']}" for problem in document["problems"])
    assert all(word in messages for word in said), messages
    assert "Traceback" not in ended.err
    return document


def fill(place: Path) -> Path:
    """Use up what is free there; removing the returned file frees it again."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        _write_until_it_fails(file)
    return ballast


def _write_until_it_fails(file: FileIO) -> None:
    while True:
        file.write(b"x" * 4096)


# A: taking a backup


@AS_ROOT
@pytest.mark.fault("A7")
def test_a_repository_without_room_refuses_a_backup_and_prune_frees_it_when_fewer_sets_are_kept(program: Program) -> None:
    """A7. The control: what is refused would fill the disk; and prune, which a failed backup forbids, is what mends this one."""
    grow(program)
    with disk(program.repository, "2m", "0700"):
        for _ in range(4):
            assert program.run("backup", "demo").code == 0
            grow(program)
        before = live(program)
        hold_to(program.answer("backup", "demo"), 2, "refused", "a backup needs", str(program.repository))
        assert (len(sets(program)), live(program)) == (4, before)
        text = (program.config / "stacks/demo.yml").read_text()
        program.declare(text + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 2}}\n")
        removed = hold_to(program.answer("prune", "demo", "--yes"), 0, "ok")["result"]["removed"]
        assert len(removed) == 2
        assert program.run("backup", "demo").code == 0


@AS_ROOT
def test_files_that_the_set_before_holds_need_no_room_a_second_time(program: Program) -> None:
    """Half of the disk is one file: a backup of it is refused once it has changed, and taken as long as it has not."""
    grow(program, 1_200_000)
    with disk(program.repository, "2m", "0700"):
        for _ in range(3):
            assert program.run("backup", "demo").code == 0
        assert program.run("restore", "demo", "latest", "--plan").code == 0
        grow(program, 1_200_000)
        hold_to(program.answer("backup", "demo"), 2, "refused", "a backup needs")
        assert len(sets(program)) == 3


@pytest.mark.fault("B1")
def test_a_listing_that_rotted_costs_neither_the_next_backup_nor_the_restore_of_an_older_set(program: Program) -> None:
    for _ in range(2):
        assert program.run("backup", "demo").code == 0
    listing = newest(program) / "papers/tree.jsonl"
    listing.chmod(0o600)
    listing.write_bytes(b"\xff" + listing.read_bytes()[1:])
    first = Path(program.answer("list", "demo").document["result"]["sets"][0]["path"]).name
    assert program.answer("doctor", "demo").code in (0, 4)
    assert program.run("restore", "demo", first, "--plan").code == 0
    assert program.run("backup", "demo").code == 0
    assert program.answer("verify", "demo").document["outcome"] == "ok"


@AS_ROOT
def test_a_state_without_room_is_said_in_a_sentence_and_nothing_is_begun(program: Program) -> None:
    with disk(program.state, "1m", "0700") as state:
        assert program.run("backup", "demo").code == 0
        ballast = fill(state)
        before = live(program)
        for words in (("backup", "demo"), ("verify", "demo"), ("prove", "demo"), RESTORE, ("prune", "demo")):
            hold_to(program.answer(*words), 1, "failed", f"{words[0]} could not go on: No space left on device: {state}", "df -h")
        assert program.run("list", "demo").code == 0
        assert "keeping records needs" in json.dumps(program.answer("doctor").document["result"])
        ballast.unlink()
        assert (live(program), sets(program)) == (before, [(1, "verified")])
        assert program.run("backup", "demo").code == 0


@AS_ROOT
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
    for words in (("backup", "demo"), ("list", "demo"), ("prune", "demo"), RESTORE):
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
    assert sets(program) == [(1, "verified")]


# B: verifying and proving


@pytest.mark.fault("B1")
def test_one_flipped_bit_fails_verify_and_no_verb_uses_the_set_any_more(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    assert program.run("backup", "demo").code == 0
    flip(newest(program) / "main/database.sqlite")
    before = live(program)
    document = hold_to(program.answer("verify", "demo"), 1, "failed", "main/database.sqlite is altered")
    assert document["result"]["sets"][0]["stores"]["main"]["outcome"] == "failed"
    assert sets(program) == [(1, "verified"), (2, "damaged")]
    hold_to(program.answer("restore", "demo", newest(program).name, "--yes"), 2, "refused", "is damaged")
    hold_to(program.answer("prove", "demo"), 1, "failed", "is altered")
    plan = hold_to(program.answer(*RESTORE, "--plan"), 4, "warning", "was passed over")["result"]["plan"]
    assert plan["set"].endswith("-000001")
    assert live(program) == before


@AS_ROOT
def test_a_scratch_disk_that_is_full_tells_nothing_of_the_set(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    settings = program.config / "storekeeper.yml"
    scratch = program.root / "scratch"
    settings.write_text(settings.read_text().replace(f"scratch: {program.root}", f"scratch: {scratch}"))
    with disk(scratch, "64k", mode="1777"):
        ballast = fill(scratch)
        hold_to(program.answer("prove", "demo"), 3, "unknown", "No space left on device", "scratch:")
        assert sets(program) == [(1, "verified")], "and not unprovable"
        ballast.unlink()
    hold_to(program.answer("prove", "demo"), 0, "ok")
    assert sets(program) == [(1, "proven")]


@AS_ROOT
def test_control_a_full_disk_taken_for_a_bad_set_disqualifies_it(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program.run("backup", "demo").code == 0
    settings = program.config / "storekeeper.yml"
    scratch = program.root / "scratch"
    settings.write_text(settings.read_text().replace(f"scratch: {program.root}", f"scratch: {scratch}"))
    monkeypatch.setattr(space, "is_for_want_of_room", lambda _: False)
    with disk(scratch, "64k", mode="1777"):
        grow(program, 100_000)
        assert program.run("backup", "demo").code == 0
        assert main(["--config", str(program.config), "--json", "prove", "demo"]) == 1
    assert sets(program)[-1] == (2, "unprovable")


def test_a_store_that_is_declared_as_another_kind_is_not_proven_and_not_disqualified(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    other = f"stack: demo\nstores:\n  main: {{kind: files, path: {program.root}/live}}\n"
    program.declare(other)
    hold_to(program.answer("prove", "demo"), 3, "unknown", "is declared as files, the set holds sqlite")
    assert sets(program) == [(1, "verified")]


# C: retention


@pytest.mark.fault("C1", "C3", "C9", "C13")
def test_the_last_good_set_outlives_newer_bad_ones_and_prune_says_so(program: Program) -> None:
    """C1, C3, C9, C13 as one evening at a terminal."""
    program.declare(
        (program.config / "stacks/demo.yml").read_text() + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 1}}\n"
    )
    assert program.run("backup", "demo").code == 0
    good = newest(program)
    assert program.run("pin", "demo", good.name).code == 0
    for _ in range(2):
        assert program.run("backup", "demo").code == 0
        grow(program)
    (program.repository / "demo/notes.txt").write_text("mine")
    flip(newest(program) / "main/database.sqlite")
    assert program.run("verify", "demo", "--all").code == 1
    assert program.run("unpin", "demo", good.name).code == 0
    document = hold_to(program.answer("prune", "demo"), 0, "ok")
    assert document["result"]["removed"] == []
    assert sets(program) == [(1, "verified"), (3, "damaged")]
    assert (program.repository / "demo/notes.txt").read_text() == "mine"


@pytest.mark.fault("C2")
@pytest.mark.control("C2")
def test_after_a_failed_backup_prune_removes_nothing(program: Program) -> None:
    """C2: what is there may be all that there will be. The control: the same prune after a good one removes."""
    for _ in range(3):
        assert program.run("backup", "demo").code == 0
        grow(program)
    program.declare(
        (program.config / "stacks/demo.yml").read_text() + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 1}}\n"
    )
    content = program.database().read_bytes()
    program.database().write_bytes(b"no database at all" * 100)
    hold_to(program.answer("backup", "demo"), 1, "failed", "main.db")
    hold_to(program.answer("prune", "demo"), 2, "refused", "nothing was removed", "storekeeper")
    assert len(sets(program)) == 3
    program.database().write_bytes(content)
    assert program.run("backup", "demo").code == 4, "three of four sets would go: that needs somebody's word"
    assert program.run("prune", "demo", "--yes").code == 0
    assert len(sets(program)) == 1, "the control"


# D: runs and records


def test_a_record_that_cannot_be_read_does_not_keep_the_next_run_from_beginning(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    [record] = (program.state / "jobs/demo").glob("*.json")
    record.write_text("{")
    hold_to(program.answer("backup", "demo"), 0, "ok")
    hold_to(program.answer("jobs", "demo"), 3, "unknown", str(record))
    assert (len(sets(program)), record.read_text()) == (2, "{")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_caller_that_closed_its_streams_gets_its_backup_and_no_byte_goes_where_it_does_not_belong(program: Program, closed: str) -> None:
    """A closed stream's number is given to the next file that is opened: what is printed would be written into a store or a set."""
    words = " ".join([sys.executable, "-m", "storekeeper", "--config", str(program.config), "backup", "demo"])
    done = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=CHECKOUT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    hold_to(program.answer("verify", "demo", "--all"), 0, "ok")
    assert (sets(program), program.rows()) == ([(1, "verified")], 40)


def test_control_a_closed_stream_s_number_goes_to_the_next_file(tmp_path: Path) -> None:
    code = f"import os; print(os.open({str(tmp_path / 'store.db')!r}, os.O_CREAT | os.O_RDWR), file=open('/dev/stderr', 'w'))"
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" >&-'], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "1"


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


# E: restore


def test_a_restore_that_is_killed_at_any_moment_leaves_both_stores_on_one_side_and_is_ended_by_resume(program: Program) -> None:
    """E-1 from outside: the process itself is killed, whatever it is doing."""
    assert program.run("backup", "demo").code == 0
    old = live(program)
    taken = newest(program).name
    started = time.monotonic()
    assert program.run("restore", "demo", taken, "--yes", "--nobody-uses", "papers").code == 0
    whole = time.monotonic() - started
    killed = 0
    for part in (0.55, 0.65, 0.75, 0.85, 0.95):
        with closing(sqlite3.connect(program.database())) as database, database:
            database.execute("insert into documents (title) values ('new')")
        (program.root / "live/demo/papers/new.txt").write_text("new")
        new = live(program)
        process = program.start("restore", "demo", taken, "--yes", "--nobody-uses", "papers")
        time.sleep(whole * part)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert program.answer("resume", "demo").code in (0, 4)
        assert live(program) in (old, new)
        assert program.answer("resume", "demo").document["result"] == {"ended": None}
        assert program.run("restore", "demo", taken, "--yes", "--nobody-uses", "papers").code == 0
        assert live(program) == old
    assert killed


def test_a_command_that_was_stopped_is_given_back_as_it_was_typed(program: Program) -> None:
    assert program.run("backup", "demo").code == 0
    taken = newest(program).name
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


@AS_ROOT
def test_a_disk_that_fills_while_staging_leaves_live_data_as_it_is(program: Program) -> None:
    """E-3, refused before anything: nothing is staged, and the safety set is not even begun."""
    grow(program, 200_000)
    assert program.run("backup", "demo").code == 0
    before = live(program)
    shutil.move(program.root / "live", program.root / "elsewhere")
    with disk(program.root / "live", "700k", mode="0755") as small:
        shutil.copytree(program.root / "elsewhere", small, dirs_exist_ok=True)
        ballast = fill(small)
        refused = hold_to(program.answer(*RESTORE), 2, "refused", "restore needs", str(small))
        assert refused["result"] is None
        ballast.unlink()
        assert (live(program), sets(program)) == (before, [(1, "verified")])


# The clock and memory


def test_a_clock_that_was_put_back_does_not_make_files_look_as_if_they_were_being_written(tmp_path: Path) -> None:
    """Chroma's files are copied when they rest. The control: a file of this very moment is not settled."""
    (tmp_path / "file").write_text("x")
    status = os.stat(tmp_path / "file")
    hour = 3_600_000_000_000
    assert is_settled(status, status.st_ctime_ns - hour)
    assert is_settled(status, status.st_ctime_ns + hour)
    assert not is_settled(status, status.st_ctime_ns)


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
        os.execv(sys.executable, _measured(program.argv("backup", "many", "--quiet")))
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shutil.rmtree(program.repository)
    shutil.rmtree(program.state)
    return used.ru_maxrss


def _measured(words: Sequence[str]) -> list[str]:
    assert resource.RUSAGE_SELF == 0
    return list(words)


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

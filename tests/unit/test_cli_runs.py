"""Runs as they happen: ten at once, told to stop, killed, without a confirmation, from cron, with secrets about."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from storekeeper.cli.document import host_name
from storekeeper.host import locks
from tests.harness.program import CHECKOUT, Program
from tests.harness.terminal import on_terminal

CANARY = "canary-s3cret"


@pytest.fixture
def program(tmp_path) -> Program:
    program = Program(tmp_path)
    program.declare_small()
    return program


@contextmanager
def paused(program: Program, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A run that stands still in the middle of its work while the block runs, and goes on afterwards."""
    with closing(sqlite3.connect(program.database(), isolation_level=None)) as database:
        database.execute("begin exclusive")  # it waits for this as long as it takes to stop it
        process = program.start(*words)
        _wait_until_it_works(process, program)
        process.send_signal(signal.SIGSTOP)
        database.execute("rollback")
    try:
        yield process
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)


def _wait_until_it_works(process: subprocess.Popen[str], program: Program) -> None:
    deadline = time.monotonic() + 60
    while not locks.is_held(program.state / "demo/lock"):
        if time.monotonic() > deadline or process.poll() is not None:
            raise AssertionError(f"the run did not begin: {process.communicate()}")
        time.sleep(0.02)


def records(program: Program) -> list[Path]:
    return sorted((program.state / "jobs/demo").glob("*.json"))


def test_of_ten_backups_at_once_one_runs_and_nine_say_by_whom_and_since_when(program):
    with paused(program, "backup", "demo", "--json") as first:
        others = [program.start("backup", "demo", "--json") for _ in range(9)]
        ended = [(process.communicate(), process.returncode) for process in others]
    out, _ = first.communicate()
    assert [code for _, code in ended] == [75] * 9
    for (answer, _), _ in ended:
        message = json.loads(answer)["problems"][0]["message"]
        assert "backup has been running since 20" in message
        assert f"(pid {first.pid})" in message
    assert (first.returncode, json.loads(out)["outcome"]) == (0, "ok")
    assert len(records(program)) == 10
    assert len(program.answer("list", "demo").document["result"]["sets"]) == 1


def test_control_without_the_lock_the_runs_would_have_met(program):
    """The figure above is worth something only if the nine come while the first is at work: a verb that takes no lock does."""
    with paused(program, "backup", "demo") as process:
        assert program.answer("jobs", "demo").document["result"]["jobs"][0]["outcome"] is None
        assert program.run("doctor", "demo").code in (0, 4)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_run_that_is_told_to_stop_unwinds_and_says_so(program, number):
    with paused(program, "backup", "demo", "--json") as process:
        process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    document = json.loads(out)
    assert document["outcome"] == "failed"
    assert number.name in document["problems"][0]["message"]
    assert "Traceback" not in err
    assert json.loads(records(program)[0].read_text())["document"] == document
    assert not locks.is_held(program.state / "demo/lock")
    assert list((program.repository / "demo").glob(".*.partial")) == []
    assert program.run("backup", "demo").code == 0


def test_a_lost_terminal_does_not_end_a_run_that_was_started_under_nohup(program):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with paused(program, "backup", "demo", "--json") as process:
            process.send_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    out, _ = process.communicate()
    assert (process.returncode, json.loads(out)["outcome"]) == (0, "ok")


def test_a_killed_run_shows_as_interrupted_and_never_as_running(program):
    with paused(program, "backup", "demo") as process:
        while_alive = program.answer("jobs").document["result"]["jobs"][0]
        process.kill()
        process.communicate()
    afterwards = program.answer("jobs", "demo").document["result"]["jobs"][0]
    assert (while_alive["outcome"], while_alive["interrupted"]) == (None, False)
    assert (afterwards["outcome"], afterwards["interrupted"]) == ("failed", True)
    assert str(process.pid) in afterwards["message"]
    assert "interrupted" in program.run("jobs").out


def test_what_is_recorded_is_what_is_printed_and_was_recorded_first(program):
    reading, writing = os.pipe()
    os.close(reading)  # nobody reads the answer: printing it fails
    process = subprocess.Popen(program.argv("backup", "demo", "--json"), stdout=writing, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)
    os.close(writing)
    _, err = process.communicate()
    assert process.returncode == 0, "the backup is made, whoever heard of it"
    assert "Traceback" not in err
    assert "Exception" not in err
    (job,) = program.answer("jobs").document["result"]["jobs"]
    assert json.loads(Path(job["path"]).read_text())["document"]["outcome"] == "ok"


def test_a_look_changes_nothing_and_leaves_no_record(program):
    assert program.run("backup", "demo").code == 0
    before = _tree(program.root)
    for words in (["restore", "demo", "latest", "--plan"], ["prune", "demo", "--dry-run"], ["list", "demo"], ["jobs"], ["status"]):
        assert program.run(*words).code in (0, 4)
    after = _tree(program.root)
    assert {name for name in after if after[name] != before.get(name)} <= {Path("state/demo/declared.json"), Path("state/demo/listing")}
    assert set(before) <= set(after)


def _tree(root: Path) -> dict[Path, tuple[int, int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found[path.relative_to(root)] = (status.st_size, status.st_mode, status.st_mtime_ns if path.is_file() else 0)
    return found


def test_live_data_is_not_replaced_without_a_word_where_nobody_can_be_asked(program):
    assert program.run("backup", "demo").code == 0
    with closing(sqlite3.connect(program.database())) as database, database:
        database.execute("delete from documents")
    refused = program.run("restore", "demo", "latest")
    assert refused.code == 2
    assert f"--confirm demo@{host_name()}" in refused.complaints[0]
    for wrong in (f"mem0@{host_name()}", "demo@elsewhere", "demo", "", f"demo@{host_name()} "):
        assert program.run("restore", "demo", "latest", "--confirm", wrong, "--yes").code == 2
    assert program.rows() == 0
    assert not list((program.state / "jobs/demo").glob("*-restore-*")), "what was refused for lack of a word was never begun"
    assert program.run("restore", "demo", "latest", "--confirm", f"demo@{host_name()}").code == 0
    assert program.rows() == 40


@pytest.mark.parametrize(("typed", "rows", "code"), [("demo", 40, 0), ("yes", 3, 2), ("", 3, 2)])
def test_on_a_terminal_the_plan_is_shown_and_the_name_of_the_stack_has_to_be_typed(program, typed, rows, code):
    assert program.run("backup", "demo").code == 0
    with closing(sqlite3.connect(program.database())) as database, database:
        database.execute("delete from documents where id > 3")
    shown, ended = on_terminal(program, "restore", "demo", "latest", answer=typed)
    assert "Type the stack's name" in shown
    assert host_name() in shown
    line = next(line for line in shown.splitlines() if "documents" in line)
    assert "3" in line, "rows now"
    assert "40" in line, "rows after"
    assert ended == code
    assert program.rows() == rows


def test_from_cron_a_good_run_says_nothing_and_a_bad_one_a_single_sentence(program):
    good = program.run("--quiet", "backup", "demo")
    assert (good.code, good.out, good.err) == (0, "", "")
    program.database().write_bytes(b"no database at all" * 100)
    bad = program.run("--quiet", "backup", "demo")
    assert (bad.code, bad.out) == (1, "")
    assert len(bad.err.splitlines()) == 1
    assert bad.err.startswith("storekeeper: failed: demo, main: ")


def test_output_that_is_thrown_away_is_treated_as_quiet(program):
    with open(os.devnull, "wb") as nothing:
        done = subprocess.run(program.argv("backup", "demo"), stdout=nothing, stderr=subprocess.PIPE, text=True, check=True, cwd=CHECKOUT)
    assert done.stderr == ""


def test_the_configuration_that_is_used_is_said(program):
    assert f"configuration {program.config}" in program.run("list", "demo").err.splitlines()
    assert f"configuration {program.config}" in program.answer("list", "demo").err.splitlines()


def test_commands_to_paste_name_an_unusual_configuration(program):
    ended = program.run("list", "demo")
    assert f"storekeeper --config {program.config} backup demo" in ended.err


def test_a_secret_is_nowhere_in_what_is_printed_or_recorded(program):
    secret = program.root / "password"
    secret.write_text(CANARY)
    secret.chmod(0o600)
    server = f"kind: postgresql, database: hidden, user: hidden, host: 127.0.0.1, port: 9, password: {{file: {secret}}}"
    program.declare(f"stack: hidden\nstores:\n  db: {{{server}}}\n", "hidden")
    said = ""
    for words in (["backup"], ["restore"], ["status"], ["doctor"], ["jobs"]):
        more = {"restore": ["latest", "--yes"], "status": ["--live"]}.get(words[0], [])
        ended = program.run(*words, "hidden", *more, "--json", "--debug", environment={"PGPASSWORD": CANARY, "HIDDEN": CANARY})
        said += ended.out + ended.err
        assert ended.code in (0, 1, 2, 3, 4)
    recorded = [path.read_bytes() for path in program.state.rglob("*") if path.is_file()]
    assert recorded
    assert CANARY not in said
    assert not any(CANARY.encode() in content for content in recorded)
    assert CANARY.encode() in secret.read_bytes(), "the control: what is looked for is there to be found"


@pytest.mark.parametrize("harm", ["link", "open", "file"])
def test_a_state_directory_that_others_could_change_is_refused(program, harm):
    if harm == "link":
        (program.root / "elsewhere").mkdir()
        program.state.symlink_to(program.root / "elsewhere")
    elif harm == "open":
        program.state.mkdir()
        program.state.chmod(0o777)
    else:
        program.state.write_text("")
    refused = program.answer("backup", "demo")
    assert refused.code == 2
    assert str(program.state) in refused.document["problems"][0]["message"]
    assert not program.repository.exists()


def test_what_is_written_is_private_whatever_the_umask(program):
    before = os.umask(0)
    try:
        assert program.run("backup", "demo").code == 0
    finally:
        os.umask(before)
    for folder in (program.state, program.repository):
        for path in [folder, *folder.rglob("*")]:
            assert path.lstat().st_mode & 0o077 == 0, path


def test_a_backup_tells_the_dead_man_service_how_it_ended(program):
    with _listening() as (port, heard):
        program.declare_small("pinged", f"ping: http://127.0.0.1:{port}/abc\n")
        assert program.run("backup", "pinged").code == 0
        program.database("pinged").write_bytes(b"no database at all" * 100)
        assert program.run("backup", "pinged").code == 1
    assert heard == ["/abc", "/abc/fail"]
    unheard = program.answer("backup", "pinged").document
    assert [problem["severity"] for problem in unheard["problems"]] == ["error", "warning"]
    assert "/abc" not in json.dumps(unheard), "whoever knows the address can silence the alarm"


@contextmanager
def _listening() -> Iterator[tuple[int, list[str]]]:
    import http.server  # noqa: PLC0415
    import threading  # noqa: PLC0415

    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

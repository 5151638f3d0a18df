"""What a backup is refused for, as the program tells it, and the damage that each refusal keeps away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from storekeeper.cli.main import main
from storekeeper.outcomes import Refused
from storekeeper.sets import publishing
from storekeeper.sets.publishing import Found, take_set
from storekeeper.sets.repository import Repository
from storekeeper.stack import secrets
from storekeeper.stores.postgresql import connection
from tests.harness.database_program import DatabaseProgram, database_program, programs_with
from tests.harness.postgresql import PASSWORD, Server, programs_of, reachable_directory, start_server
from tests.harness.stacks import make_lab, postgresql_part

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18, tcp=True) as running:
        running.run("create table t as select i from generate_series(1, 100) i")
        yield running


@pytest.fixture
def program(tmp_path: Path, server: Server) -> Iterator[DatabaseProgram]:
    with database_program(tmp_path, server) as made:
        yield made


def without(program: DatabaseProgram, _server: Server) -> None:
    programs = programs_with(program.folder / "bin", "exit 1")
    (programs / "pg_dump").unlink()
    program.declare_database(programs)


def not_executable(program: DatabaseProgram, _server: Server) -> None:
    programs = programs_with(program.folder / "bin", "exit 1")
    (programs / "pg_dump").chmod(0)
    program.declare_database(programs)


def an_older_one(program: DatabaseProgram, _server: Server) -> None:
    program.declare_database(programs_of(15))


def a_wrong_password(program: DatabaseProgram, _server: Server) -> None:
    program.secret.write_text("canary-Wr0ng")


def no_secret(program: DatabaseProgram, _server: Server) -> None:
    program.secret.unlink()


def an_open_secret(program: DatabaseProgram, _server: Server) -> None:
    program.secret.chmod(0o644)


def hidden_rows(program: DatabaseProgram, server: Server) -> None:
    """The role of the backup may read the table, and sees no row of it."""
    server.run("create role app login; create table secured (id int); insert into secured values (1); grant select on secured, t to app")
    server.run(f"alter table secured enable row level security; alter role app password '{PASSWORD}'")
    file = program.config / "stacks/demo.yml"
    file.write_text(file.read_text().replace("user: postgres", "user: app"))


HAZARDS: list[tuple[str, Callable[[DatabaseProgram, Server], None], int, list[str]]] = [
    ("A9", an_older_one, 2, ["pg_dump", "is 15.", "the server is 18."]),
    ("A10", without, 2, ["pg_dump is missing"]),
    ("A10", not_executable, 2, ["pg_dump is there but may not be executed"]),
    ("A13", a_wrong_password, 1, ["password authentication failed", "{secret}"]),
    ("A13", no_secret, 2, ["{secret} cannot be read"]),
    ("A13", an_open_secret, 2, ["{secret} has mode 0644"]),
    ("A15", hidden_rows, 2, ["row security hides rows of public.secured"]),
]


@pytest.mark.parametrize(
    ("arrange", "code", "said"),
    [pytest.param(arrange, code, said, marks=pytest.mark.fault(case), id=arrange.__name__) for case, arrange, code, said in HAZARDS],
)
def test_a_backup_that_cannot_be_good_is_refused_in_a_sentence_and_leaves_nothing(
    program: DatabaseProgram,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    arrange: Callable[[DatabaseProgram, Server], None],
    code: int,
    said: list[str],
) -> None:
    assert run(program, capsys, "backup", "demo")[0] == 0
    arrange(program, server)
    ended, out, err = run(program, capsys, "backup", "demo")
    document = json.loads(out)
    assert (ended, document["outcome"], document["result"]) == (code, "refused" if code == 2 else "failed", None), err
    message = " ".join(f"{each['message']} {each['next']}" for each in document["problems"])
    for words in said:
        assert words.format(secret=program.secret) in message
    assert program.partials() == []
    assert "canary" not in out + err + program.everything_written()
    _, out, _ = run(program, capsys, "list", "demo")
    assert [each["state"] for each in json.loads(out)["result"]["sets"]] == ["verified"]
    assert server.ask("select count(*) from t") == 100
    assert server.ask("select count(*) from pg_locks where relation = 't'::regclass") == 0


def run(program: DatabaseProgram, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["--config", str(program.config), "--json", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.fault("A11")
def test_a_server_that_is_down_fails_the_run_and_the_next_one_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAUSE_BEFORE_RETRY", 0.1)
    with start_server(major=18, tcp=True) as down, database_program(tmp_path, down) as program:
        down.stop()
        code, out, err = run(program, capsys, "backup", "demo")
        document = json.loads(out)
        assert (code, document["outcome"], document["problems"][0]["store"]) == (1, "failed", "rows")
        assert document["problems"][0]["severity"] == "error"
        assert "no connection to database postgres" in err
        assert "canary" not in out + err + program.everything_written()
        assert program.partials() == []
        down.start()
        assert run(program, capsys, "backup", "demo")[0] == 0


@pytest.mark.control("A11")
def test_control_a_client_that_asks_once_fails_while_the_server_starts() -> None:
    with start_server(major=18) as late:
        late.stop()
        starting = threading.Timer(0.5, late.start_soon)
        starting.start()
        try:
            with pytest.raises(psycopg.OperationalError):
                late.connect()
        finally:
            starting.join()


@pytest.mark.control("A10")
def test_control_without_the_look_ahead_every_store_is_held_for_a_dump_that_cannot_be(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_look_ahead(_context: object, stores: dict[str, publishing.Store], _previous: object) -> dict[str, Found]:
        return {name: Found(each.look(), ()) for name, each in stores.items()}

    lab = make_lab(tmp_path, sqlites=1, services=0, first={"rows": postgresql_part(server, "held")})
    lab.write("one")
    programs = programs_with(lab.context.scratch / "bin", "exit 1")
    (programs / "pg_dump").unlink()
    lab.context.stores["rows"]._declared = server.declared("held", programs=programs)  # type: ignore[attr-defined]
    held: list[str] = []
    one_point = publishing.one_point
    monkeypatch.setattr(publishing, "one_point", lambda holds, progress: (held.extend(holds), one_point(holds, progress))[1])
    with pytest.raises(Refused, match="pg_dump is missing"):
        take_set(lab.context, purpose="backup")
    assert held == []
    monkeypatch.setattr(publishing, "_preflight", no_look_ahead)
    with pytest.raises(Refused, match="pg_dump is missing"):
        take_set(lab.context, purpose="backup")
    assert held == ["rows", "main", "papers"]
    lab.close()


@AS_ROOT
@pytest.mark.control("A13")
def test_control_a_password_that_all_can_read_does_let_a_backup_in(
    program: DatabaseProgram, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_refuse_unless_private", lambda *_: None)
    program.secret = program.folder / "secret"
    program.secret.write_text(PASSWORD)
    program.secret.chmod(0o644)
    program.declare_database()
    assert run(program, capsys, "backup", "demo")[0] == 0
    words = ["cat", str(program.secret)]
    assert subprocess.run(words, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=True).stdout == PASSWORD


@pytest.mark.control("A14")
def test_control_a_dump_without_a_bound_queues_behind_the_lock(server: Server, tmp_path: Path) -> None:
    """And whoever comes next queues behind it."""
    with server.connect() as other:
        other.execute("begin; lock table t in access exclusive mode")
        words = [
            programs_of(18) / "pg_dump",
            "-h",
            server.socket,
            "-p",
            str(server.port),
            "-U",
            "postgres",
            "-f",
            tmp_path / "dump",
            "postgres",
        ]
        client = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while not (waiting := server.ask("select count(*) from pg_locks where not granted")) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert waiting == 1
            assert client.poll() is None
        finally:
            client.kill()
            client.wait()


@AS_ROOT
@pytest.mark.fault("A25")
@pytest.mark.control("A25")
def test_in_a_repository_that_others_can_write_somebody_else_puts_sets_of_his_own() -> None:
    """The control: what is refused is what lets him in."""
    place = reachable_directory()
    try:
        Repository.create(place / "sets", place / "state")
        (place / "sets/demo").mkdir(mode=0o700)
        (place / "sets").chmod(0o777)
        words = f"mv {place}/sets/demo {place}/sets/gone && mkdir {place}/sets/demo && touch {place}/sets/demo/forged"
        subprocess.run(["sh", "-c", words], user=65534, group=65534, extra_groups=[], check=True)
        assert (place / "sets/demo/forged").stat().st_uid == 65534
        with pytest.raises(Refused, match=r"can be written by others \(mode 0777\)"):
            Repository.open(place / "sets", place / "state")
        (place / "sets").chmod(0o700)
        with pytest.raises(Refused, match="belongs to user 65534"):
            Repository.open(place / "sets", place / "state").stack("demo")
    finally:
        shutil.rmtree(place)

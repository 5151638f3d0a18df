"""Secrets on their way through the program: whole where they are used, and nowhere else to be seen, whatever fails."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from storekeeper.outcomes import Refused
from storekeeper.stack.secrets import read_secret
from storekeeper.stack.types import SecretReference
from storekeeper.stores.postgresql import build
from storekeeper.stores.surroundings import Surroundings
from tests.harness.campaign import Campaign
from tests.harness.postgresql import PASSWORD, Server, reachable_directory, start_server
from tests.harness.program import Ended, Program
from tests.harness.sampler import Sampler
from tests.stores.walk import take_whole
from tests.unit.test_stack_secrets import SECRETS

CANARIES = {name: f"canary-{name}-9d41c7" for name in ("file", "environment", "wrong", "ping", "caller")}
VARIABLE = "STOREKEEPER_TEST_ADMIN"
EVERYWHERE = [*CANARIES.values(), PASSWORD]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It writes every statement into its log."""
    with start_server(major=18, tcp=True, settings=["log_statement=all", "log_connections=on"]) as running:
        running.run(f"create role keeper login password '{CANARIES['file']}'")
        running.run(f"create role chief superuser login password '{CANARIES['environment']}'")
        yield running


# --- Every shape of a secret -----------------------------------------------------------------------------------------


def _take_with(server: Server, around: Surroundings, tmp_path: Path, password: bytes) -> None:
    """What a backup does with a password: a session of ours, and programs that read the passfile."""
    secret = tmp_path / "secret"
    secret.unlink(missing_ok=True)
    secret.write_bytes(password)
    secret.chmod(0o600)
    sets = tmp_path / "sets"
    shutil.rmtree(sets, ignore_errors=True)
    store = build("main", server.declared_over_tcp("shapes", secret, "shaped"), around)
    store.preflight()
    take_whole(store, sets)


@pytest.fixture(scope="module")
def shaped(server: Server) -> Server:
    server.run("create role shaped login password 'x'")
    server.run("create database shapes owner shaped")
    with server.connect("shapes", "shaped") as connection:
        connection.execute("create table t (id int); insert into t values (1)")
    return server


def _set_password(server: Server, password: str) -> None:
    with server.connect() as connection:
        connection.execute(sql.SQL("alter role shaped password {}").format(password))


@pytest.mark.fault("H8")
def test_a_password_of_any_signs_opens_a_real_server_and_its_programs(
    shaped: Server, around: Surroundings, tmp_path: Path, campaign: Campaign
) -> None:
    shapes = {**SECRETS, "a backslash last": "ends\\", "only signs": "':\\*#", "a colon first": ":x", "500 of two bytes": "ж" * 500}
    opened = 0
    for secret in shapes.values():
        _set_password(shaped, secret)
        _take_with(shaped, around, tmp_path, secret.encode() + b"\n")
        opened += 1
    campaign.found(len(shapes), "shapes of a password at a real server", f"{opened} open it, whole")
    assert opened == len(shapes)


@pytest.mark.fault("H8")
@pytest.mark.parametrize("password", [b"two\nlines", b"a return\r", b"a NUL\0", b"\xff", b"x" * 10_001])
def test_a_secret_that_cannot_be_a_password_is_refused_before_the_server_is_asked(
    password: bytes, shaped: Server, around: Surroundings, tmp_path: Path
) -> None:
    log = shaped.data.parent / "log"
    before = log.stat().st_size
    with pytest.raises(Refused, match="the password of role shaped"):
        _take_with(shaped, around, tmp_path, password)
    assert b"shaped" not in log.read_bytes()[before:]


@pytest.mark.control("H8")
def test_control_a_passfile_that_is_written_as_it_comes_opens_nothing(shaped: Server, tmp_path: Path) -> None:
    _set_password(shaped, "a:b\\c")
    address = {"host": "127.0.0.1", "port": shaped.port, "dbname": "shapes", "user": "shaped"}
    passfile = tmp_path / "passfile"
    passfile.write_text("*:*:*:*:a\\:b\\\\c\n")
    passfile.chmod(0o600)
    psycopg.connect(**address, passfile=str(passfile)).close()
    passfile.write_text("*:*:*:*:a:b\\c\n")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(**address, passfile=str(passfile))


# --- Nowhere to be seen ----------------------------------------------------------------------------------------------


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """It says nothing."""


@contextmanager
def _dead_mans_service() -> Iterator[str]:
    """An address that holds a secret, and answers 500."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{service.server_port}/{CANARIES['ping']}"
        finally:
            service.shutdown()
            thread.join()


@dataclass
class Watched:
    """The program on a stack whose every slot for a secret has a canary, and all that it has said."""

    program: Program
    secret: Path
    sampler: Sampler
    said: list[Ended] = field(default_factory=list)

    def run(self, *words: str) -> Ended:
        environment = {VARIABLE: CANARIES["environment"], "PGPASSWORD": CANARIES["caller"]}
        process = self.program.start(*words, environment=environment)
        self.sampler.given.add(process.pid)
        out, err = process.communicate()
        self.said.append(Ended(process.returncode, out, err))
        return self.said[-1]

    def leaks(self, secrets: list[str]) -> list[str]:
        """Where a secret stands that is not where it belongs: what was said, and every file below the program's root."""
        found = sorted(self.sampler.hits)
        for ended in self.said:
            found += [f"what the program said: {word}" for word in secrets if word in ended.out + ended.err]
        declared = {self.secret, self.program.config / "stacks/demo.yml"}
        for path in self.program.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path not in declared:
                data = path.read_bytes()
                found += [f"{path.relative_to(self.program.root)}: {word}" for word in secrets if word.encode() in data]
        return found


@pytest.fixture
def watched(server: Server) -> Iterator[Watched]:
    root = reachable_directory()
    program = Program(root / "host")
    (root / "host").chmod(0o755)
    server.run("drop database if exists canary")
    server.run("create database canary owner keeper")
    with server.connect("canary", "keeper") as connection:
        connection.execute("create table t (id int); insert into t values (1), (2)")
    secret = program.root / "secret"
    secret.write_text(CANARIES["file"] + "\n")
    secret.chmod(0o600)
    with _dead_mans_service() as ping, Sampler(os.getpid(), EVERYWHERE) as sampler:
        server_store = (
            f"{{kind: postgresql, database: canary, user: keeper, host: 127.0.0.1, port: {server.port}, programs: {server.programs},"
            f" sql: true, password: {{file: {secret}}}, admin: {{user: chief, password: {{env: {VARIABLE}}}}}}}"
        )
        program.declare(f"stack: demo\nping: {ping}\nstores:\n  db: {server_store}\n")
        yield Watched(program, secret, sampler)
    shutil.rmtree(root)


GOOD = (
    ["backup", "demo"],
    ["verify", "demo", "--all"],
    ["prove", "demo"],
    ["list", "demo"],
    ["pin", "demo", "latest"],
    ["unpin", "demo", "latest"],
    ["status", "--live"],
    ["doctor"],
    ["jobs", "demo"],
    ["prune", "demo", "--dry-run"],
    ["restore", "demo", "latest", "--plan"],
    ["restore", "demo", "latest", "--yes"],
    ["restore", "demo", "--back", "--yes"],
    ["resume", "demo"],
)
FAILING = (
    ["backup", "demo"],
    ["prove", "demo"],
    ["restore", "demo", "latest", "--yes"],
    ["status", "--live"],
    ["doctor"],
)
LOUD = (["--debug", "--json"], [])


def _run_all(watched: Watched, server: Server, loud: list[str]) -> None:
    for words in GOOD:
        watched.run(*words, *loud)
    for fail in (_wrong_password, _open_secret, _no_connections, _missing_database):
        with fail(watched, server):
            codes = [watched.run(*words, *loud).code for words in FAILING]
        assert any(codes), f"{fail.__name__} made nothing fail"


def _run_few(watched: Watched, server: Server) -> None:
    for words in (["backup", "demo"], ["prove", "demo"], ["restore", "demo", "latest", "--yes"]):
        watched.run(*words, "--debug", "--json")
    with _wrong_password(watched, server):
        assert watched.run("backup", "demo", "--debug").code == 1


@contextmanager
def _wrong_password(watched: Watched, server: Server) -> Iterator[None]:
    watched.secret.write_text(CANARIES["wrong"])
    yield
    watched.secret.write_text(CANARIES["file"])


@contextmanager
def _open_secret(watched: Watched, server: Server) -> Iterator[None]:
    watched.secret.chmod(0o644)
    yield
    watched.secret.chmod(0o600)


@contextmanager
def _no_connections(watched: Watched, server: Server) -> Iterator[None]:
    server.run("alter role keeper connection limit 0")
    yield
    server.run("alter role keeper connection limit -1")


@contextmanager
def _missing_database(watched: Watched, server: Server) -> Iterator[None]:
    server.run("alter database canary rename to elsewhere")
    yield
    server.run("drop database if exists canary with (force)")
    server.run("alter database elsewhere rename to canary")


def _kill_one(watched: Watched) -> None:
    """While a program reads the passfile: what it leaves is removed by the next run."""
    process = watched.program.start("backup", "demo", environment={VARIABLE: CANARIES["environment"]})
    watched.sampler.given.add(process.pid)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if list(watched.program.state.rglob("passfile-*")):
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(watched.program.state.rglob("passfile-*")), "it was not killed while the secret was in a file: this proves nothing"


@pytest.mark.slow
@pytest.mark.fault("H7")
def test_no_secret_is_seen_in_processes_in_what_is_said_or_in_any_file(watched: Watched, server: Server, campaign: Campaign) -> None:
    for loud in LOUD[: campaign.trials(reduced=0, full=len(LOUD))]:
        _run_all(watched, server, loud)
    if not campaign.full:
        _run_few(watched, server)
    _kill_one(watched)
    assert watched.run("backup", "demo").code in (0, 4), "and it works again"
    said = watched.leaks(EVERYWHERE)
    log = (server.data.parent / "log").read_text(errors="replace")
    said += [f"the server's log: {name}" for name, word in CANARIES.items() if f"password '{word}'" not in log and word in log]
    what = f"commands of the program with a canary in every slot ({watched.sampler.samples:,} looks at its processes)"
    campaign.found(len(watched.said), what, f"{len(said)} seen")
    assert said == []
    assert {"pg_dump", "pg_restore", "initdb"} <= watched.sampler.programs, "the sampler saw no programs: this proves nothing"


@pytest.mark.control("H7")
def test_control_a_secret_among_the_arguments_or_in_the_environment_of_a_child_is_seen(tmp_path: Path) -> None:
    """As a wrapper would that calls pg_dump with the password in its environment, or in a connection string."""
    leaking = (
        "import subprocess; subprocess.run(['sleep', '0.1'], env={'PGPASSWORD': '%s'}); subprocess.run(['sh', '-c', 'sleep 0.1; : %s'])"
    )
    with Sampler(os.getpid(), [CANARIES["file"]]) as sampler:
        words = ("canary-file-9d41c7",) * 2
        (tmp_path / "wrapper.py").write_text(leaking % words)
        subprocess.run([sys.executable, tmp_path / "wrapper.py"], check=True)
    assert sampler.hits >= {"environment of sleep", "arguments of sh"}


@pytest.mark.control("H9")
def test_control_an_ordinary_read_takes_a_secret_that_everybody_can_read(tmp_path: Path) -> None:
    """And takes an empty file for an empty password, with which a server that trusts somebody is entered unseen."""
    secret = tmp_path / "secret"
    secret.write_text(CANARIES["file"])
    secret.chmod(0o644)
    assert secret.read_text().strip() == CANARIES["file"]
    secret.write_text("")
    assert secret.read_text().strip() == ""
    with pytest.raises(Refused):
        read_secret(SecretReference(file=secret), "it")

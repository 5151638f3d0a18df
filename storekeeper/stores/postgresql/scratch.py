"""A scratch server: made for one proof, reachable by nobody else, gone with its files afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from storekeeper.host import clock, durable, processes
from storekeeper.host.processes import Command, ProgramFailed, User
from storekeeper.outcomes import Failed, StorekeeperError, Unknown
from storekeeper.stores.postgresql.connection import Access
from storekeeper.stores.postgresql.programs import Programs, find

_PORT = 5432
_LONGEST_SOCKET_DIRECTORY = 107 - len(f"/.s.PGSQL.{_PORT}")  # bytes of sun_path, unix(7)
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LEAST_LOCKS = 1000
_EVENT_TRIGGERS_OFF = 17  # the first version in which that can be said
_UNPRIVILEGED = ("postgres", "nobody")  # initdb and postgres refuse to run as root
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "20",  # times the locks of a transaction, that is how many locks there is room for
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "logging_collector": "on",
    "log_filename": "server.log",
}


@contextmanager
def scratch_server(declared_programs: Path | None, major: int, superuser: str, scratch: Path, *, tables: int) -> Iterator[Access]:
    """A running server of this major version, reached only through a socket in a directory of its own, with room to lock so many tables.

    Raises Unknown, with the package to install, when the server's programs are not here or cannot be used.
    """
    programs = _server_programs(declared_programs, major)
    user = _runs_as()
    with ExitStack() as undo:
        home = scratch / "server"
        undo.callback(durable.remove_tree, home)
        durable.make_directory(home)
        _give(scratch, user)
        _give(home, user)
        sockets = _socket_directory(home, user, undo)
        _initialise(programs, home / "data", superuser, user)
        process = _launch(programs, home, sockets, user, max(_LEAST_LOCKS, tables))
        undo.callback(_stop, process)
        access = Access(str(sockets), _PORT, superuser, None, home, peer=False)
        _wait_until_it_answers(access, process, home)
        yield access


def let_in(access: Access, role: str) -> Access:
    """A role of a scratch server, in which anybody may connect as anybody."""
    with access.session("postgres") as connection:
        connection.execute(sql.SQL("alter role {} login connection limit -1").format(sql.Identifier(role)))
    return replace(access, user=role)


def reader(access: Access, role: str) -> Access:
    """The same for a role that may read all there is in a scratch server, and lock it: its rights may have come from roles of the old
    server that no set knows. The server's own superuser stays what it is.
    """
    name = sql.Identifier(role)
    with access.session("postgres") as connection:
        if connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
            connection.execute(sql.SQL("create role {}").format(name))
        if role != access.user:
            connection.execute(sql.SQL("grant pg_read_all_data, pg_write_all_data to {}").format(name))
    return let_in(access, role)


def _server_programs(declared: Path | None, major: int) -> Programs:
    """Programs of exactly this major version: where declared, if those are, else in the distribution's place."""
    for place in (declared, None):
        try:
            found = find(place, major)
            found.path("initdb")
            found.path("postgres")
        except StorekeeperError:
            continue
        if found.major == major:
            return found
    raise Unknown(f"a proof needs initdb and postgres {major}, which are not installed here", next=f"apt-get install postgresql-{major}")


def _runs_as() -> User | None:
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            return User.named(name)
        except KeyError:
            continue
    raise Unknown(
        f"a scratch server cannot run as root, and there is no user {' or '.join(_UNPRIVILEGED)}", next="adduser --system postgres"
    )


def _give(directory: Path, user: User | None) -> None:
    if user is not None:
        os.chown(directory, user.uid, user.gid)


def _socket_directory(home: Path, user: User | None, undo: ExitStack) -> Path:
    if len(os.fsencode(home)) <= _LONGEST_SOCKET_DIRECTORY:
        return home
    short = Path(tempfile.mkdtemp(prefix="storekeeper-"))
    undo.callback(durable.remove_tree, short)
    _give(short, user)
    return short


def _initialise(programs: Programs, data: Path, superuser: str, user: User | None) -> None:
    words = [f"--pgdata={data}", f"--username={superuser}", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    try:
        processes.run(Command([programs.path("initdb"), *words], user=user), timeout=120)
    except ProgramFailed as error:
        raise Unknown(f"no scratch server could be made: {error.message}") from error


def _launch(programs: Programs, home: Path, sockets: Path, user: User | None, locks: int) -> subprocess.Popen[bytes]:
    settings = {**_SETTINGS, "max_locks_per_transaction": str(locks), "unix_socket_directories": str(sockets), "log_directory": str(home)}
    if programs.major >= _EVENT_TRIGGERS_OFF:
        settings["event_triggers"] = "off"  # one on logins would run as the server's superuser, and it can start programs
    words = [word for name, text in settings.items() for word in ("-c", f"{name}={text}")]
    # Should this program be killed, the server ends by itself when its directory is swept; it must not keep a stack locked until then.
    return processes.start(Command([programs.path("postgres"), "-D", home / "data", *words], user=user, keeps_locks=False))


def _wait_until_it_answers(access: Access, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = clock.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or clock.monotonic() > deadline:
            log = home / "server.log"
            said = (
                log.read_text(errors="replace")[-1000:]
                if log.exists()
                else (process.stderr.read(1000).decode(errors="replace") if process.stderr else "")
            )
            raise Unknown(f"the scratch server did not start: {' '.join(said.split()) or 'it said nothing'}")
        if access.answers("postgres"):
            return
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """A fast shutdown; after that, the hard way."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            processes.end(process)
            raise Failed("the scratch server did not stop in time and was killed") from None
    processes.end(process)

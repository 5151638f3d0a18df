"""What a PostgreSQL store refuses or fails, in sentences, before a backup could be a bad one."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from storekeeper.host import clock
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.sets.point import one_point
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.postgresql import PostgresqlStore, archiving, build, connection, digests, hold
from storekeeper.stores.postgresql.digests import Multiset
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import PASSWORD, Server, programs_of, start_server
from tests.stores import walk
from tests.stores.walk import take_whole

_numbers = itertools.count()


@pytest.fixture
def database(server: Server) -> str:
    name = f"db{next(_numbers)}"
    server.run(f"create database {name}")
    return name


def opened(server: Server, database: str, around: Surroundings, user: str = "postgres", **declared: Any) -> PostgresqlStore:
    return build("main", server.declared(database, user, **declared), around)


def secret(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / f"secret{next(_numbers)}"
    path.write_text(text)
    path.chmod(mode)
    return path


def programs_copy(around: Surroundings) -> Path:
    """Links to real programs, of which a test replaces some, where the server's user can reach them."""
    copy = around.scratch / f"bin{next(_numbers)}"
    copy.mkdir()
    copy.chmod(0o777)
    for program in programs_of(18).iterdir():
        (copy / program.name).symlink_to(program)
    return copy


def script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.fault("A9")
def test_a_pg_dump_older_than_the_server_is_refused_with_both_versions(server: Server, database: str, around: Surroundings) -> None:
    old = programs_of(15)
    with pytest.raises(Refused, match=r"pg_dump in .*15.* is 15\.[0-9]+, the server is 18\.[0-9]+") as refused:
        opened(server, database, around, programs=old).preflight()
    assert refused.value.next == "apt-get install postgresql-client-18"


@pytest.mark.control("A9")
def test_control_an_older_pg_dump_does_fail_on_a_newer_server(server: Server, database: str) -> None:
    argv = [programs_of(15) / "pg_dump", "-h", server.socket, "-p", str(server.port), "-U", "postgres", database]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "server version mismatch" in done.stderr


@pytest.mark.parametrize("program", ["pg_dump", "pg_restore"])
@pytest.mark.fault("A10")
def test_a_program_that_is_missing_or_not_executable_is_refused_and_named(
    server: Server, database: str, around: Surroundings, tmp_path: Path, program: str
) -> None:
    copy = programs_copy(around)
    store = opened(server, database, around, programs=copy)
    store.preflight()
    script(copy / program, "")
    (copy / program).chmod(0)
    with pytest.raises(Refused, match=f"{program} is there but may not be executed"):
        store.preflight()
    (copy / program).unlink()
    with pytest.raises(Refused, match=f"{program} is missing"):
        store.preflight()


@pytest.mark.fault("A11")
def test_a_server_that_is_down_is_tried_once_more_and_fails_within_30_seconds(around: Surroundings, tmp_path: Path) -> None:
    with start_server(major=18, tcp=True) as down:
        stores = opened(down, "postgres", around), build("main", down.declared_over_tcp("postgres", secret(tmp_path, PASSWORD)), around)
        down.stop()
        for store in stores:
            started = clock.monotonic()
            with pytest.raises(Failed, match="no connection to database postgres"):
                store.preflight()
            assert clock.monotonic() - started < 30


@pytest.mark.fault("A11")
def test_a_server_that_is_down_is_unknown_never_empty_and_never_absent(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PAUSE_BEFORE_RETRY", 0.1)
    with start_server(major=18) as down:
        down.run("create role plain login")
        down.stop()
        for user in ("postgres", "plain"):
            store = opened(down, "postgres", around, user)
            with pytest.raises(Unknown, match="no connection"):
                store.inspect()
            with pytest.raises(Unknown, match="no connection"):
                store.is_absent()


@pytest.mark.fault("A11")
def test_a_server_that_comes_up_between_the_two_tries_is_used(around: Surroundings) -> None:
    with start_server(major=18) as late:
        late.stop()
        starting = threading.Timer(0.5, late.start_soon)
        starting.start()
        try:
            assert opened(late, "postgres", around).inspect().version.startswith("18.")
        finally:
            starting.join()


@pytest.mark.fault("A12")
def test_a_server_that_hangs_does_not_hang_the_store(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1)
    with start_server(major=18) as hung:
        store = opened(hung, "postgres", around)
        os.kill(hung.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Failed, match="timeout"):
                store.preflight()
        finally:
            os.kill(hung.pid, signal.SIGCONT)


@pytest.mark.fault("A12")
def test_a_backend_that_hangs_in_the_middle_of_a_query_ends_at_the_overall_timeout(
    server: Server, database: str, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "PIN_SECONDS", 1.0)
    held = opened(server, database, around).hold(tmp_path)
    held.prepare()
    backend = held.connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(Failed, match="the snapshot could not be taken"):
            held.pin()
    finally:
        os.kill(backend, signal.SIGCONT)
        held.close()


@pytest.mark.parametrize("what", ["pg_dump", "digests"])
@pytest.mark.fault("A12")
def test_a_server_that_hangs_in_the_middle_of_a_dump_fails_the_store_and_leaves_no_program(
    around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(archiving if what == "pg_dump" else digests, "SILENCE_SECONDS", 1.0)
    of_table = digests.of_table
    with start_server(major=18) as hung:
        hung.run("create table t as select i, repeat(md5(i::text), 30) as body from generate_series(1, 100000) i")
        store = opened(hung, "postgres", around)
        held, into = store.hold(tmp_path), StoreFolder(tmp_path, None, lambda _: None)
        stopped: list[int] = []

        def stop(*words: Any) -> Multiset:
            """Stop every process of the server that works for us, as a hung disk would; what pg_dump waits for, nothing else waits for."""
            wait_for_backends(hung, 2 if what == "pg_dump" else 1)  # ours, and that of pg_dump, which connects meanwhile
            stopped.extend(stop_backends(hung))
            return Multiset() if what == "pg_dump" else of_table(*words)

        monkeypatch.setattr(digests, "of_table", stop)
        monkeypatch.setattr(digests, "of_large_objects", lambda *_: Multiset())
        try:
            with pytest.raises(Failed, match=r"nothing for 1 s|could not be read"), one_point({"main": held}, Progress()):
                walk.dump(store, held, into)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):  # its client may have ended it
                    os.kill(pid, signal.SIGCONT)
    assert subprocess.run(["pgrep", "-f", f"pg_dump.*{held.snapshot}"], capture_output=True, check=False).returncode == 1


def wait_for_backends(server: Server, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(backends(server)) < count:
        assert time.monotonic() < deadline, f"there are not {count} backends"
        time.sleep(0.01)


def stop_backends(server: Server) -> list[int]:
    """SIGSTOP for the server's backends."""
    pids = backends(server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def backends(server: Server) -> list[int]:
    """The processes of the server that work for somebody, found by their parent."""
    found = subprocess.run(["pgrep", "-P", str(server.pid), "-f", "postgres postgres"], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


@pytest.mark.fault("A13")
def test_a_wrong_password_fails_at_once_names_the_file_and_never_the_secret(
    server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    wrong = secret(tmp_path, "canary-Wr0ng")
    store = build("main", server.declared_over_tcp(database, wrong), around)
    with pytest.raises(Failed, match="password authentication failed") as failed:
        store.preflight()
    assert str(wrong) in str(failed.value.next)
    assert "canary" not in failed.value.message + str(failed.value.next)


@pytest.mark.parametrize("hazard", ["missing", "0644", "empty", "directory"])
@pytest.mark.fault("A13", "H9")
def test_a_secret_that_cannot_be_trusted_is_refused_and_named(
    server: Server, database: str, around: Surroundings, tmp_path: Path, hazard: str
) -> None:
    path = secret(tmp_path, "" if hazard == "empty" else PASSWORD, 0o644 if hazard == "0644" else 0o600)
    if hazard in ("missing", "directory"):
        path.unlink()
    if hazard == "directory":
        path.mkdir()
    with pytest.raises(Refused, match=str(path)) as refused:
        build("main", server.declared_over_tcp(database, path), around).preflight()
    assert "canary" not in refused.value.message


@pytest.mark.parametrize("password", ["a:b\\c", "it's", "%s %% $HOME `x`", "-rf", "ünï 表", "x" * 200, "  spaced "])
@pytest.mark.fault("H8")
def test_a_password_with_hostile_signs_reaches_the_server_and_its_programs_whole(
    server: Server, database: str, around: Surroundings, tmp_path: Path, password: str
) -> None:
    role = f"role{next(_numbers)}"
    server.run(f"create role {role} login; create table t{role} (id int); alter table t{role} owner to {role}", database)
    with server.connect() as admin:
        admin.execute(psycopg.sql.SQL("alter role {} password {}").format(psycopg.sql.Identifier(role), password))
    store = build("main", server.declared_over_tcp(database, secret(tmp_path, password), user=role), around)
    taken = take_whole(store, tmp_path / "sets")
    assert taken.record.counts == {f"public.t{role}": 0}
    assert list(around.private.iterdir()) == []


def test_no_secret_is_in_the_arguments_or_the_environment_of_a_program(
    server: Server, database: str, around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pg_dump that writes down what it was given, and hostile PG* variables of the caller that must not reach it."""
    copy = programs_copy(around)
    seen = copy / "seen"
    real = programs_of(18) / "pg_dump"
    script(copy / "pg_dump", f'#!/bin/sh\nenv >> {seen}\necho "$@" >> {seen}\nls -l $PGPASSFILE >> {seen} 2>&1\nexec {real} "$@"\n')
    monkeypatch.setenv("PGPASSWORD", "canary-environment")
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    store = build("main", server.declared_over_tcp(database, secret(tmp_path, PASSWORD), programs=copy), around)
    take_whole(store, tmp_path / "sets")
    said = seen.read_text()
    assert "-rw-------" in said
    assert "canary" not in said
    assert "elsewhere" not in said
    assert "nonsense" not in said
    assert os.environ["PGPASSWORD"] == "canary-environment"
    assert list(around.private.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the role's OS user")
def test_root_takes_the_os_user_of_the_role_where_the_server_asks_the_socket(around: Surroundings, tmp_path: Path) -> None:
    with start_server(major=18, local="peer") as peer:
        store = opened(peer, "postgres", around)
        taken = take_whole(store, tmp_path / "sets")
        store.verify(taken.folder, taken.record)
        assert (os.geteuid(), os.getegid()) == (0, 0)
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            psycopg.connect(host=str(peer.socket), port=peer.port, dbname="postgres", user="postgres")


def limited(server: Server, database: str, statements: str) -> str:
    """A role that may read everything in the database before these statements are run."""
    role = f"reader{next(_numbers)}"
    server.run(f"create role {role} login; grant pg_read_all_data to {role}")
    server.run(statements.replace("ROLE", role), database)
    return role


@pytest.mark.fault("A15")
def test_a_role_that_may_not_read_a_table_or_a_schema_is_refused_and_told_which(
    server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    role = limited(
        server, database, "create schema s; create table s.t (id int); create table u (id int); revoke pg_read_all_data from ROLE"
    )
    store = opened(server, database, around, role)
    with pytest.raises(Refused, match=r"may not read public\.u, s\.t|may not read s\.t and|may not read public\.u|may not read s\.t"):
        store.preflight()
    held = store.hold(tmp_path)
    with pytest.raises(Refused, match="may not read"):
        held.prepare()
    held.close()
    server.run(f"grant pg_read_all_data to {role}")
    store.preflight()


@pytest.mark.fault("A15")
def test_a_table_whose_row_security_hides_rows_is_refused(server: Server, database: str, around: Surroundings, tmp_path: Path) -> None:
    role = limited(server, database, "create table t (id int); insert into t values (1); alter table t enable row level security")
    store = opened(server, database, around, role)
    with pytest.raises(Refused, match=r"row security hides rows of public\.t"):
        store.preflight()
    server.run(f"alter role {role} bypassrls")
    store.preflight()
    assert take_whole(store, tmp_path / "sets").record.counts == {"public.t": 1}


@pytest.mark.control("A15")
def test_control_with_row_security_on_such_a_table_counts_as_empty(server: Server, database: str) -> None:
    role = limited(server, database, "create table t (id int); insert into t values (1); alter table t enable row level security")
    with server.connect(database, role) as reader:
        assert reader.execute("select count(*) from t").fetchone() == (0,)


@pytest.mark.fault("A15")
def test_large_objects_that_the_role_may_not_read_are_refused(server: Server, database: str, around: Surroundings) -> None:
    role = limited(server, database, "select lo_from_bytea(1, 'x'), lo_from_bytea(2, 'y')")
    store = opened(server, database, around, role)
    with pytest.raises(Refused, match="may not read 2 large objects"):
        store.preflight()
    server.run(f"grant select on large object 1, 2 to {role}", database)
    store.preflight()


def test_data_checksums_that_are_off_are_a_warning(around: Surroundings) -> None:
    with start_server(major=16) as without:
        [problem] = opened(without, "postgres", around).preflight()
    assert "data checksums are off" in problem.message


@pytest.mark.fault("A1")
def test_a_dump_that_is_killed_fails_the_store_and_leaves_no_good_record(
    server: Server, database: str, around: Surroundings, tmp_path: Path
) -> None:
    server.run("create table t as select i, repeat(md5(i::text), 30) as body from generate_series(1, 20000) i", database)
    copy = programs_copy(around)
    real = programs_of(18) / "pg_dump"
    script(
        copy / "pg_dump", f'#!/bin/sh\ncase "$*" in *--snapshot*) {real} "$@" | head -c 100000; kill -9 $$;; *) exec {real} "$@";; esac\n'
    )
    with pytest.raises(Failed, match="pg_dump was killed by signal 9"):
        take_whole(opened(server, database, around, programs=copy), tmp_path / "sets")

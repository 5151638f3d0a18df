"""A set whose functions do more than they should: nothing in it runs with more rights than its owner has, and never a program.

What PostgreSQL runs while a set is loaded: constraints and generated columns while rows arrive, functions of indexes, event triggers.
"""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storekeeper.sets.comparison import refuse_difference
from storekeeper.stack.model import Admin
from storekeeper.stack.types import SecretReference
from storekeeper.stores.postgresql import PostgresqlStore, build
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import PASSWORD, Server, reachable_directory, server_user
from tests.harness.proving import content_of_copy
from tests.stores.walk import Taken, take_whole

_numbers = itertools.count()
_tokens = (f"{number:08x}" for number in itertools.count(1))

# Becomes whoever connected, if it can, and then what it can do with that: start a program, and make its owner a superuser.
# What an index or a constraint calls must be immutable, and such a function may do nothing; but it may call one that may.
GRAB = """
create function public.take() returns int language plpgsql volatile as $$
begin
    begin execute 'reset session authorization'; exception when others then null; end;
    begin execute 'reset role'; exception when others then null; end;
    begin execute 'copy (select 1) to program ''touch {marker}'''; exception when others then null; end;
    begin execute 'alter role {role} superuser'; exception when others then null; end;
    return 1;
end $$;
create function public.grab(n int) returns int language plpgsql immutable as $$ begin perform public.take(); return n; end $$;
"""
HOSTILE = {
    "a constraint": "create table t (id int check (grab(id) is not null))",
    "a generated column": "create table t (id int, g int generated always as (grab(id)) stored)",
    "a domain": "create domain d as int check (grab(value) is not null); create table t (id d)",
    "an index": "create table t (id int); create index on t (grab(id))",
    "a materialized view": "create table t (id int); create materialized view m as select grab(id) from t",
    "a partition's key": "create table t (id int) partition by range (grab(id)); create table t1 partition of t default",
}


@pytest.fixture
def attacked() -> Iterator[Path]:
    """Where the server's user can leave a marker."""
    place = reachable_directory()
    if os.geteuid() == 0:
        user = pwd.getpwnam(server_user())
        os.chown(place, user.pw_uid, user.pw_gid)
    yield place
    for left in place.iterdir():
        left.unlink()
    place.rmdir()


@dataclass(frozen=True)
class Case:
    server: Server
    store: PostgresqlStore
    role: str
    marker: Path
    taken: Taken

    def damage(self) -> list[str]:
        """What the set did beyond its owner's rights."""
        found = [f"a program ran: {self.marker.name}"] if self.marker.exists() else []
        if self.server.ask(f"select rolsuper from pg_roles where rolname = '{self.role}'"):
            found.append(f"{self.role} is a superuser")
        return found


def _case(server: Server, around: Surroundings, tmp_path: Path, attacked: Path, statements: str, more: str = "select 1") -> Case:
    """A set of a database of a role without rights; `more` is what a superuser has made in it besides."""
    number = next(_numbers)
    role, database, marker = f"plain{number}", f"hostile{number}", attacked / f"marker-{number}"
    server.run(f"create role {role} login password '{PASSWORD}'")
    server.run(f"create database {database} owner {role}")
    with server.connect(database, role) as connection:
        connection.execute(GRAB.format(marker=marker, role=role))
        connection.execute(statements)
        connection.execute("insert into t values (1), (2)")
    server.run(more.format(marker=marker, role=role), database)
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    reference = SecretReference(file=secret)
    declared = server.declared(database, role, host="127.0.0.1", password=reference, admin=Admin(user="postgres", password=reference))
    store = build("main", declared, around)
    taken = take_whole(store, tmp_path / "sets")
    case = Case(server, store, role, marker, taken)
    assert case.damage() == [], "taking the set does no harm"
    return case


@pytest.mark.fault("H16")
@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_function_runs_with_no_more_than_its_owners_rights_when_its_set_is_restored(
    how: str, server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    case = _case(server, around, tmp_path, attacked, HOSTILE[how])
    content = case.store.stage(case.taken.folder, case.taken.record, case.store.place(next(_tokens), None))
    assert case.damage() == []
    refuse_difference(content, case.taken.record, "the stage")


@pytest.mark.fault("H16")
@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_function_starts_no_program_when_its_set_is_proven(
    how: str, server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    """The scratch server runs as the system's `postgres`, to whom the live server belongs."""
    case = _case(server, around, tmp_path, attacked, HOSTILE[how])
    scratch = reachable_directory()
    try:
        content = content_of_copy(case.store, case.taken.folder, case.taken.record, scratch)
        assert case.damage() == []
        refuse_difference(content, case.taken.record, "the proof")
    finally:
        scratch.rmdir()


# Of two owners: a superuser has made a table beside the others, so nobody but a superuser can restore all of it.
TWO_OWNERS = "create table of_the_superuser (n int); insert into of_the_superuser values (1); grant select on of_the_superuser to {role}"


@pytest.mark.fault("H16")
@pytest.mark.parametrize("how", ["a constraint", "a domain", "an index"])
def test_a_hostile_function_has_no_more_rights_where_a_set_has_several_owners(
    how: str, server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    case = _case(server, around, tmp_path, attacked, HOSTILE[how], TWO_OWNERS)
    scratch = reachable_directory()
    try:
        refuse_difference(
            case.store.stage(case.taken.folder, case.taken.record, case.store.place(next(_tokens), None)), case.taken.record, "it"
        )
        refuse_difference(content_of_copy(case.store, case.taken.folder, case.taken.record, scratch), case.taken.record, "it")
        assert case.damage() == []
    finally:
        scratch.rmdir()


@pytest.mark.fault("H16")
def test_a_constraint_that_is_made_after_the_rows_is_checked_by_its_owner(
    server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    """It refers to the whole row through a function that refers to the table, so pg_dump puts it after the rows."""
    statements = """
        create table t (id int);
        create function grab_row(t) returns int language plpgsql immutable as $$ begin perform public.take(); return 1; end $$;
        alter table t add constraint whole check (grab_row(t.*) is not null)"""
    case = _case(server, around, tmp_path, attacked, statements, TWO_OWNERS)
    scratch = reachable_directory()
    try:
        case.store.stage(case.taken.folder, case.taken.record, case.store.place(next(_tokens), None))
        content_of_copy(case.store, case.taken.folder, case.taken.record, scratch)
        assert case.damage() == []
    finally:
        scratch.rmdir()


@pytest.mark.fault("H16")
@pytest.mark.parametrize("event", ["ddl_command_end", "login"])
def test_an_event_trigger_of_the_set_does_not_run_while_it_is_proven_and_a_restore_names_it(
    event: str, server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    """A superuser has made it once, for a function that somebody else may replace."""
    trigger = """
        create function public.watch() returns event_trigger language plpgsql as $$ begin perform public.take(); end $$;
        alter function public.watch() owner to {role};
        create event trigger watching on EVENT execute function public.watch();
        alter event trigger watching disable""".replace("EVENT", event)
    case = _case(server, around, tmp_path, attacked, "create table t (id int)", trigger)
    case.server.run("alter event trigger watching enable", case.store._declared.database)
    case.marker.unlink(missing_ok=True)
    taken = take_whole(case.store, tmp_path / "enabled")
    scratch = reachable_directory()
    try:
        refuse_difference(content_of_copy(case.store, taken.folder, taken.record, scratch), taken.record, "the proof")
        assert not case.marker.exists()
    finally:
        scratch.rmdir()
    told = [problem.message for problem in case.store.foresee(taken.folder, taken.record, None).problems]
    assert any("event triggers come with the set" in message and "watching" in message for message in told)


@pytest.mark.fault("H16")
def test_a_restore_says_whose_functions_would_run_as_the_administrator(
    server: Server, around: Surroundings, tmp_path: Path, attacked: Path
) -> None:
    """A database that the declared user only reads: nobody can connect as its owner."""
    case = _case(server, around, tmp_path, attacked, "create table t (id int)")
    told = case.store.foresee(case.taken.folder, case.taken.record, None).problems
    assert not [problem for problem in told if "may run with the rights of" in problem.message], "the owner itself can connect"
    declared = case.store._declared.model_copy(update={"user": "postgres"})
    other = build("main", declared, around)
    taken = take_whole(other, tmp_path / "other")
    (problem,) = [each for each in other.foresee(taken.folder, taken.record, None).problems if "may run with" in each.message]
    assert f"functions of {case.role} may run with the rights of postgres" in problem.message


@pytest.mark.control("H16")
@pytest.mark.parametrize("how", ["a constraint", "a generated column", "a domain"])
def test_control_restored_by_a_superuser_the_same_set_starts_a_program(
    how: str, server: Server, around: Surroundings, tmp_path: Path, attacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has taken on the owner's role: a function can give that back."""
    case = _case(server, around, tmp_path, attacked, HOSTILE[how])
    monkeypatch.setattr(case.store, "_become", lambda _: None)
    case.store.stage(case.taken.folder, case.taken.record, case.store.place(next(_tokens), None))
    assert case.marker.exists()
    assert len(case.damage()) == 2

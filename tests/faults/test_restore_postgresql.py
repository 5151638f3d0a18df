"""A database restored where something is not as it was: versions, extensions, roles, collations, settings, and hostile or odd objects."""

from __future__ import annotations

import json
import subprocess

import psycopg
import pytest

from storekeeper.outcomes import Refused, Severity, StorekeeperError
from storekeeper.stores.postgresql import extensions
from storekeeper.stores.surroundings import Surroundings
from tests.harness.campaign import Campaign
from tests.harness.databases import databases, fresh, load_by_hand, next_number, opened, place_of, plain_archive, proven, restored, taken_of
from tests.harness.postgresql import Server, start_server
from tests.stores.walk import Taken

VECTORS = "create extension vector{}; create table v (id int primary key, at {}vector(3)); insert into v values (1, '[1,2,3]'), (2, null);"


# --- versions ---


@pytest.mark.fault("E-11")
def test_a_set_of_a_newer_server_is_refused_by_an_older_one_before_anything_is_made(
    newest: Server, oldest: Server, around: Surroundings
) -> None:
    taken = taken_of(opened(newest, fresh(newest, "create table t (id int); insert into t values (1)"), around), around)
    live = fresh(oldest, "create table t (id int); insert into t values (7)")
    before = databases(oldest)
    for programs in (oldest.programs, newest.programs):
        store = opened(oldest, live, around, programs=programs)
        with pytest.raises(StorekeeperError, match=r"18\..*15\.|15\..*18\.|PostgreSQL 18.*15"):
            store.foresee(taken.folder, taken.record, None)
    assert databases(oldest) == before
    assert oldest.ask("select id from t", live) == 7


@pytest.mark.control("E-11")
def test_control_an_older_server_breaks_off_in_the_middle_of_a_newer_archive(newest: Server, oldest: Server, around: Surroundings) -> None:
    taken = taken_of(opened(newest, fresh(newest, "create table t (id int); create table u (id int)"), around), around)
    database = fresh(oldest)
    words = [
        newest.programs / "pg_restore",
        "-h",
        oldest.socket,
        "-p",
        str(oldest.port),
        "-U",
        "postgres",
        "-d",
        database,
        "--exit-on-error",
    ]
    data = plain_archive(taken)
    done = subprocess.run(words, input=data, capture_output=True, check=False)
    assert done.returncode != 0
    assert oldest.ask("select count(*) from pg_tables where schemaname = 'public'", database) == 0


@pytest.mark.fault("E-12")
@pytest.mark.control("E-12")
def test_a_set_of_an_older_server_comes_back_equal_and_analyzed(newest: Server, oldest: Server, around: Surroundings) -> None:
    rows = "create table t (id int primary key, word text); insert into t select n, 'w' || n % 7 from generate_series(1, 5000) n"
    taken = taken_of(opened(oldest, fresh(oldest, rows), around), around)
    live = fresh(newest)
    restored(opened(newest, live, around), taken)
    assert newest.ask("select count(*) from pg_stats where tablename = 't'", live) == 2
    assert newest.ask("select reltuples from pg_class where relname = 't'", live) == 5000
    by_hand, done = load_by_hand(newest, taken)
    assert done.returncode == 0, done.stderr
    assert newest.ask("select count(*) from pg_stats where tablename = 't'", by_hand) == 0, "the planner knows nothing"


# --- extensions ---


@pytest.mark.fault("J15")
@pytest.mark.parametrize(("name", "version", "words"), [("nosuchthing", "1.0", "which is not installed"), ("vector", "9.9.9", "which has")])
def test_an_extension_that_is_missing_or_older_here_is_refused_before_anything_is_made(
    newest: Server, around: Surroundings, name: str, version: str, words: str
) -> None:
    live = fresh(newest, VECTORS.format("", ""))
    taken = taken_of(opened(newest, live, around), around)
    needing(taken, name, version)
    before = databases(newest)
    with pytest.raises(Refused, match=f"the set needs extension {name} {version}, {words}"):
        opened(newest, live, around).foresee(taken.folder, taken.record, None)
    assert databases(newest) == before


@pytest.mark.control("J15")
def test_control_unasked_a_missing_extension_ends_the_restore_in_the_middle(
    newest: Server, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = fresh(newest, VECTORS.format("", ""))
    taken = taken_of(opened(newest, live, around), around)
    needing(taken, "vector", "9.9.9")
    monkeypatch.setattr(extensions, "why_unavailable", lambda *_: None)
    monkeypatch.setattr(extensions, "version_here", lambda _, extension: extension["version"])
    store = opened(newest, live, around)
    store.foresee(taken.folder, taken.record, None)
    place = place_of(store)
    with pytest.raises(StorekeeperError, match=r"9\.9\.9"):
        store.stage(taken.folder, taken.record, place)
    assert place["side"] in databases(newest), "half of it was made"
    store.discard_stage(place)


@pytest.mark.fault("J15", "E-12")
def test_an_extension_whose_package_was_upgraded_is_restored_and_proven_in_the_version_it_would_be_updated_to(
    newest: Server, around: Surroundings
) -> None:
    """A package brings one version. A database that nobody ran ALTER EXTENSION UPDATE in names the one before, in every set of it."""
    live = fresh(newest, VECTORS.format("", ""))
    here = newest.ask("select extversion from pg_extension where extname = 'vector'", live)
    newest.run("update pg_extension set extversion = '0.8.0' where extname = 'vector'", live)
    store = opened(newest, live, around)
    taken = taken_of(store, around)
    told = [each.message for each in store.foresee(taken.folder, taken.record, None).problems if each.severity is Severity.WARNING]
    assert told == [f"extension vector 0.8.0 is not here: {here} is used, which it would be updated to"]
    restored(store, taken)
    assert newest.ask("select extversion from pg_extension where extname = 'vector'", live) == here
    proven(store, taken, around)


@pytest.mark.fault("J15")
def test_an_extension_that_lives_in_another_schema_here_comes_back_where_it_was(newest: Server, around: Surroundings) -> None:
    elsewhere = fresh(newest, "create schema ext;" + VECTORS.format(" schema ext", "ext."))
    taken = taken_of(opened(newest, elsewhere, around), around)
    live = fresh(newest, VECTORS.format("", ""))
    restored(opened(newest, live, around), taken)
    where = "select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where extname = 'vector'"
    assert newest.ask(where, live) == "ext"


def needing(taken: Taken, name: str, version: str) -> None:
    """Have the set say that it needs this extension."""
    document = taken.folder / "database.json"
    document.chmod(0o600)
    recorded = json.loads(document.read_text())
    others = [each for each in recorded["extensions"] if each["name"] != name]
    recorded["extensions"] = [*others, {"name": name, "version": version, "schema": "public", "schema_owner": "pg_database_owner"}]
    document.write_text(json.dumps(recorded))


# --- roles ---

ROLES = "create role {0}; create role {1} login; create role {2}"
OWNED = (
    "create table t (id int); alter table t owner to {0}; grant select on t to {1} with grant option;"
    "create schema s authorization {1}; create table s.u (id int); alter table s.u owner to {2};"
    "create function f() returns int language sql return 1; alter function f() owner to {1};"
    "create view seen as select * from t; alter view seen owner to {2};"
    "alter default privileges for role {0} grant select on tables to {1}"
)
OWNERS = (
    "select jsonb_agg(x order by x::text) from ("
    " select jsonb_build_array(c.relname, pg_get_userbyid(c.relowner), c.relacl::text) x from pg_class c"
    "  join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 's')"
    " union all select jsonb_build_array(proname, pg_get_userbyid(proowner)) from pg_proc where proname = 'f'"
    " union all select jsonb_build_array(nspname, pg_get_userbyid(nspowner)) from pg_namespace where nspname = 's'"
    " union all select jsonb_build_array(pg_get_userbyid(defaclrole), defaclacl::text) from pg_default_acl) y"
)


def owned(server: Server) -> tuple[list[str], str]:
    """A database whose objects belong to three roles of its own."""
    roles = [f"owner{next_number()}" for _ in range(3)]
    server.run(ROLES.format(*roles))
    return roles, fresh(server, OWNED.format(*roles))


@pytest.mark.fault("E-13", "J16")
@pytest.mark.control("E-13")
def test_roles_that_are_missing_are_made_and_every_owner_and_privilege_is_equal_afterwards(
    newest: Server, around: Surroundings, campaign: Campaign
) -> None:
    with start_server(major=18) as other:
        roles, database = owned(other)
        taken = taken_of(opened(other, database, around), around)
        before = other.ask(OWNERS, database)
    _, done = load_by_hand(newest, taken, "--exit-on-error")
    assert b"does not exist" in done.stderr, "the control: without the roles the archive does not load"
    live = fresh(newest)
    store = opened(newest, live, around)
    assert any("roles will be made" in each.message for each in store.foresee(taken.folder, taken.record, None).problems)
    restored(store, taken)
    after = newest.ask(OWNERS, live)
    differ = [each for each in before if each not in after] + [each for each in after if each not in before]
    campaign.found(len(before), "owners and privileges after a restore where no role was", f"{len(differ)} differ")
    assert len(before) > len(roles)
    assert differ == []


@pytest.mark.control("J16")
def test_control_one_role_alone_cannot_give_objects_their_owners_back(newest: Server, around: Surroundings) -> None:
    roles, database = owned(newest)
    newest.run(f"alter role {roles[1]} createdb")
    taken = taken_of(opened(newest, database, around), around)
    data = plain_archive(taken)
    target = fresh(newest, owner=roles[1])
    words = [newest.programs / "pg_restore", "-h", newest.socket, "-p", str(newest.port), "-U", roles[1], "-d", target]
    done = subprocess.run(words, input=data, capture_output=True, check=False)
    assert b"must be able to SET ROLE" in done.stderr
    assert newest.ask("select pg_get_userbyid(relowner) from pg_class where relname = 't'", target) == roles[1], "not its owner"


# --- what holds a database ---


@pytest.mark.control("E-8")
def test_control_a_database_with_a_prepared_transaction_cannot_be_renamed_once_all_its_clients_were_thrown_out(newest: Server) -> None:
    database = fresh(newest, "create table t (id int)")
    with newest.connect(database) as connection:
        for statement in ("begin", "insert into t values (1)", "prepare transaction 'kept'"):
            connection.execute(statement)
    with newest.connect() as admin:
        admin.execute(f"alter database {database} with allow_connections false")
        with pytest.raises(psycopg.errors.ObjectInUse, match="is being accessed by other users"):
            admin.execute(f"alter database {database} rename to elsewhere")
        with pytest.raises(psycopg.OperationalError, match="not currently accepting"):
            newest.connect(database)
        admin.execute(f"alter database {database} with allow_connections true")
    newest.run("rollback prepared 'kept'", database)

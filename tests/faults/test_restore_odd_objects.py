"""Objects of a database that a dump can lose, a restore can break on, and a setting can show in another way."""

from __future__ import annotations

import psycopg
import pytest

from storekeeper.outcomes import Failed, Severity
from storekeeper.stores.surroundings import Surroundings
from tests.harness.campaign import Campaign
from tests.harness.databases import fresh, next_number, opened, place_of, proven, restored, taken_of
from tests.harness.postgresql import Server

ODD = """
create table t (id int primary key, word text);
create table log (id int, word text);
insert into t select n, 'w' || n from generate_series(1, 50) n;
create rule quiet as on insert to t where new.id < 0 do instead nothing;
create rule told as on update to t do also insert into log values (new.id, new.word);
create table refused (id int); insert into refused values (1);
create rule never as on insert to refused do instead nothing;
create function watched() returns event_trigger language plpgsql as $$ begin
    if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.forbidden') then raise 'forbidden'; end if;
end $$;
create event trigger watcher on ddl_command_end execute function watched();
create table words (id int, word text); insert into words values (1, 'one');
create function word_of(n int) returns text language sql immutable as 'select word from public.words where id = n';
create index by_word on t (public.word_of(id));
"""


@pytest.mark.fault("J17")
def test_rules_event_triggers_and_an_index_on_a_function_that_reads_another_table_come_back(newest: Server, around: Surroundings) -> None:
    taken = taken_of(opened(newest, fresh(newest, ODD), around), around)
    live = fresh(newest, "create table t (id int)")
    restored(opened(newest, live, around), taken)
    assert newest.ask("select count(*) from refused", live) == 1, "the rule that swallows inserts did not swallow the restore's"
    assert (
        newest.ask("select array_agg(rulename order by rulename)::text from pg_rules where schemaname = 'public'", live)
        == "{never,quiet,told}"
    )
    assert newest.ask("select evtevent from pg_event_trigger where evtname = 'watcher'", live) == "ddl_command_end"
    with pytest.raises(psycopg.errors.RaiseException, match="forbidden"):
        newest.run("create table forbidden ()", live)
    assert newest.ask("select id from t where word_of(id) = 'one'", live) == 1


HIDDEN = {
    "reads a table by a name that a search path must complete": (
        "create table w (id int); create function f(n int) returns text language plpgsql immutable as 'begin return id from w; end'",
        '"w"',
    ),
    "reads a setting": (
        "create function f(n int) returns text language sql immutable as 'select current_setting(''app.word'') || n'",
        "app.word",
    ),
}


@pytest.mark.fault("J17")
@pytest.mark.control("J17")
@pytest.mark.parametrize("case", HIDDEN)
def test_an_index_on_a_function_that_cannot_be_rebuilt_is_named_and_the_live_database_stays(
    oldest: Server, around: Surroundings, case: str
) -> None:
    """Newer servers than 16 do not make the first of these indexes at all."""
    statements, words = HIDDEN[case]
    live = fresh(oldest, f"{statements}; create table t (id int); insert into t values (1)")
    with oldest.connect(live) as connection:
        connection.execute("set app.word = 'x'")
        connection.execute("create index on t (f(id))")
    store = opened(oldest, live, around)
    taken = taken_of(store, around)
    store.verify(taken.folder, taken.record)  # the control: the archive is whole and decodes, and still does not restore
    oldest.run("insert into w values (1)" if words == '"w"' else "create table since (id int)", live)
    place = place_of(store)
    with pytest.raises(Failed, match=words):
        store.stage(taken.folder, taken.record, place)
    store.discard_stage(place)
    assert oldest.ask("select count(*) from t", live) == 1
    with pytest.raises(Failed, match=words):
        proven(store, taken, around)


@pytest.mark.fault("J17")
def test_an_index_that_keeps_its_own_table_from_being_read_fails_the_backup_and_is_named(oldest: Server, around: Surroundings) -> None:
    """A function that the planner puts in its place is looked up at once, under a search path that cannot be trusted: ours is empty."""
    function = "create function f(n int) returns text language sql immutable as 'select word from words where id = n'"
    live = fresh(oldest, f"create table words (id int, word text); {function}; create table t (id int); create index on t (f(id))")
    with pytest.raises(Failed, match='relation "words" does not exist'):
        taken_of(opened(oldest, live, around), around)


EVERY_KIND = """
create table numbered (id int generated always as identity (start 7 increment 5), twice int generated always as (id * 2) stored, word text);
insert into numbered (word) values ('a'), ('b'), ('c');
create sequence apart increment -3 minvalue -1000 start -10; select nextval('apart'), nextval('apart');
create sequence untouched start 99;
create table parted (at date not null, n int) partition by range (at);
create table parted_1 partition of parted for values from ('2026-01-01') to ('2027-01-01');
create table parted_rest partition of parted default;
insert into parted values ('2026-05-01', 1), ('1999-01-01', 2);
create unlogged table fast (id int); insert into fast select generate_series(1, 9);
create materialized view hollow as select 1 as one with no data;
create materialized view filled as select count(*) from fast;
"""
KINDS = (
    "select array_agg(format('%s %s %s %s', relname, relkind, relpersistence, relispopulated) order by relname)::text from pg_class"
    " where relnamespace = 'public'::regnamespace"
)


@pytest.mark.fault("J19")
def test_every_kind_of_relation_comes_back_as_it_was_and_goes_on_where_it_stood(
    newest: Server, around: Surroundings, campaign: Campaign
) -> None:
    first = fresh(newest, EVERY_KIND)
    taken = taken_of(opened(newest, first, around), around)
    live = fresh(newest)
    restored(opened(newest, live, around), taken)
    after = [newest.ask(KINDS, database) for database in (first, live)]
    different = {"kinds"} if after[0] != after[1] else set()
    for name, query in {
        "identity": "insert into numbered (word) values ('d') returning id * 1000 + twice",
        "sequence": "select nextval('apart')",
        "sequence that was never used": "select nextval('untouched')",
        "partitions": "select array_agg(format('%s %s', tableoid::regclass, n) order by n)::text from parted",
        "unlogged rows": "select count(*) from fast",
        "filled view": "select count from filled",
    }.items():
        different |= {name} if newest.ask(query, first) != newest.ask(query, live) else set()
    campaign.found(7, "kinds of objects compared after a restore", f"{len(different)} differ")
    assert different == set()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not been populated"):
        newest.ask("select * from hollow", live)


@pytest.mark.control("J19")
def test_control_rows_alone_do_not_tell_that_a_sequence_fell_back_or_a_view_was_filled(newest: Server, around: Surroundings) -> None:
    database = fresh(newest, EVERY_KIND)
    first = taken_of(opened(newest, database, around), around)
    newest.run("alter sequence apart restart; refresh materialized view hollow", database)
    second = taken_of(opened(newest, database, around), around)
    assert second.record.digests == first.record.digests
    assert [
        name for name in ("sequences.jsonl", "shape.jsonl") if (first.folder / name).read_bytes() != (second.folder / name).read_bytes()
    ] == [
        "sequences.jsonl",
        "shape.jsonl",
    ]


# --- the order of text, and how values are shown ---


@pytest.mark.fault("J18")
@pytest.mark.control("J18")
def test_another_version_of_the_collation_is_said_and_gone_after_a_restore_which_no_copy_of_files_would_do(
    newest: Server, around: Surroundings
) -> None:
    """The system's order of text changed under a database, as from Debian 12 to 13: the recorded version is not the one of now."""
    live = fresh(
        newest,
        "create table t (word text collate other); insert into t values ('a'), ('B'); create index on t (word)".replace(
            "collate other", ""
        ),
    )
    mismatched = (
        f"select datcollversion is distinct from pg_database_collation_actual_version(oid) from pg_database where datname = '{live}'"
    )
    newest.run(f"update pg_database set datcollversion = '2.36' where datname = '{live}'")
    store = opened(newest, live, around)
    said = [each for each in store.preflight() if "order of text" in each.message]
    assert [(each.severity, "2.36" in each.message) for each in said] == [(Severity.WARNING, True)]
    assert "reindexdb" in str(said[0].next)
    taken = taken_of(store, around)
    copied = f"db{next_number()}"
    newest.run(f"create database {copied} template {live} strategy file_copy collation_version '2.36'")
    assert newest.ask(mismatched.replace(live, copied)) is True, "the control: a copy of files carries the old order along"
    restored(store, taken)
    assert newest.ask(mismatched) is False
    assert [each for each in store.preflight() if "order of text" in each.message] == []


SHOWN = (
    "create table t (at timestamptz, number float8, span interval, raw bytea);"
    "insert into t values ('2026-01-09 03:00+00', 0.1::float8 + 0.2, '1 year 2 days 03:04', '\\x00ff')"
)
SETTINGS = (
    "timezone = 'Asia/Kolkata'",
    "datestyle = 'German'",
    "intervalstyle = 'iso_8601'",
    "extra_float_digits = -10",
    "bytea_output = 'escape'",
)


@pytest.mark.fault("J20")
@pytest.mark.control("J20")
def test_a_set_has_equal_digests_under_any_setting_of_the_database_and_the_role(
    newest: Server, around: Surroundings, campaign: Campaign
) -> None:
    first = fresh(newest, SHOWN)
    taken = taken_of(opened(newest, first, around), around)
    role = f"reader{next_number()}"
    newest.run(f"create role {role} superuser login")
    different = 0
    for setting in SETTINGS:
        live = fresh(newest, SHOWN)
        newest.run(f"alter database {live} set {setting}; alter role {role} set {setting}")
        with newest.connect(first) as plain, newest.connect(live, role) as changed:
            texts = [connection.execute("select t::text from t").fetchone() for connection in (plain, changed)]
        assert texts[0] != texts[1], "the control: the setting does change what a row looks like"
        again = taken_of(opened(newest, live, around, user=role), around)
        different += again.record.digests != taken.record.digests
    campaign.found(len(SETTINGS), "settings under which the same rows were digested", f"{different} digests differ")
    assert different == 0

"""A migration of a PostgreSQL database: on a scratch server first, by a command that is told of it as of the live one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed
from storekeeper.restore.journal import Journal, unfinished
from storekeeper.stack.migrations import Migration
from storekeeper.stack.model import ResetModel
from storekeeper.verbs.migrate import migrate
from storekeeper.verbs.prove import prove
from storekeeper.verbs.reset import reset
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.alembic_project import SEEN, Project
from tests.harness.campaign import Campaign
from tests.harness.postgresql import PASSWORD, Server, programs_of, server_user
from tests.harness.restoring import LIVE, lines_of, running
from tests.harness.stacks import EMPTY, Lab, in_child, killing, make_lab, postgresql_part

PSQL = f"{programs_of(18)}/psql -w -X -q -v ON_ERROR_STOP=1"
THINGS = "create table things (id serial primary key, word text)"
MAKE = f"{THINGS}; create table migrations (version text); insert into migrations values ('0003')"
UP = "alter table things add column seen text; insert into migrations values ('0002')"


@pytest.fixture
def shop(tmp_path: Path, server: Server) -> Iterator[Lab]:
    """A database over TCP with a password, one file and a tree of files, in a proven set."""
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    app = replace(postgresql_part(server), declared=server.declared_over_tcp("app", secret))
    lab = make_lab(tmp_path, sqlites=1, services=1, first={"app": app})
    lab.write(LIVE)
    server.run("create table migrations (version text); insert into migrations values ('0001')", "app")
    lab.take(LIVE)
    prove(lab.context)
    yield lab
    lab.close()
    server.run("drop database if exists app with (force)")


def declaring(lab: Lab, script: str, **more: Any) -> Lab:
    command = {"run": ["sh", "-c", script, "sh", "{app}"], **more}
    applied = {"store": "app", "query": "select version from migrations order by version desc"}
    found = Migration.model_validate({"applied": applied, "upgrade": {**command, "run": tuple(command["run"])}})
    lab.context = replace(lab.context, stack=lab.context.stack.model_copy(update={"migration": found}))
    return lab


def columns(server: Server) -> set[str]:
    with server.connect("app") as connection:
        found = connection.execute("select column_name from information_schema.columns where table_name = 'things'").fetchall()
    return {name for (name,) in found}


@pytest.mark.parametrize("user", [None, "the server's"])
def test_a_database_is_migrated_on_a_scratch_server_and_then_live(shop: Lab, server: Server, user: str | None) -> None:
    seen = shop.context.scratch / "seen"
    seen.touch()
    seen.chmod(0o666)
    name = None if user is None or os.geteuid() != 0 else server_user()
    declaring(shop, f'echo "$1" >>{seen}; env >>{seen}; {PSQL} -c "{UP}" "$1"', user=name)
    report = migrate(shop.context, "upgrade", (), plan=False)
    assert report.result["trial"] == {**report.result["trial"], "changed": True, "applied": {"newest": "0002", "count": 2}}
    assert report.result["applied"] == {"newest": "0002", "count": 2}
    assert "seen" in columns(server)
    told = [line for line in seen.read_text().splitlines() if line.startswith("postgresql://")]
    assert len(told) == 2
    assert "127.0.0.1" not in told[0], "a socket of the scratch server"
    assert "127.0.0.1" in told[1]
    assert PASSWORD not in seen.read_text()
    assert running(shop) == [True]


def test_alembic_reaches_both_servers_by_the_address_and_the_password_that_it_is_told(shop: Lab, server: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "application")
    project.revision("0001", None, SEEN)
    applied = {"store": "app", "query": "select version_num from alembic_version"}
    server.run("create table alembic_version (version_num varchar(32) not null primary key)", "app")
    shop.take(LIVE)
    prove(shop.context)
    declared = json.dumps({"applied": applied, "upgrade": project.command("upgrade", "head", url="{app}")})
    found = Migration.model_validate_json(declared)
    shop.context = replace(shop.context, stack=shop.context.stack.model_copy(update={"migration": found}))
    report = migrate(shop.context, "upgrade", (), plan=False)
    assert report.result["trial"]["applied"] == report.result["applied"] == {"newest": "0001", "count": 1}
    assert "seen" in columns(server)


def test_what_fails_on_the_scratch_server_touches_nothing_live(shop: Lab, server: Server) -> None:
    declaring(shop, f'{PSQL} -c "drop table things" -c "select nothing" "$1"')
    with pytest.raises(Failed, match=r'column "nothing" does not exist.*; the live data was not touched'):
        migrate(shop.context, "upgrade", (), plan=False)
    assert shop.all_hold(LIVE)
    assert unfinished(shop.context.state) is None


def test_a_migration_that_fails_live_takes_the_database_and_all_others_back(shop: Lab, server: Server) -> None:
    drop = f'{PSQL} -c "drop table things; {UP.partition("; ")[2]}" "$1"'
    declaring(shop, f'case "$1" in *127.0.0.1*) {drop}; exit 5;; *) {PSQL} -c "{UP}" "$1";; esac')
    with pytest.raises(Failed, match=r"ended with 5.*; all stores are back as they were before"):
        migrate(shop.context, "upgrade", (), plan=False)
    assert shop.all_hold(LIVE)
    assert "seen" not in columns(server)
    assert running(shop) == [True]
    assert unfinished(shop.context.state) is None


def lines_to_kill_at(lab: Lab, campaign: Campaign) -> list[int]:
    """All lines of the newest journal, or those around the command on what is live."""
    commands = lines_of(lab, b'"step":"command"')
    return list(range(1, len(lines_of(lab)) + 1)) if campaign.full else [commands[0] - 1, *commands, commands[-1] + 1]


def killed(lab: Lab, number: int) -> int:
    def walk() -> None:
        Journal.write = killing(number, after=True)  # type: ignore[method-assign]
        migrate(lab.context, "upgrade", (), plan=False)

    return in_child(walk)


@pytest.mark.fault("E-25")
@pytest.mark.slow
def test_kill_9_at_a_line_of_the_journal_leaves_the_database_migrated_or_all_as_it_was(
    shop: Lab, server: Server, campaign: Campaign
) -> None:
    declaring(shop, f'{PSQL} -c "{UP}" "$1"')
    migrate(shop.context, "upgrade", (), plan=False)
    numbers, ended = lines_to_kill_at(shop, campaign), set()
    for number in numbers:
        server.run("alter table things drop column if exists seen; delete from migrations where version = '0002'", "app")
        assert killed(shop, number) == -signal.SIGKILL
        how = str(resume(shop.context).result["ended"])
        is_done = how == "done" or (how == "None" and number == numbers[-1])  # after the last line nothing is open
        assert ("seen" in columns(server)) == is_done, f"{how} after line {number}"
        assert server.ask("select count(*) from migrations where version = '0002'", "app") == int(is_done)
        assert shop.all_hold(LIVE), f"{how} after line {number}"
        assert running(shop) == [True], f"{how} after line {number}"
        assert unfinished(shop.context.state) is None
        ended.add(how)
    campaign.found(len(numbers), "kills in a migration of a PostgreSQL database", "0 states but migrated and as it was, after `resume`")
    assert {"went back", "done"} <= ended


def left_to_migrations(lab: Lab) -> Lab:
    stack = lab.context.stack.model_copy(update={"reset": ResetModel.model_validate({"schema": "migration"})})
    lab.context = replace(lab.context, stack=stack)
    return lab


def test_a_reset_leaves_the_database_bare_and_the_migrations_make_its_schema_from_nothing(shop: Lab, server: Server) -> None:
    server.run("create schema of_the_application; create type mood as enum ('good')", "app")
    before = server.ask("select concat_ws(' ', datdba::regrole, encoding, datcollate) from pg_database where datname = 'app'")
    left_to_migrations(declaring(shop, f'{PSQL} -c "{MAKE}" "$1"'))
    report = reset(shop.context, plan=False)
    assert report.result["schema"]["applied"] == {"newest": "0003", "count": 1}
    assert report.result["stores"]["app"]["counts"] == {"public.migrations": 1, "public.things": 0}
    assert shop.all_hold(EMPTY)
    assert server.ask("select concat(to_regnamespace('of_the_application'), to_regtype('mood'))", "app") == ""
    assert server.ask("select concat_ws(' ', datdba::regrole, encoding, datcollate) from pg_database where datname = 'app'") == before
    assert running(shop) == [True]
    restore(shop.context, RestoreRequest(back=True))
    assert shop.all_hold(LIVE)
    assert server.ask("select to_regnamespace('of_the_application')::text", "app") == "of_the_application"


@pytest.mark.fault("E-25")
@pytest.mark.parametrize(
    ("script", "why"),
    [(f'{PSQL} -c "{MAKE}" "$1"; exit 3', "ended with 3"), (f"{PSQL} -c 'create type mood as enum ()' \"$1\"", "has made no table in it")],
    ids=["fails", "makes no table"],
)
def test_a_reset_of_a_database_whose_migrations_fail_takes_every_store_back(shop: Lab, script: str, why: str) -> None:
    left_to_migrations(declaring(shop, script))
    with pytest.raises(Failed, match=why) as failed:
        reset(shop.context, plan=False)
    assert "all stores are back as they were before" in failed.value.message
    assert shop.all_hold(LIVE)
    assert running(shop) == [True]
    assert unfinished(shop.context.state) is None

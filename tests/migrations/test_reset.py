"""A reset whose schema is made by the application's own migrations: the database is left without any table, and they run on that."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore import bare
from storekeeper.restore.journal import Journal, unfinished
from storekeeper.restore.walk import Walk
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.model import ResetModel
from storekeeper.verbs.reset import reset
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness import numbered
from tests.harness.alembic_project import Project
from tests.harness.campaign import Campaign
from tests.harness.restoring import LIVE, lines_of, running, said
from tests.harness.stacks import EMPTY, Lab, in_child, killing
from tests.migrations.conftest import Application, script

THINGS = "create table things (id integer primary key, word text not null)"
HALF_DONE = "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).execute('create table half (a)')\n"


@pytest.fixture
def anew(application: Application) -> Application:
    """The application whose migrations make its whole schema, from the first of them on, and whose reset is left to them."""
    application.migration("0001_first", f"{THINGS};\ncreate table notes (id integer primary key, text text)")
    application.declare()
    change(application.lab, reset=ResetModel.model_validate({"schema": "migration"}))
    return application


def change(lab: Lab, **stack: Any) -> None:
    lab.context = replace(lab.context, stack=lab.context.stack.model_copy(update=stack))


def is_as_it_was(application: Application) -> bool:
    return application.lab.all_hold(LIVE) and application.applied() == ["0001"] and "seen" not in application.columns()


def is_made_anew(application: Application) -> bool:
    return application.lab.all_hold(EMPTY) and application.applied() == ["0001", "0002"] and "seen" in application.columns()


def test_the_schema_is_made_by_the_migrations_alone_and_the_way_back_is_a_resets(anew: Application) -> None:
    with closing(sqlite3.connect(anew.main)) as connection, connection:
        connection.execute("create table of_no_migration (a)")
        connection.execute("pragma user_version = 7")
    report = reset(anew.lab.context, plan=False)
    assert is_made_anew(anew)
    assert anew.ask("select name from sqlite_master where name = 'of_no_migration'") == []
    assert anew.ask("pragma user_version") == [(0,)]
    assert report.result["schema"] == {
        "stores": ["main"],
        "command": DeclaredCommand.model_validate({"run": tuple(numbered.command(anew.folder, "upgrade")["run"])}).spoken,  # type: ignore[arg-type]
        "applied": {"newest": "0002", "count": 2},
    }
    assert report.result["stores"]["main"]["counts"] == {"migrations": 2, "notes": 0, "things": 0}
    assert "its schema was at 0001, the last of 1; the migrations have made 0002, the last of 2" in said(report)
    assert running(anew.lab) == [True, True]
    restore(anew.lab.context, RestoreRequest(back=True))
    assert is_as_it_was(anew)
    assert anew.ask("select count(*) from of_no_migration") == [(0,)]


def test_what_is_live_could_not_be_made_by_these_migrations_a_second_time(anew: Application) -> None:
    """Run on the emptied live schema, as after a reset of the other kind, the first of them fails: its tables are there."""
    change(anew.lab, reset=ResetModel(), after_reset=(anew.lab.context.stack.migration.upgrade,))  # type: ignore[union-attr]
    with pytest.raises(Failed, match="table things already exists"):
        reset(anew.lab.context, plan=False)
    assert is_as_it_was(anew)


def test_a_plan_says_what_becomes_bare_and_what_makes_the_schema_and_changes_nothing(anew: Application) -> None:
    report = reset(anew.lab.context, plan=True)
    plan = report.result["plan"]
    assert plan["schema"]["stores"] == ["main"]
    assert plan["schema"]["command"].endswith("upgrade")
    assert (plan["stores"]["main"]["counts_after"], plan["stores"]["meta"]["counts_after"]) == ({}, {"things": 0})
    told = said(report)
    assert "it is left without any table, and the migrations make its schema" in told
    assert f"before services start: {plan['schema']['command']}" in told
    assert is_as_it_was(anew)


def test_a_stack_that_keeps_its_schema_says_so(application: Application) -> None:
    assert reset(application.lab.context, plan=True).result["plan"]["schema"] is None
    assert reset(application.lab.context, plan=False).result["schema"] is None
    assert application.lab.all_hold(EMPTY)


def test_the_migrations_come_before_the_commands_that_need_their_tables(anew: Application) -> None:
    insert = DeclaredCommand(run=("sqlite3", "{main}", "insert into notes (text) values ('first')"))
    change(anew.lab, after_reset=(insert,))
    report = reset(anew.lab.context, plan=False)
    assert report.result["stores"]["main"]["counts"]["notes"] == 1


@pytest.mark.fault("E-25")
@pytest.mark.parametrize(
    ("upgrade", "why"),
    [
        (script(HALF_DONE + "sys.exit('no such revision')"), "no such revision"),
        (script(HALF_DONE + "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), "ended with 137|killed by signal 9"),
        (script(HALF_DONE), "no such table: migrations"),
    ],
    ids=["fails", "is killed", "does not say what is applied"],
)
def test_a_stack_whose_migrations_then_fail_is_as_it_was(anew: Application, upgrade: Mapping[str, object], why: str) -> None:
    anew.declare(upgrade=upgrade)
    with pytest.raises(Failed, match=why) as failed:
        reset(anew.lab.context, plan=False)
    assert "all stores are back as they were before" in failed.value.message
    assert is_as_it_was(anew)
    assert anew.ask("select name from sqlite_master where name = 'half'") == []
    assert running(anew.lab) == [True, True]
    assert unfinished(anew.lab.context.state) is None


@pytest.mark.fault("E-25")
def test_migrations_that_make_no_table_take_every_store_back(anew: Application) -> None:
    anew.declare(upgrade=script("pass"), applied=None)
    with pytest.raises(Failed, match="has made no table in it") as failed:
        reset(anew.lab.context, plan=False)
    assert failed.value.store == "main"
    assert is_as_it_was(anew)
    assert running(anew.lab) == [True, True]


@pytest.mark.fault("E-25")
def test_a_command_after_the_migrations_that_fails_takes_their_schema_back_too(anew: Application) -> None:
    change(anew.lab, after_reset=(DeclaredCommand(run=("false",)),))
    with pytest.raises(Failed, match="ended with 1"):
        reset(anew.lab.context, plan=False)
    assert is_as_it_was(anew)


@pytest.mark.control("E-25")
def test_control_without_the_way_back_failing_migrations_leave_a_database_without_its_tables(
    anew: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, "undo", lambda walk, error: Failed("nothing was undone"))
    anew.declare(upgrade=script(HALF_DONE + "sys.exit('no such revision')"))
    with pytest.raises(Failed):
        reset(anew.lab.context, plan=False)
    assert anew.ask("select name from sqlite_master") == [("half",)]


@pytest.mark.control("E-25")
def test_control_without_a_look_at_its_tables_an_empty_database_is_called_done(anew: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "refuse_unmade", lambda *_: None)
    anew.declare(upgrade=script("pass"), applied=None)
    assert reset(anew.lab.context, plan=False).result["stores"]["main"]["counts"] == {}
    assert anew.ask("select count(*) from sqlite_master") == [(0,)]


@pytest.mark.fault("E-23")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_its_journal_leaves_all_stores_made_anew_or_all_as_they_were(
    anew: Application, after: bool, campaign: Campaign
) -> None:
    reset(anew.lab.context, plan=False)
    lines, mixed, ended = len(lines_of(anew.lab)), [], set()
    of_commands = lines_of(anew.lab, b'"step":"command"')
    restore(anew.lab.context, RestoreRequest(back=True))
    numbers = sorted({*range(1, lines + 1, campaign.trials(5, 1)), *of_commands})
    for number in numbers:

        def walk(number: int = number) -> None:
            Journal.write = killing(number, after=after)  # type: ignore[method-assign]
            reset(anew.lab.context, plan=False)

        assert in_child(walk) == -signal.SIGKILL
        how = ended_how(anew.lab)
        is_new = is_made_anew(anew)
        mixed += [] if is_new or is_as_it_was(anew) else [(number, anew.lab.sides())]
        assert unfinished(anew.lab.context.state) is None
        assert running(anew.lab) == [True, True], f"services after line {number}"
        ended.add((how, is_new))
        if is_new:
            restore(anew.lab.context, RestoreRequest(back=True))
    where = "after" if after else "before"
    campaign.found(
        len(numbers),
        f"kills {where} a line of the journal of a reset whose schema migrations make",
        f"{len(mixed)} mixed states after `resume`",
    )
    assert mixed == []
    assert {("abandoned", False), ("went back", False), ("done", True)} <= ended


def ended_how(lab: Lab) -> str:
    try:
        return str(resume(lab.context).result["ended"]).replace("None", "done")  # after the last line nothing is open
    except Failed as error:
        if "was interrupted, and nobody knows how far it came; all stores are back as they were before" not in error.message:
            raise
        return "went back"


def test_a_database_that_is_absent_is_refused_since_what_is_made_in_it_could_not_be_taken_back(anew: Application) -> None:
    anew.main.unlink()
    with pytest.raises(Refused, match="it is absent, so what the migrations make in it could not be taken back") as refused:
        reset(anew.lab.context, plan=False)
    assert refused.value.store == "main"
    assert not anew.main.exists()


def test_alembic_makes_the_schema_from_nothing(anew: Application, tmp_path: Path) -> None:
    project = Project(tmp_path / "application")
    project.revision("0001", None, "op.create_table('things', sa.Column('id', sa.Integer), sa.Column('word', sa.Text))")
    project.revision("0002", "0001", "op.add_column('things', sa.Column('seen', sa.Text))")
    anew.declare(applied={"store": "main", "query": "select version_num from alembic_version"}, upgrade=project.command("upgrade", "head"))
    report = reset(anew.lab.context, plan=False)
    assert report.result["schema"]["applied"] == {"newest": "0002", "count": 1}
    assert "which migrations are applied now cannot be told" in said(report)
    assert anew.lab.all_hold(EMPTY)
    assert "seen" in anew.columns()

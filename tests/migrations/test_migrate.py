"""A migration of an application: first on a copy, then live; what fails leaves everything as it was."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore import commands, trial
from storekeeper.restore.journal import journals, unfinished
from storekeeper.restore.migration import Migrating
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.restoring import LIVE, running
from tests.harness.stacks import digest_of_tree
from tests.migrations.conftest import Application, script

OPENS = "import os, sqlite3, sys, time; opened = sqlite3.connect(sys.argv[1], isolation_level=None); live = '/live/' in sys.argv[1]\n"
CHANGES = OPENS + "opened.execute('create table new (id integer)'); opened.close()\n"
FAILS_LIVE = (
    "import os, sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript({sql!r}); sys.exit('no' if '/live/' in sys.argv[1] else 0)"
)


def only_live(sql: str) -> str:
    """A program that ends well on a copy, and live after it has done harm."""
    return FAILS_LIVE.format(sql=sql)


def rows(application: Application) -> tuple[list[Any], list[str]]:
    """Rows and schema of the migrated database."""
    with closing(sqlite3.connect(f"file:{application.main}?mode=ro", uri=True)) as connection:
        schema = connection.execute("select sql from sqlite_master order by name").fetchall()
        return [connection.execute(f"select * from {name}").fetchall() for name in ("things", "notes", "migrations")], [str(schema)]


def test_an_upgrade_is_tried_on_a_copy_and_then_carried_out_live(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = commands.carry_out_on, []

    def watched(context: Any, command: Any, stores: Any, *more: Any) -> str:
        seen.append((stores["main"].address == str(application.main), running(application.lab)))
        return real(context, command, stores, *more)

    monkeypatch.setattr(commands, "carry_out_on", watched)
    report = application.migrate()
    assert seen == [(False, [True, True]), (True, [False, False])], "on a copy beside the services, then live without them"
    assert application.applied() == ["0001", "0002"]
    assert "seen" in application.columns()
    assert running(application.lab) == [True, True]
    assert report.result["trial"]["changed"] is True
    assert report.result["applied"] == report.result["trial"]["applied"] == {"newest": "0002", "count": 2}
    assert report.result["stores"]["main"]["counts"]["migrations"] == 2
    safety = application.lab.context.sets.entry(report.result["safety_set"])
    assert safety.pinned is not None
    assert not list(application.lab.context.scratch.iterdir()), "the copy is gone"
    assert not list((application.lab.root / "live").rglob(".storekeeper-*")), "nothing is left beside the stores"


def test_the_way_back_from_a_migration_is_its_safety_set(application: Application) -> None:
    before = rows(application)
    application.migrate()
    assert rows(application) != before
    report = restore(application.lab.context, RestoreRequest(back=True))
    assert rows(application) == before
    assert any("a migration changes the stores in their place: it goes back to safety set" in each.message for each in report.problems)


def test_what_fails_on_the_copy_touches_nothing_live(application: Application) -> None:
    application.migration("0003_wrong", "create table half (id integer);\ninsert into nowhere values (1)")
    before, sets = digest_of_tree(application.lab.root / "live"), len(application.lab.context.sets.entries())
    with pytest.raises(Failed, match=r"on a copy of set .* 0003: statement 2: no such table: nowhere; the live data was not touched"):
        application.migrate()
    assert digest_of_tree(application.lab.root / "live") == before
    assert (journals(application.lab.context.state), len(application.lab.context.sets.entries())) == ([], sets)
    assert running(application.lab) == [True, True]
    assert not list(application.lab.context.scratch.iterdir())


@pytest.mark.fault("E-25")
@pytest.mark.parametrize(
    "sql",
    ["drop table things", "update things set word = 'gone'; create table half (id integer)", "delete from migrations"],
    ids=["drops a table", "is half done", "loses its record"],
)
def test_what_fails_live_takes_all_stores_back(application: Application, sql: str) -> None:
    before = rows(application)
    application.declare(upgrade=script(only_live(sql)))
    with pytest.raises(Failed, match="ended with 1: no; all stores are back as they were before"):
        application.migrate()
    assert rows(application) == before
    assert application.lab.all_hold(LIVE)
    assert running(application.lab) == [True, True]
    assert unfinished(application.lab.context.state) is None


@pytest.mark.control("E-25")
def test_control_without_the_way_back_a_failing_migration_leaves_what_it_has_made(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Migrating, "undo", lambda walk, error: Failed("nothing was undone"))
    application.declare(upgrade=script(only_live("delete from things")))
    with pytest.raises(Failed):
        application.migrate()
    assert application.ask("select count(*) from things") == [(0,)]


@pytest.mark.parametrize("damage", ["open(sys.argv[1], 'r+b').write(b'x' * 5000)", "os.unlink(sys.argv[1])"], ids=["garbage", "gone"])
def test_a_database_that_the_migration_destroys_comes_back(application: Application, damage: str) -> None:
    before = rows(application)
    application.declare(upgrade=script(f"{CHANGES}if live: {damage}"), applied=None)
    with pytest.raises(Failed, match="all stores are back as they were before"):
        application.migrate()
    assert rows(application) == before
    assert running(application.lab) == [True, True]


def test_a_migration_that_comes_to_another_end_live_is_taken_back(application: Application) -> None:
    sql = "insert into migrations (version) values ('0009')"
    application.declare(upgrade=script(f"{OPENS}opened.execute({sql!r} if live else {sql.replace('9', '8')!r})"))
    with pytest.raises(Failed, match="on the copy it came to 0008, the last of 2, live to 0009, the last of 2; all stores are back"):
        application.migrate()
    assert application.applied() == ["0001"]


def test_a_migration_that_hangs_is_ended_by_its_limit(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    application.declare(upgrade=script(f"{CHANGES}if live: time.sleep(600)", timeout="1m"), applied=None)
    declared = application.lab.context.stack.migration
    assert declared is not None
    assert declared.upgrade is not None
    monkeypatch.setitem(declared.upgrade.__dict__, "timeout", timedelta(seconds=2))  # a stack file counts in minutes
    before = rows(application)
    with pytest.raises(Failed, match=r"did not end within 2 s.*; all stores are back as they were before"):
        application.migrate()
    assert rows(application) == before
    assert running(application.lab) == [True, True]


def test_a_migration_that_has_nothing_to_do_stops_nothing(application: Application) -> None:
    application.migrate()
    application.backup()
    before, known = digest_of_tree(application.lab.root / "live"), len(journals(application.lab.context.state))
    report = application.migrate()
    assert report.result["trial"]["changed"] is False
    assert report.result["safety_set"] is None
    assert "it changes nothing on a copy" in report.problems[-1].message
    assert digest_of_tree(application.lab.root / "live") == before
    assert len(journals(application.lab.context.state)) == known


def test_a_copy_at_another_migration_proves_nothing_and_is_refused(application: Application) -> None:
    application.migrate()
    with pytest.raises(
        Refused, match="the newest proven one, is at 0001, the last of 1; what is live is at 0002, the last of 2"
    ) as refused:
        application.migrate()
    assert refused.value.next == "storekeeper backup demo, then storekeeper prove demo"


def test_without_a_proven_set_nothing_is_tried(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    application.lab.take(LIVE)
    monkeypatch.setattr(type(application.lab.context.sets), "entries", lambda sets: [])
    with pytest.raises(Refused, match="no set is proven, and a migration is tried on a copy of one first"):
        application.migrate()


def test_downgrade_and_stamp_take_their_words_and_go_the_same_way(application: Application) -> None:
    application.migrate()
    application.backup()
    report = application.migrate("downgrade", "0001")
    assert report.result["command"].endswith("downgrade {version} 0001")
    assert (application.applied(), "seen" in application.columns()) == (["0001"], False)
    application.backup()
    application.migrate("stamp", "0002")
    assert (application.applied(), "seen" in application.columns()) == (["0001", "0002"], False)
    with pytest.raises(Refused, match=r"stamp takes 1 words \(version\), 0 were given") as refused:
        application.migrate("stamp")
    assert refused.value.next == "storekeeper migrate demo stamp VERSION"


def test_current_and_history_are_told_and_change_nothing(application: Application) -> None:
    before = digest_of_tree(application.lab.root / "live")
    assert application.migrate("current").result["output"] == "0001\n"
    assert application.migrate("history").result["output"] == "0001\n"
    assert digest_of_tree(application.lab.root / "live") == before
    assert journals(application.lab.context.state) == []


def test_a_test_upgrades_a_copy_and_ends_there(application: Application, tmp_path: Path) -> None:
    before = digest_of_tree(application.lab.root / "live")
    said = tmp_path / "columns"
    text = f"{OPENS}open({str(said)!r}, 'w').write(str(opened.execute('select seen from things').fetchone()))"
    application.declare(test=script(text))
    report = application.migrate("test")
    assert (report.result["safety_set"], report.result["trial"]["applied"]) == (None, {"newest": "0002", "count": 2})
    assert said.read_text() == "('no',)"
    assert digest_of_tree(application.lab.root / "live") == before


def test_the_applications_own_tests_that_fail_on_the_copy_keep_an_upgrade_from_what_is_live(application: Application) -> None:
    before = digest_of_tree(application.lab.root / "live")
    application.declare(test=script("import sys; sys.exit('one test failed')"))
    with pytest.raises(Failed, match="one test failed; the live data was not touched"):
        application.migrate()
    assert digest_of_tree(application.lab.root / "live") == before


def test_a_command_that_goes_to_the_live_store_from_its_copy_is_found_out(application: Application) -> None:
    elsewhere = {
        "run": [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(application.main)!r}).execute('create table x (y)')", "{main}"]
    }
    application.declare(upgrade=elsewhere)
    with pytest.raises(Failed, match=r"it was changed while the command ran on a copy: the command does not go where \{main\} says"):
        application.migrate()


@pytest.mark.control("E-25")
def test_control_without_that_look_the_live_store_is_changed_and_nobody_is_told(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_refuse_changed_live", lambda *_: None)
    elsewhere = {
        "run": [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(application.main)!r}).execute('create table x (y)')", "{main}"]
    }
    application.declare(upgrade=elsewhere)
    assert application.migrate().result["safety_set"] is None
    assert application.ask("select count(*) from x") == [(0,)]


def test_a_plan_runs_nothing(application: Application) -> None:
    before = digest_of_tree(application.lab.root / "live")
    application.declare(upgrade=script("import sys; sys.exit('it ran')"))
    plan = application.migrate(plan=True).result["plan"]
    assert plan["set"] == application.lab.context.sets.entries()[-1].id
    assert plan["services"] == ["service-0", "service-1"]
    assert plan["applied"] == {"newest": "0001", "count": 1}
    assert digest_of_tree(application.lab.root / "live") == before


def test_a_command_that_is_not_there_is_refused_before_anything_is_done(application: Application) -> None:
    application.declare(upgrade={"run": ["no-such-program", "{main}"]})
    with pytest.raises(Refused, match="there is no program no-such-program"):
        application.migrate()
    application.declare(downgrade=None)
    with pytest.raises(Refused, match="demo declares no command for downgrade; it declares upgrade, stamp, current, history"):
        application.migrate("downgrade")


def test_a_service_that_does_not_start_on_the_migrated_stores_takes_them_back(application: Application) -> None:
    before = rows(application)
    application.lab.services[0].fails_to_start = 1
    with pytest.raises(Failed, match="service-0 does not start; all stores are back as they were before"):
        application.migrate()
    assert rows(application) == before
    assert running(application.lab) == [True, True]

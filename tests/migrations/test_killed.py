"""A migration that is killed: what is live is as it was, or migrated, and the services run."""

from __future__ import annotations

import signal
import time

import pytest

from storekeeper.host import locks
from storekeeper.outcomes import Failed
from storekeeper.restore.journal import Journal, unfinished
from storekeeper.restore.migration import Migrating
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.restoring import LIVE, lines_of, running
from tests.harness.stacks import in_child, killing
from tests.migrations.conftest import Application, script
from tests.migrations.test_migrate import only_live, rows

HARM = "delete from things; drop table notes"


def killed(application: Application, number: int, *, after: bool) -> int:
    def walk() -> None:
        Journal.write = killing(number, after=after)  # type: ignore[method-assign]
        application.migrate()

    return in_child(walk)


def state(application: Application) -> tuple[object, list[str]]:
    """The rows that a migration changes, and what is applied."""
    return application.ask("select * from things"), application.applied()


@pytest.mark.fault("E-25")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_a_migrations_journal_leaves_it_done_or_all_as_it_was(
    application: Application, after: bool, campaign: Campaign
) -> None:
    before = state(application)
    application.migrate()
    done, lines, ended, kills = state(application), len(lines_of(application.lab)), set(), 0
    for number in range(1, lines + 1):
        application.back_to_the_first()
        assert state(application) == before
        assert killed(application, number, after=after) == -signal.SIGKILL
        kills += 1
        how = str(resume(application.lab.context).result["ended"])
        assert running(application.lab) == [True, True], f"services after line {number}"
        assert unfinished(application.lab.context.state) is None
        is_done = how == "done" or (how == "None" and number == lines)  # after the last line nothing is open
        assert state(application) == (done if is_done else before), f"{how} after line {number}"
        assert application.lab.sides()["meta"] == application.lab.sides()["papers"] == LIVE
        ended.add(how)
    where = "after" if after else "before"
    campaign.found(kills, f"kills {where} a line of a migration's journal", "0 states but migrated and as it was, after `resume`")
    assert {"abandoned", "went back", "done"} <= ended


@pytest.mark.fault("E-25")
@pytest.mark.slow
def test_kill_9_at_any_line_of_the_way_back_leaves_all_as_it_was(application: Application, campaign: Campaign) -> None:
    before = rows(application)
    application.declare(upgrade=script(only_live(HARM)), applied=None)
    with pytest.raises(Failed, match="all stores are back as they were before"):
        application.migrate()
    first, last = lines_of(application.lab, b'"step":"going_back"')[0], len(lines_of(application.lab))
    kills = 0
    for number in range(first, last + 1):
        assert killed(application, number, after=True) == -signal.SIGKILL
        kills += 1
        resume(application.lab.context)
        assert rows(application) == before, number
        assert application.lab.sides()["meta"] == application.lab.sides()["papers"] == LIVE
        assert running(application.lab) == [True, True], f"services after line {number}"
        assert unfinished(application.lab.context.state) is None
    campaign.found(kills, "kills after a line of the way back of a failed migration", "0 states but as it was, after `resume`")


@pytest.mark.fault("E-25")
def test_a_command_that_goes_on_when_the_program_is_killed_keeps_the_stack_locked_until_it_has_ended(application: Application) -> None:
    before = rows(application)
    text = "import os, sqlite3, sys, time\nsqlite3.connect(sys.argv[1]).executescript('drop table notes')\nif '/live/' in sys.argv[1]:\n"
    text += " os.kill(int(open('/proc/%d/stat' % os.getppid()).read().split()[3]), 9); time.sleep(2); "
    text += "sqlite3.connect(sys.argv[1]).executescript('drop table things')"
    application.declare(upgrade=script(text), applied=None)
    lock = application.lab.context.state / "lock"

    def walk() -> None:
        with locks.hold(lock, "migrate"):
            application.migrate()

    assert in_child(walk) == -signal.SIGKILL
    assert locks.is_held(lock), "the command goes on, with the lock of the stack"
    deadline = time.monotonic() + 20
    while locks.is_held(lock) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert application.ask("select count(*) from sqlite_master where name = 'things'") == [(0,)], "it was ended by nobody"
    (said,) = refuse_or_resume(application.lab.context)
    assert "the migration begun at" in said.message
    assert said.message.endswith("had been interrupted: all stores are back as they were before it")
    assert rows(application) == before
    assert running(application.lab) == [True, True]


@pytest.mark.control("E-25")
def test_control_a_resume_that_goes_on_after_a_command_that_was_cut_off_keeps_half_a_migration(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os, sqlite3, sys\nsqlite3.connect(sys.argv[1]).executescript('drop table notes')\nif '/live/' in sys.argv[1]:\n"
    text += " os.kill(int(open('/proc/%d/stat' % os.getppid()).read().split()[3]), 9)"
    application.declare(upgrade=script(text), applied=None)
    assert in_child(application.migrate) == -signal.SIGKILL
    monkeypatch.setattr(Migrating, "_take_back", lambda walk, why: walk._end())
    resume(application.lab.context)
    assert application.ask("select count(*) from sqlite_master where name = 'notes'") == [(0,)]

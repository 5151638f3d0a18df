"""A reset that is killed, fails, or has no room: every store of the stack is empty, or every one is as it was."""

from __future__ import annotations

import os
import pwd
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore import commands, resetting
from storekeeper.restore.journal import Journal, journals, unfinished
from storekeeper.restore.walk import Walk
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.verbs.reset import reset
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.mounts import disk, fill
from tests.harness.restoring import LIVE, lines_of, running
from tests.harness.stacks import EMPTY, Lab, digest_of_tree, in_child, killing, make_lab

pytestmark = pytest.mark.lab(sqlites=2, services=2)
FULL = LIVE


def state(lab: Lab) -> set[str]:
    """What the stores are: as they were written, empty with their schema, or both, which is a mix."""
    return set(lab.sides().values())


def declaring(lab: Lab, *commands: dict[str, Any]) -> Lab:
    """The same, whose stack declares these commands."""
    declared = tuple(DeclaredCommand.model_validate({**each, "run": tuple(each["run"])}) for each in commands)
    lab.context = replace(lab.context, stack=lab.context.stack.model_copy(update={"after_reset": declared}))
    return lab


def killed_reset(lab: Lab, number: int, *, after: bool) -> int:
    def walk() -> None:
        Journal.write = killing(number, after=after)  # type: ignore[method-assign]
        reset(lab.context, plan=False)

    return in_child(walk)


def ended_how(lab: Lab) -> str:
    """How `resume` ends it. A command that was cut off is not begun again: then the stores go back."""
    try:
        return str(resume(lab.context).result["ended"])
    except Failed as error:
        if "was interrupted, and nobody knows how far it came; all stores are back as they were before" not in error.message:
            raise
        return "went back"


@pytest.mark.fault("E-23")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_a_resets_journal_leaves_all_stores_empty_or_all_as_they_were(
    lab: Lab, after: bool, campaign: Campaign
) -> None:
    declaring(lab, {"run": ["true"]})
    lab.write(LIVE)
    reset(lab.context, plan=False)
    assert state(lab) == {EMPTY}
    steps, ended, mixed, kills = len(lines_of(lab)), set(), [], 0
    of_commands = lines_of(lab, b'"step":"command"')
    for number in sorted({*range(1, steps + 1, campaign.trials(5, 1)), *of_commands}):
        lab.write(LIVE)
        assert killed_reset(lab, number, after=after) == -signal.SIGKILL
        kills += 1
        how = ended_how(lab)
        sides = state(lab)
        mixed += [] if sides in ({FULL}, {EMPTY}) else [(number, sides)]
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True], f"services after line {number}"
        ended.add((how, min(sides)))
    campaign.found(
        kills, f"kills {'after' if after else 'before'} a line of a reset's journal", f"{len(mixed)} mixed states after `resume`"
    )
    assert mixed == []
    assert {("abandoned", FULL), ("done", EMPTY)} <= ended
    assert ("went back", FULL) in ended


@pytest.mark.fault("E-23")
def test_a_command_that_was_cut_off_is_not_begun_again(lab: Lab) -> None:
    lab.write(LIVE)
    ran = lab.root / "ran"
    declaring(lab, {"run": ["sh", "-c", f"echo once >>{ran}"]})
    reset(lab.context, plan=False)
    begun = lines_of(lab, b'"step":"command"')[0]
    lab.write(LIVE)
    ran.write_text("")
    assert killed_reset(lab, begun + 1, after=False) == -signal.SIGKILL
    assert ran.read_text() == "once\n"
    assert ended_how(lab) == "went back"
    assert ran.read_text() == "once\n"
    assert state(lab) == {FULL}


@pytest.mark.control("E-23")
def test_control_emptying_store_by_store_without_a_journal_gives_a_mix(lab: Lab) -> None:
    lab.write(LIVE)

    def naive() -> None:
        for number, name in enumerate(["main", "meta"]):
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            with closing(sqlite3.connect(lab.root / f"live/{name}.db")) as connection, connection:
                connection.execute("delete from things")

    assert in_child(naive) == -signal.SIGKILL
    assert state(lab) == {FULL, EMPTY}


@pytest.mark.fault("E-24")
def test_a_safety_set_that_finds_no_room_refuses_the_reset_and_stops_nothing(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "12m") as place:
        lab = make_lab(tmp_path, disk=place)
        lab.take(LIVE)
        before, live = len(lab.context.sets.entries()), digest_of_tree(tmp_path / "live")
        filler = fill(place, leave=40_000)
        with pytest.raises(Refused, match="needs"):
            reset(lab.context, plan=False)
        assert (len(lab.context.sets.entries()), digest_of_tree(tmp_path / "live")) == (before, live)
        assert running(lab) == [True, True]
        assert journals(lab.context.state) == []
        filler.unlink()
        reset(lab.context, plan=False)
        assert state(lab) == {EMPTY}
        lab.close()


@pytest.mark.fault("E-24")
def test_a_safety_set_that_fails_in_its_middle_ends_the_reset_with_everything_as_it_was(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.take(LIVE)
    live = digest_of_tree(lab.root / "live")
    store = lab.context.stores["meta"]

    def fail(*_: object) -> None:
        raise Failed("No space left on device")

    monkeypatch.setattr(store, "dump", fail)
    with pytest.raises(Refused, match="it cannot be saved first: No space left on device"):
        reset(lab.context, plan=False)
    assert digest_of_tree(lab.root / "live") == live
    assert running(lab) == [True, True]
    assert journals(lab.context.state) == []


@pytest.mark.control("E-24")
def test_control_a_reset_that_goes_on_without_its_safety_set_empties_what_is_nowhere_else(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write(LIVE)
    monkeypatch.setattr(resetting, "take_safety_set", lambda context, purpose, live, request: (None, live))
    reset(lab.context, plan=False)
    assert state(lab) == {EMPTY}
    assert lab.context.sets.entries() == []


@pytest.mark.fault("E-25")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ({"run": ["sh", "-c", "echo half done; echo no such revision >&2; exit 3"]}, r"ended with 3: no such revision \| half done"),
        ({"run": ["sh", "-c", 'sqlite3 "$DATABASE" "drop table things"; exit 1'], "environment": {"DATABASE": "{main}"}}, "ended with 1"),
        ({"run": ["sh", "-c", "kill -9 $$"]}, "ended with 137|killed by signal 9"),
    ],
    ids=["says why", "has changed a store", "is killed"],
)
def test_a_command_that_fails_after_the_switch_takes_all_stores_back(lab: Lab, command: dict[str, Any], said: str) -> None:
    lab.write(LIVE)
    declaring(lab, {"run": ["true"]}, command)
    with pytest.raises(Failed, match=said) as failed:
        reset(lab.context, plan=False)
    assert "all stores are back as they were before" in failed.value.message
    assert state(lab) == {FULL}
    assert running(lab) == [True, True]
    assert unfinished(lab.context.state) is None


@pytest.mark.control("E-25")
def test_control_without_the_way_back_a_failing_command_leaves_emptied_stores(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(LIVE)
    monkeypatch.setattr(Walk, "undo", lambda walk, error: Failed("nothing was undone"))
    with pytest.raises(Failed):
        reset(declaring(lab, {"run": ["false"]}).context, plan=False)
    assert state(lab) == {EMPTY}


@pytest.mark.fault("E-25")
def test_a_command_runs_while_every_store_is_empty_and_no_service_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(LIVE)
    real, seen = commands.carry_out, []

    def watched(*words: Any) -> None:
        seen.append((state(lab), running(lab)))
        real(*words)

    monkeypatch.setattr(commands, "carry_out", watched)
    insert = ["sqlite3", "{main}", "insert into things (word) values (1), (2)"]
    report = reset(declaring(lab, {"run": insert}).context, plan=False)
    assert seen == [({EMPTY}, [False, False])]
    assert report.result["stores"]["main"]["counts"] == {"things": 2}, "what the command wrote is counted"
    assert running(lab) == [True, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as another user")
def test_what_a_command_of_another_user_makes_belongs_to_whom_the_stores_belong_to(lab: Lab) -> None:
    lab.write(LIVE)
    live, owner = lab.root / "live", pwd.getpwnam("daemon")
    for path in (live / "main.db", *live.glob("papers/**/*"), live / "papers"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    script = 'sqlite3 "$1" "pragma journal_mode=wal; insert into things (word) values (1)"; echo new >"$2/raw/made"; chown nobody "$1"'
    reset(declaring(lab, {"run": ["sh", "-c", script, "sh", "{main}", "{papers}"], "user": "root"}).context, plan=False)
    found = {path: path.stat().st_uid for path in (live / "main.db", live / "papers/raw/made", live / "papers/raw", live / "papers/notes")}
    assert set(found.values()) == {owner.pw_uid}, found


def test_the_way_back_of_a_reset_leads_to_what_was_live_and_says_so(lab: Lab) -> None:
    lab.write(LIVE)
    reset(lab.context, plan=False)
    assert state(lab) == {EMPTY}
    back = restore(lab.context, RestoreRequest(back=True))
    assert any("it goes back to the old sides of the reset at" in problem.message for problem in back.problems)
    assert state(lab) == {FULL}


def test_a_stack_of_which_no_store_is_there_has_nothing_to_empty(lab: Lab) -> None:
    with pytest.raises(Refused, match="no store of demo is there: there is nothing to empty"):
        reset(lab.context, plan=False)

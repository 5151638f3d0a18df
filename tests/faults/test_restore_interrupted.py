"""What happens between a restore that was killed and its end: killed again, gone back from, robbed of its stage, its set or a store."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.restore.journal import Journal, Step, unfinished
from storekeeper.restore.walk import Walk
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.backup import backup
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.restoring import FIRST, LIVE, line_of_a_restore, lines_of, two_sides
from tests.harness.stacks import Lab, in_child, killing, write_sqlite
from tests.harness.trees import as_user

pytestmark = pytest.mark.lab(sqlites=2, services=1)

BACK = RestoreRequest(back=True)


def killed(work: Callable[[], Any], line: int, *, after: bool = True) -> bool:
    """Whether that work, in a process of its own, was killed at this line that it writes; False when it ended before."""

    def until() -> None:
        Journal.write = killing(line, after=after)  # type: ignore[method-assign]
        work()

    return in_child(until) == -signal.SIGKILL


def first_switch(lab: Lab, entry: SetEntry) -> int:
    """The line of a whole restore that announces the second store's switch."""
    return line_of_a_restore(lab, entry, "switching", 1)


def is_whole(lab: Lab) -> bool:
    return lab.all_hold(FIRST) or lab.all_hold(LIVE)


# --- killed again ---


@pytest.mark.slow
@pytest.mark.fault("E-1")
def test_a_resume_that_is_killed_at_any_of_its_lines_is_ended_by_the_next(lab: Lab, campaign: Campaign) -> None:
    entry = two_sides(lab)
    line, trials, mixed = first_switch(lab, entry), 0, []
    for first in (line, line + 2, line + 5)[: campaign.trials(1, 3)]:
        second, reached = 1, True
        while reached:
            lab.write(LIVE)
            assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), first)
            reached = killed(lambda: resume(lab.context), second, after=bool(second % 2))
            trials += reached
            resume(lab.context)
            mixed += [] if is_whole(lab) and lab.services[0].is_running() else [(first, second, lab.sides())]
            second += campaign.trials(5, 1)
    campaign.found(trials, "kills of a resume", f"{len(mixed)} mixed states")
    assert trials >= 3
    assert mixed == []


@pytest.mark.slow
@pytest.mark.fault("E-1")
def test_a_way_back_that_is_killed_at_any_of_its_lines_is_ended_and_asked_for_again_changes_nothing(lab: Lab, campaign: Campaign) -> None:
    entry, line, trials, wrong, reached = two_sides(lab), 1, 0, [], True
    while reached:
        lab.write(LIVE)
        restore(lab.context, RestoreRequest(set=entry.id))
        reached = killed(lambda: restore(lab.context, BACK), line, after=bool(line % 2))
        trials += reached
        ended = resume(lab.context).result["ended"]
        sides = set(lab.sides().values())
        expected = {FIRST} if ended == "abandoned" else {LIVE}
        wrong += [] if sides == expected and lab.services[0].is_running() else [(line, ended, sides)]
        restore(lab.context, BACK)
        wrong += [] if lab.all_hold(LIVE) else [(line, "again", lab.sides())]
        line += campaign.trials(5, 1)
    campaign.found(trials, "kills of a way back, each asked for again", f"{len(wrong)} mixed or wrong states")
    assert trials >= 3
    assert wrong == []


# --- robbed between the kill and resume ---


@pytest.mark.fault("E-1")
def test_a_stage_that_somebody_removed_takes_every_store_back(lab: Lab) -> None:
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)
    for name in (".meta.*.stage", ".storekeeper-*-papers-*"):
        token = unfinished(lab.context.state).token  # type: ignore[union-attr]
        for path in (lab.root / "live").glob(name):
            if token in path.name:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(Failed, match="all stores are back as they were before"):
        resume(lab.context)
    assert lab.all_hold(LIVE), lab.sides()
    assert lab.services[0].is_running()
    assert unfinished(lab.context.state) is None


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("damage", ["removed", "damaged"])
def test_a_set_that_went_after_it_was_staged_is_not_needed_to_end_the_restore(lab: Lab, damage: str) -> None:
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)
    if damage == "removed":
        shutil.rmtree(entry.path)
    else:
        for path in entry.path.rglob("*"):
            if path.is_file():
                path.chmod(0o600)
                path.write_bytes(b"")
    assert resume(lab.context).result["ended"] == "done"
    assert lab.all_hold(FIRST)
    restore(lab.context, BACK)
    assert lab.all_hold(LIVE)


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("then", ["before it was switched", "after it was switched"])
def test_a_store_that_somebody_removed_meanwhile_is_restored_or_said_and_never_left_half(lab: Lab, then: str) -> None:
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)
    victim = "main" if then.startswith("after") else "meta"
    (lab.root / "live" / f"{victim}.db").unlink()
    try:
        ended = str(resume(lab.context).result["ended"])
    except Failed as error:
        ended = error.message
    if unfinished(lab.context.state) is not None:
        assert "the way back failed too" in ended
        assert not lab.services[0].is_running(), "a mixed state must not be served"
        shutil.copy(next((entry.path / victim).glob("*.sqlite")), lab.root / "live" / f"{victim}.db")
        write_sqlite(lab.root / "live" / f"{victim}.db", LIVE)
        resume(lab.context)
    assert is_whole(lab), (ended, lab.sides())
    assert lab.services[0].is_running()


@pytest.mark.fault("E-1")
def test_a_service_that_came_up_by_itself_and_wrote_into_what_was_switched_loses_no_row_unsaid(lab: Lab) -> None:
    entry = two_sides(lab)
    first_switch(lab, entry)
    lab.write(LIVE)
    restore(lab.context, RestoreRequest(set=entry.id))
    last = lines_of(lab, b'"step":"switched"')[-1]
    lab.write(LIVE)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), last)
    write_sqlite(lab.root / "live" / "main.db", "afterwards")
    lab.services[0].start()
    with pytest.raises(Failed, match="all stores are back as they were before"):
        resume(lab.context)
    assert lab.all_hold(LIVE)
    assert [path for path in (lab.root / "live").glob(".main.*") if b"afterwards" in path.read_bytes()], "what was written since is kept"
    assert lab.services[0].is_running()
    assert unfinished(lab.context.state) is None


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("verb", ["backup", "restore", "back"])
def test_whatever_writes_next_ends_what_was_interrupted_first(lab: Lab, verb: str) -> None:
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)
    if verb == "backup":
        said = backup(lab.context).problems[0].message
        assert "had been interrupted: it was finished" in said
        assert lab.all_hold(FIRST)
        newest = lab.context.sets.entries()[-1]
        assert b"second" not in next((newest.path / "main").glob("*.sqlite")).read_bytes(), "a set of a mixed state was taken"
    else:
        restore(lab.context, BACK if verb == "back" else RestoreRequest(set=entry.id))
        assert lab.all_hold(LIVE if verb == "back" else FIRST)
    assert unfinished(lab.context.state) is None


@pytest.mark.root
@pytest.mark.fault("E-1")
def test_another_user_cannot_end_an_interrupted_restore_and_is_not_told_that_there_is_none(lab: Lab) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)

    def as_another() -> None:
        with as_user(65534, 65534), pytest.raises((StorekeeperError, PermissionError)):
            resume(lab.context)

    assert in_child(as_another) == 0
    assert unfinished(lab.context.state) is not None
    resume(lab.context)
    assert lab.all_hold(FIRST)


# --- controls ---


@pytest.mark.control("E-6")
def test_control_a_way_back_that_failed_and_was_forgotten_leaves_the_mix_for_good(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = two_sides(lab)
    stores = lab.context.stores

    def fail(*_: object) -> None:
        raise Failed("the disk of this store is on fire")

    monkeypatch.setattr(stores["papers"], "switch", fail, raising=False)
    monkeypatch.setattr(stores["main"], "switch_back", fail, raising=False)
    with pytest.raises(Failed, match="the way back failed too"):
        restore(lab.context, RestoreRequest(set=entry.id))
    monkeypatch.undo()
    unfinished(lab.context.state).write(Step.CLOSED, result="done", kept=None, until="2030-01-01T00:00:00Z")  # type: ignore[union-attr]
    assert resume(lab.context).result["ended"] is None
    assert set(lab.sides().values()) == {FIRST, LIVE}


@pytest.mark.control("E-1")
def test_control_a_resume_that_only_closes_the_journal_leaves_the_mix(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = two_sides(lab)
    line = first_switch(lab, entry)
    assert killed(lambda: restore(lab.context, RestoreRequest(set=entry.id)), line)
    monkeypatch.setattr(Walk, "_switch_all", lambda walk: None)
    monkeypatch.setattr(Walk, "_serve", lambda walk: None)
    resume(lab.context)
    assert set(lab.sides().values()) == {FIRST, LIVE}

"""A restore or its way back that is killed at any line of its journal, or at any moment: all stores on one side."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore.journal import Journal, journals, unfinished
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.restoring import FIRST, LIVE, breaking, line_of_a_restore, lines_of, running, to, two_sides, watch
from tests.harness.stacks import Lab, in_child, killed_at_random, killing

pytestmark = pytest.mark.lab(sqlites=2, services=2)


def killed_restore(lab: Lab, entry: SetEntry, number: int, *, after: bool, break_store: str | None = None) -> int:
    """Restore in another process, which is killed at that line of its journal; returns how it ended."""

    def walk() -> None:
        Journal.write = killing(number, after=after)  # type: ignore[method-assign]
        if break_store is not None:
            breaking(lab, break_store)
        restore(lab.context, to(entry))

    return in_child(walk)


@pytest.mark.fault("E-1")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_the_journal_leaves_every_store_on_the_same_side(lab: Lab, after: bool, campaign: Campaign) -> None:
    entry = two_sides(lab)
    restore(lab.context, to(entry))
    steps, ended, mixed, kills = len(lines_of(lab)), set(), [], 0
    for _ in range(campaign.trials(1, 3)):
        for number in range(1, steps + 1, campaign.trials(4, 1)):
            lab.write(LIVE)
            assert killed_restore(lab, entry, number, after=after) == -signal.SIGKILL
            kills += 1
            report = resume(lab.context)
            sides = set(lab.sides().values())
            mixed += [] if sides in ({FIRST}, {LIVE}) else [(number, sides)]
            assert unfinished(lab.context.state) is None
            assert running(lab) == [True, True], f"services after line {number}"
            ended.add((report.result["ended"], min(sides)))
    campaign.found(
        kills, f"kills {'after' if after else 'before'} a line of a restore's journal", f"{len(mixed)} mixed states after `resume`"
    )
    assert mixed == []
    assert {("abandoned", LIVE), ("done", FIRST)} <= ended


@pytest.mark.fault("E-1")
@pytest.mark.slow
def test_kill_9_at_any_line_of_the_way_back_leaves_every_store_as_it_was(lab: Lab, campaign: Campaign) -> None:
    entry = two_sides(lab)
    breaking(lab, "papers", times=1)
    with pytest.raises(Failed):
        restore(lab.context, to(entry))
    back = journals(lab.context.state)[-1].path.read_bytes().splitlines()
    first = next(number for number, line in enumerate(back, 1) if b'"going_back"' in line)
    moments = [(number, after) for number in range(first, len(back) + 1) for after in (False, True)] * campaign.trials(1, 3)
    wrong = []
    for number, after in moments[:: campaign.trials(5, 1)]:
        lab.write(LIVE)
        assert killed_restore(lab, entry, number, after=after, break_store="papers") == -signal.SIGKILL
        went_back = not (number == first and not after)
        resume(lab.context)
        wrong += [] if lab.all_hold(LIVE if went_back else FIRST) else [(number, after, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True]
    campaign.found(len(moments[:: campaign.trials(5, 1)]), "kills of a way back that a failure had begun", f"{len(wrong)} mixed states")
    assert wrong == []


@pytest.mark.fault("E-1")
@pytest.mark.slow
def test_kill_9_at_a_random_moment_leaves_every_store_on_the_same_side(lab: Lab, campaign: Campaign) -> None:
    entry = two_sides(lab)
    started = time.monotonic()
    restore(lab.context, to(entry))
    whole, mixed, late, trials = time.monotonic() - started, [], 0, campaign.trials(8, 100)
    for trial in range(trials):
        lab.write(LIVE)
        late += not killed_at_random(lambda: restore(lab.context, to(entry)), random.Random(trial).uniform(0, whole))
        resume(lab.context)
        mixed += [] if lab.all_hold(FIRST) or lab.all_hold(LIVE) else [(trial, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True]
    campaign.found(
        trials - late, f"kills of a restore of SQLite and files at any moment, {late} came too late", f"{len(mixed)} mixed states"
    )
    assert trials - late > trials // 4
    assert mixed == []


@pytest.mark.control("E-1")
def test_control_killing_a_restore_that_goes_store_by_store_without_a_journal_gives_a_mix(lab: Lab) -> None:
    entry = two_sides(lab)
    manifest = entry.manifest
    assert manifest is not None

    class NoLog:
        def note(self, step: str, **facts: object) -> None: ...

        def noted(self, step: str) -> None: ...

    def naive() -> None:
        for number, (name, store) in enumerate(lab.context.stores.items()):
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            place = store.place("0badcafe", None)
            store.stage(entry.path / name, manifest.stores[name], place)
            store.switch(place, NoLog())

    assert in_child(naive) == -signal.SIGKILL
    assert set(lab.sides().values()) == {FIRST, LIVE}
    assert resume(lab.context).result["ended"] is None


@pytest.mark.fault("E-1")
def test_nothing_else_runs_until_an_interrupted_restore_is_ended_and_the_next_verb_ends_it_first(lab: Lab) -> None:
    entry = two_sides(lab)
    switching = line_of_a_restore(lab, entry, "switching")
    killed_restore(lab, entry, switching + 1, after=False)
    with pytest.raises(Refused, match="is unfinished") as refused:
        restore(lab.context, to(entry, plan=True))
    assert refused.value.next == "storekeeper resume demo"
    (said,) = refuse_or_resume(lab.context)
    assert "had been interrupted: it was finished" in said.message
    assert lab.all_hold(FIRST)
    assert refuse_or_resume(lab.context) == []


@pytest.mark.fault("E-1")
def test_services_that_a_reboot_started_in_the_middle_are_stopped_before_a_restore_goes_on(lab: Lab) -> None:
    entry = two_sides(lab)
    switched = line_of_a_restore(lab, entry, "switched")
    assert killed_restore(lab, entry, switched, after=True) == -signal.SIGKILL
    assert running(lab) == [False, False]
    for service in lab.services:
        service.start()
    seen = watch(lab, "papers", "switch")
    assert resume(lab.context).result["ended"] == "done"
    assert seen == [[False, False]]
    assert lab.all_hold(FIRST)
    assert running(lab) == [True, True]

"""A restore that is killed, fails, or is interrupted: every store of the stack ends on the same side, whole."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused, StorekeeperError
from storekeeper.restore.journal import Journal, Step, journals, unfinished
from storekeeper.restore.resuming import refuse_or_resume
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.stacks import Lab, digest_of_tree, in_child, killed_at_random, killing, make_lab, write_sqlite

TO_FIRST = "first"
LIVE = "second"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = make_lab(tmp_path)
    yield made
    made.close()


def to(entry: SetEntry, **more: Any) -> RestoreRequest:
    return RestoreRequest(set=entry.id, **more)


def begin(lab: Lab) -> SetEntry:
    """A set of `first`; live is `second`."""
    entry = lab.take(TO_FIRST)
    lab.write(LIVE)
    return entry


def killed_restore(lab: Lab, entry: SetEntry, number: int, *, after: bool, break_store: str | None = None) -> int:
    """Restore in another process, which is killed at that line of its journal; returns how it ended."""

    def walk() -> None:
        Journal.write = killing(number, after=after)  # type: ignore[method-assign]
        if break_store is not None:
            breaking(lab, break_store)
        restore(lab.context, to(entry))

    return in_child(walk)


def breaking(lab: Lab, name: str, method: str = "switch", times: int = 1_000) -> None:
    """From now on this real store fails, that many times, where it would have finished."""
    store, left = lab.context.stores[name], times

    def fail(*_: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Failed("the disk of this store is on fire")
        delattr(store, method)
        getattr(store, method)(*_)

    setattr(store, method, fail)


def watch(lab: Lab, name: str, method: str) -> list[list[bool]]:
    """A list that is told, each time this real store does that, which services run."""
    store, seen = lab.context.stores[name], []
    real = getattr(store, method)

    def watched(*words: Any) -> None:
        seen.append(running(lab))
        real(*words)

    setattr(store, method, watched)
    return seen


def lines_of(lab: Lab) -> int:
    return len(journals(lab.context.state)[-1].path.read_bytes().splitlines())


def running(lab: Lab) -> list[bool]:
    return [service.is_running() for service in lab.services]


def no_stage_is_left(lab: Lab) -> bool:
    return not [path for path in (lab.root / "live").rglob("*") if "stage" in path.name]


# --- killed ---


@pytest.mark.fault("E-1")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_the_journal_leaves_every_store_on_the_same_side(lab: Lab, after: bool, campaign: Campaign) -> None:
    entry = begin(lab)
    restore(lab.context, to(entry))
    steps, ended, mixed, kills = lines_of(lab), set(), [], 0
    for _ in range(campaign.trials(1, 3)):
        for number in range(1, steps + 1, campaign.trials(4, 1)):
            lab.write(LIVE)
            assert killed_restore(lab, entry, number, after=after) == -signal.SIGKILL
            kills += 1
            report = resume(lab.context)
            sides = set(lab.sides().values())
            mixed += [] if sides in ({TO_FIRST}, {LIVE}) else [(number, sides)]
            assert unfinished(lab.context.state) is None
            assert running(lab) == [True, True], f"services after line {number}"
            ended.add((report.result["ended"], min(sides)))
    campaign.found(
        kills, f"kills {'after' if after else 'before'} a line of a restore's journal", f"{len(mixed)} mixed states after `resume`"
    )
    assert mixed == []
    assert {("abandoned", LIVE), ("done", TO_FIRST)} <= ended


@pytest.mark.fault("E-1")
@pytest.mark.slow
def test_kill_9_at_any_line_of_the_way_back_leaves_every_store_as_it_was(lab: Lab, campaign: Campaign) -> None:
    entry = begin(lab)
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
        wrong += [] if lab.all_hold(LIVE if went_back else TO_FIRST) else [(number, after, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True]
    campaign.found(len(moments[:: campaign.trials(5, 1)]), "kills of a way back that a failure had begun", f"{len(wrong)} mixed states")
    assert wrong == []


@pytest.mark.fault("E-1")
@pytest.mark.slow
def test_kill_9_at_a_random_moment_leaves_every_store_on_the_same_side(lab: Lab, campaign: Campaign) -> None:
    entry = begin(lab)
    started = time.monotonic()
    restore(lab.context, to(entry))
    whole, mixed, late, trials = time.monotonic() - started, [], 0, campaign.trials(8, 100)
    for trial in range(trials):
        lab.write(LIVE)
        late += not killed_at_random(lambda: restore(lab.context, to(entry)), random.Random(trial).uniform(0, whole))
        resume(lab.context)
        mixed += [] if lab.all_hold(TO_FIRST) or lab.all_hold(LIVE) else [(trial, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True]
    campaign.found(
        trials - late, f"kills of a restore of SQLite and files at any moment, {late} came too late", f"{len(mixed)} mixed states"
    )
    assert trials - late > trials // 4
    assert mixed == []


@pytest.mark.control("E-1")
def test_control_killing_a_restore_that_goes_store_by_store_without_a_journal_gives_a_mix(lab: Lab) -> None:
    entry = begin(lab)
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
    assert set(lab.sides().values()) == {TO_FIRST, LIVE}
    assert resume(lab.context).result["ended"] is None


@pytest.mark.fault("E-1")
def test_nothing_else_runs_until_an_interrupted_restore_is_ended_and_the_next_verb_ends_it_first(lab: Lab) -> None:
    entry = begin(lab)
    restore(lab.context, to(entry))
    switching = _line_of(lab, b'"switching"')
    lab.write(LIVE)
    killed_restore(lab, entry, switching + 1, after=False)
    with pytest.raises(Refused, match="is unfinished") as refused:
        restore(lab.context, to(entry, plan=True))
    assert refused.value.next == "storekeeper resume demo"
    (said,) = refuse_or_resume(lab.context)
    assert "had been interrupted: it was finished" in said.message
    assert lab.all_hold(TO_FIRST)
    assert refuse_or_resume(lab.context) == []


# --- failures ---


@pytest.mark.fault("E-5")
@pytest.mark.parametrize("method", ["switch", "probe"])
def test_when_the_fourth_store_fails_the_three_before_it_go_back(tmp_path: Path, method: str) -> None:
    lab = make_lab(tmp_path, sqlites=3)
    entry = begin(lab)
    breaking(lab, "papers", method, times=1)
    with pytest.raises(Failed, match="on fire; all stores are back as they were before") as failed:
        restore(lab.context, to(entry))
    assert failed.value.store == "papers"
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]
    journal = journals(lab.context.state)[-1]
    assert journal.is_closed
    assert journal.stores(Step.BACK) == list(reversed(journal.stores(Step.SWITCHING)))
    assert no_stage_is_left(lab)
    lab.close()


@pytest.mark.control("E-5")
def test_control_without_the_way_back_the_three_stores_before_would_stay_switched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from storekeeper.restore.walk import Walk  # noqa: PLC0415 only this control looks inside

    entry = begin(lab)
    breaking(lab, "papers", times=1)
    monkeypatch.setattr(Walk, "undo", lambda walk, error: Failed("nothing was undone"))
    with pytest.raises(Failed):
        restore(lab.context, to(entry))
    assert set(lab.sides().values()) == {TO_FIRST, LIVE}


@pytest.mark.fault("E-6")
def test_a_way_back_that_fails_once_stays_open_and_resume_ends_it(lab: Lab) -> None:
    entry = begin(lab)
    breaking(lab, "papers", times=1)
    breaking(lab, "main", "switch_back", times=2)
    with pytest.raises(Failed, match="the way back failed too") as failed:
        restore(lab.context, to(entry))
    assert failed.value.next == "storekeeper resume demo"
    assert running(lab) == [False, False], "a mixed state must not be served"
    with pytest.raises(Refused, match="is unfinished"):
        restore(lab.context, to(entry, plan=True))
    with pytest.raises(StorekeeperError):
        restore(lab.context, to(entry))
    assert resume(lab.context).result["ended"] == "went back"
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]


def test_a_service_that_does_not_start_again_takes_the_whole_restore_back(lab: Lab) -> None:
    entry = begin(lab)
    lab.services[1].fails_to_start = 1
    with pytest.raises(Failed, match="service-1 does not start; all stores are back"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]


def test_only_what_ran_before_is_started_again(lab: Lab) -> None:
    entry = begin(lab)
    lab.services[0].stop()
    restore(lab.context, to(entry))
    assert running(lab) == [False, True]


def test_a_store_that_fails_while_staging_leaves_live_data_and_services_untouched(lab: Lab) -> None:
    entry = begin(lab)
    started = [service.started_at() for service in lab.services]
    breaking(lab, "papers", "stage")
    with pytest.raises(Failed, match="the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert no_stage_is_left(lab)
    assert [service.started_at() for service in lab.services] == started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_stores_are_switched_takes_all_of_them_back(lab: Lab, number: signal.Signals) -> None:
    entry = begin(lab)
    store = lab.context.stores["meta"]
    real = store.switch

    def switch(*words: Any) -> None:
        os.kill(os.getpid(), number)
        real(*words)

    def walk() -> None:
        store.switch = switch  # type: ignore[method-assign]
        with pytest.raises(Failed, match=f"told to stop \\({number.name}\\); all stores are back"):
            restore(lab.context, to(entry))

    assert in_child(walk) == 0
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]
    assert unfinished(lab.context.state) is None


def test_being_told_to_stop_while_staging_leaves_live_data_untouched(lab: Lab) -> None:
    entry = begin(lab)

    def stage(*_: object) -> None:
        raise KeyboardInterrupt

    lab.context.stores["papers"].stage = stage  # type: ignore[method-assign, assignment]
    with pytest.raises(Failed, match="told to stop \\(KeyboardInterrupt\\); the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert no_stage_is_left(lab)
    assert unfinished(lab.context.state) is None


def test_a_service_that_does_not_stop_ends_the_restore_before_the_first_switch(lab: Lab) -> None:
    entry = begin(lab)
    lab.services[1].fails_to_stop = 1
    with pytest.raises(Failed, match="service-1 does not stop; the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]
    assert journals(lab.context.state)[-1].stores(Step.SWITCHING) == []


def test_stores_are_switched_and_probed_while_no_service_runs(lab: Lab) -> None:
    """What a service wrote before the probe would be lost by going back, and would make the probe's counts wrong."""
    entry = begin(lab)
    switching, probing = watch(lab, "papers", "switch"), watch(lab, "papers", "probe")
    restore(lab.context, to(entry))
    assert (switching, probing) == ([[False, False]], [[False, False]])
    assert running(lab) == [True, True]


@pytest.mark.fault("E-1")
def test_services_that_a_reboot_started_in_the_middle_are_stopped_before_a_restore_goes_on(lab: Lab) -> None:
    entry = begin(lab)
    restore(lab.context, to(entry))
    switched = _line_of(lab, b'"switched"')
    lab.write(LIVE)
    assert killed_restore(lab, entry, switched, after=True) == -signal.SIGKILL
    assert running(lab) == [False, False]
    for service in lab.services:
        service.start()
    seen = watch(lab, "papers", "switch")
    assert resume(lab.context).result["ended"] == "done"
    assert seen == [[False, False]]
    assert lab.all_hold(TO_FIRST)
    assert running(lab) == [True, True]


@pytest.mark.fault("E-10")
def test_a_damaged_set_is_refused_before_anything_is_stopped_or_made(lab: Lab) -> None:
    entry = begin(lab)
    victim = max(
        (path for path in entry.path.rglob("*") if path.is_file() and path.name != "manifest.json"), key=lambda path: path.stat().st_size
    )
    victim.chmod(0o600)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    victim.chmod(0o400)
    started = [service.started_at() for service in lab.services]
    before = digest_of_tree(lab.root / "live")
    with pytest.raises(Refused, match="is damaged"):
        restore(lab.context, to(entry))
    assert digest_of_tree(lab.root / "live") == before
    assert [service.started_at() for service in lab.services] == started
    assert journals(lab.context.state) == []
    with pytest.raises(Refused, match="damaged"):
        restore(lab.context, to(entry))


@pytest.mark.fault("E-10")
def test_what_was_staged_must_be_equal_to_the_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = begin(lab)
    store = lab.context.stores["main"]
    real = store.stage

    def stage(folder: Path, record: Any, place: Any) -> Any:
        found = real(folder, record, place)
        return type(found)({**found.counts, "things": 1}, found.digests)

    monkeypatch.setattr(store, "stage", stage, raising=False)
    with pytest.raises(Failed, match="differs from the set: the count of things: 1 found, 305 expected"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert no_stage_is_left(lab)


@pytest.mark.fault("E-14")
@pytest.mark.parametrize("hostile", ["../x", "-rf", "latest; x", "a\0b", "x" * 4096, "", "/etc", "..", "latest\n"])
def test_a_hostile_name_of_a_set_is_refused_and_touches_nothing(lab: Lab, hostile: str) -> None:
    begin(lab)
    before = digest_of_tree(lab.root / "live")
    with pytest.raises(Refused):
        restore(lab.context, RestoreRequest(set=hostile))
    assert digest_of_tree(lab.root / "live") == before


# --- what is written meanwhile ---


@pytest.mark.fault("E-22")
@pytest.mark.control("E-22")
@pytest.mark.slow
def test_no_row_that_was_acknowledged_during_a_restore_is_lost_unsaid(lab: Lab) -> None:
    """A writer that nobody stops: each row is in the safety set, in the side that was live, or in the live data now."""
    entry = begin(lab)
    path, told = lab.root / "live" / "main.db", lab.root / "acknowledged"
    writer = os.fork()
    if writer == 0:
        insert_for_ever(path, told)
    try:
        while not told.exists() or told.stat().st_size < 100:
            time.sleep(0.01)
        report = restore(lab.context, to(entry))
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    acknowledged = told.read_text().split("\n")[:-1]
    kept = [each for each in (lab.root / "live").glob(".main.*") if each.is_file()]
    live = words_in(path)
    assert len(acknowledged) > 20
    assert set(acknowledged) - live, "the control: the live data alone does not have them all"
    assert not set(acknowledged) - live.union(*map(words_in, kept))
    assert any("kept until" in problem.message and report.result["safety_set"] in problem.message for problem in report.problems)


def words_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {word for (word,) in connection.execute("select word from things")}


def insert_for_ever(path: Path, told: Path) -> None:
    """Insert rows, and write each down once it is committed; ends when it is killed."""
    with closing(sqlite3.connect(path, timeout=30)) as connection, open(told, "w") as file:
        for number in range(1_000_000):
            with connection:
                connection.execute("insert into things (word) values (?)", (f"row {number}",))
            file.write(f"row {number}\n")
            file.flush()
            time.sleep(0.002)
    os._exit(1)


def _line_of(lab: Lab, word: bytes) -> int:
    lines = journals(lab.context.state)[-1].path.read_bytes().splitlines()
    return next(number for number, line in enumerate(lines, 1) if word in line)


def test_the_sides_check_sees_a_mix_inside_one_store(lab: Lab) -> None:
    """The control of all tests above: one row or one file of the other side is found."""
    lab.write(LIVE)
    write_sqlite(lab.root / "live" / "main.db", TO_FIRST)
    assert not lab.all_hold(LIVE)
    lab.write(LIVE)
    with closing(sqlite3.connect(lab.root / "live" / "main.db")) as connection, connection:
        connection.execute("update things set word = 'first' where id = 1")
    assert "MIXED" in lab.sides()["main"]
    (lab.root / "live" / "papers" / "notes" / "c.md").write_text(TO_FIRST)
    assert "MIXED" in lab.sides()["papers"]

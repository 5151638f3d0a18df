"""A restore that is killed, fails, or is interrupted: every store of the stack ends on the same side, whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused, StorekeeperError
from storekeeper.restore.journal import Step, journals, unfinished
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.restoring import FIRST, LIVE, breaking, running, to, two_sides, watch
from tests.harness.stacks import Lab, digest_of_tree, in_child, make_lab, write_sqlite

pytestmark = pytest.mark.lab(sqlites=2, services=2)


def no_stage_is_left(lab: Lab) -> bool:
    return not [path for path in (lab.root / "live").rglob("*") if "stage" in path.name]


@pytest.mark.fault("E-5")
@pytest.mark.parametrize("method", ["switch", "probe"])
def test_when_the_fourth_store_fails_the_three_before_it_go_back(tmp_path: Path, method: str) -> None:
    lab = make_lab(tmp_path, sqlites=3)
    entry = two_sides(lab)
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

    entry = two_sides(lab)
    breaking(lab, "papers", times=1)
    monkeypatch.setattr(Walk, "undo", lambda walk, error: Failed("nothing was undone"))
    with pytest.raises(Failed):
        restore(lab.context, to(entry))
    assert set(lab.sides().values()) == {FIRST, LIVE}


@pytest.mark.fault("E-6")
def test_a_way_back_that_fails_once_stays_open_and_resume_ends_it(lab: Lab) -> None:
    entry = two_sides(lab)
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
    entry = two_sides(lab)
    lab.services[1].fails_to_start = 1
    with pytest.raises(Failed, match="service-1 does not start; all stores are back"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]


def test_only_what_ran_before_is_started_again(lab: Lab) -> None:
    entry = two_sides(lab)
    lab.services[0].stop()
    restore(lab.context, to(entry))
    assert running(lab) == [False, True]


def test_a_store_that_fails_while_staging_leaves_live_data_and_services_untouched(lab: Lab) -> None:
    entry = two_sides(lab)
    started = [service.started_at() for service in lab.services]
    breaking(lab, "papers", "stage")
    with pytest.raises(Failed, match="the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert no_stage_is_left(lab)
    assert [service.started_at() for service in lab.services] == started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_stores_are_switched_takes_all_of_them_back(lab: Lab, number: signal.Signals) -> None:
    entry = two_sides(lab)
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
    entry = two_sides(lab)

    def stage(*_: object) -> None:
        raise KeyboardInterrupt

    lab.context.stores["papers"].stage = stage  # type: ignore[method-assign, assignment]
    with pytest.raises(Failed, match="told to stop \\(KeyboardInterrupt\\); the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert no_stage_is_left(lab)
    assert unfinished(lab.context.state) is None


def test_a_service_that_does_not_stop_ends_the_restore_before_the_first_switch(lab: Lab) -> None:
    entry = two_sides(lab)
    lab.services[1].fails_to_stop = 1
    with pytest.raises(Failed, match="service-1 does not stop; the live data was not touched"):
        restore(lab.context, to(entry))
    assert lab.all_hold(LIVE)
    assert running(lab) == [True, True]
    assert journals(lab.context.state)[-1].stores(Step.SWITCHING) == []


def test_stores_are_switched_and_probed_while_no_service_runs(lab: Lab) -> None:
    """What a service wrote before the probe would be lost by going back, and would make the probe's counts wrong."""
    entry = two_sides(lab)
    switching, probing = watch(lab, "papers", "switch"), watch(lab, "papers", "probe")
    restore(lab.context, to(entry))
    assert (switching, probing) == ([[False, False]], [[False, False]])
    assert running(lab) == [True, True]


@pytest.mark.fault("E-10")
def test_a_damaged_set_is_refused_before_anything_is_stopped_or_made(lab: Lab) -> None:
    entry = two_sides(lab)
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
    entry = two_sides(lab)
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
    two_sides(lab)
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
    entry = two_sides(lab)
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


def test_the_sides_check_sees_a_mix_inside_one_store(lab: Lab) -> None:
    """The control of all tests above: one row or one file of the other side is found."""
    lab.write(LIVE)
    write_sqlite(lab.root / "live" / "main.db", FIRST)
    assert not lab.all_hold(LIVE)
    lab.write(LIVE)
    with closing(sqlite3.connect(lab.root / "live" / "main.db")) as connection, connection:
        connection.execute("update things set word = 'first' where id = 1")
    assert "MIXED" in lab.sides()["main"]
    (lab.root / "live" / "papers" / "notes" / "c.md").write_text(FIRST)
    assert "MIXED" in lab.sides()["papers"]

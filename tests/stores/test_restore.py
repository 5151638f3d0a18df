"""A restore of a real stack: what it says before, what it does, the way back, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Outcome, Problem, Refused, Severity
from storekeeper.restore.journal import Step, journals
from storekeeper.restore.kept import expire_old_sides
from storekeeper.restore.plan import ManyRefused
from storekeeper.restore.reserve import Reserve
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.model import FilesModel, RestoreModel, SqliteModel, Stack
from storekeeper.verbs.report import Report
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.mounts import disk
from tests.harness.stacks import Lab, digest_of_tree, make_lab, open_context

LATER = timedelta(days=8)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = make_lab(tmp_path, sqlites=1, services=1)
    yield made
    made.close()


def to(entry: SetEntry, **more: Any) -> RestoreRequest:
    return RestoreRequest(set=entry.id, **more)


def said(report: Report, severity: Severity | None = None) -> str:
    return "\n".join(problem.message for problem in report.problems if severity in (None, problem.severity))


def prove(lab: Lab, entry: SetEntry) -> None:
    """Record a proof, as `prove` does."""
    lab.context.sets.records.add(entry.id, "prove", "ok", clock.now())


def test_a_restore_brings_every_store_back_and_says_what_it_did(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    report = restore(lab.context, to(entry))
    assert lab.all_hold("first")
    assert report.ended() is Outcome.OK
    assert report.result["set"] == entry.id
    assert report.result["back"] == "storekeeper restore demo --back"
    assert list(report.result["stores"]) == ["main", "papers"]
    for store in report.result["stores"].values():
        assert store["switch_ms"] > 0
        assert store["downtime_s"] >= 0
    assert report.result["stores"]["main"]["counts"] == {"things": 305}
    assert lab.services[0].is_running()
    json.dumps(dict(report.result))


def test_the_safety_set_holds_what_was_live_is_pinned_and_can_be_restored(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    pinned = lab.context.sets.entry(safety).pinned
    assert pinned is not None
    assert pinned.until is not None
    assert abs(pinned.until - clock.now() - timedelta(days=30)) < timedelta(minutes=5)
    restore(lab.context, RestoreRequest(set=safety))
    assert lab.all_hold("second")


def test_a_plan_says_rows_now_and_after_services_and_space_and_changes_nothing(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second!")
    before = digest_of_tree(lab.root)
    report = restore(lab.context, to(entry, plan=True))
    assert digest_of_tree(lab.root) == before
    assert list(report.result) == ["plan"]
    plan = report.result["plan"]
    assert plan["set"] == entry.id
    assert plan["stores"]["main"]["counts_now"] == {"things": 307}
    assert plan["stores"]["main"]["counts_after"] == {"things": 305}
    assert plan["stores"]["papers"]["bytes_needed"] > 0
    assert plan["services"] == ["service-0"]
    (found,) = plan["space"].values()
    assert 0 < found["needed"] < found["free"]
    json.dumps(plan)
    assert lab.services[0].is_running()


def test_control_the_digest_of_the_tree_sees_a_file_that_was_rewritten_with_the_same_bytes(lab: Lab) -> None:
    lab.write("first")
    before = digest_of_tree(lab.root)
    path = lab.root / "live" / "papers" / "notes" / "c.md"
    path.write_bytes(path.read_bytes())
    assert digest_of_tree(lab.root) != before


@pytest.mark.fault("E-17")
def test_latest_is_the_newest_good_set_and_what_was_passed_over_is_said(lab: Lab) -> None:
    good, bad = lab.take("first"), lab.take("second")
    lab.context.sets.records.add(bad.id, "verify", "failed", clock.now(), reason="a bit is flipped")
    report = restore(lab.context, RestoreRequest(set="latest"))
    assert report.result["set"] == good.id
    assert lab.all_hold("first")
    assert f"{bad.id} is newer and was passed over: it is damaged, a bit is flipped" in said(report, Severity.WARNING)


def test_only_the_named_store_is_restored(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    report = restore(lab.context, to(entry, only=("papers",)))
    assert lab.sides() == {"main": "second", "papers": "first"}
    assert list(report.result["stores"]) == ["papers"]
    assert "only papers will be as of" in said(report, Severity.WARNING)


def test_a_store_that_the_stack_or_the_set_does_not_know_is_refused_by_name(lab: Lab) -> None:
    entry = lab.take("first")
    with pytest.raises(Refused, match="the stack declares no store nosuch: main, papers"):
        restore(lab.context, to(entry, only=("nosuch",)))
    more = {**lab.context.stack.stores, "extra": SqliteModel(kind="sqlite", path=lab.root / "live" / "extra.db")}
    grown = open_context(lab.root, Stack(stack="demo", stores=more), lab.services)
    with pytest.raises(Refused, match=f"set {entry.id} does not hold extra") as refused:
        restore(grown, to(entry))
    assert refused.value.next == f"storekeeper restore demo {entry.id} --only main --only papers"
    fewer = {"papers": lab.context.stack.stores["papers"]}
    with pytest.raises(Refused, match=f"the stack file does not declare main, which set {entry.id} holds"):
        restore(open_context(lab.root, Stack(stack="demo", stores=fewer), lab.services), to(entry))
    swapped = {**lab.context.stack.stores, "main": FilesModel(kind="files", path=lab.root / "live" / "other")}
    with pytest.raises(Refused, match=r"declared as files, set .* holds a sqlite store"):
        restore(open_context(lab.root, Stack(stack="demo", stores=swapped), lab.services), to(entry, only=("main",)))


@pytest.mark.fault("E-16")
def test_a_set_of_another_host_is_restored_and_that_is_said(lab: Lab) -> None:
    entry = lab.take("first")
    elsewhere = replace(lab.context, host="there")
    report = restore(elsewhere, to(entry))
    assert f"set {entry.id} was taken on here, this is there" in said(report)


def test_stores_that_are_absent_have_nothing_to_save_and_are_restored(lab: Lab) -> None:
    entry = lab.take("first")
    (lab.root / "live" / "main.db").unlink()
    subprocess.run(["rm", "-r", str(lab.root / "live" / "papers")], check=True)
    report = restore(lab.context, to(entry))
    assert lab.all_hold("first")
    assert report.result["safety_set"] is None
    absent = [problem for problem in report.problems if "it is absent" in problem.message]
    assert [problem.store for problem in absent] == ["main", "papers"]


def test_one_absent_store_is_left_out_of_the_safety_set_and_is_absent_again_after_the_way_back(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    (lab.root / "live" / "main.db").unlink()
    safety = restore(lab.context, to(entry)).result["safety_set"]
    manifest = lab.context.sets.entry(safety).manifest
    assert manifest is not None
    assert list(manifest.stores) == ["papers"]
    assert lab.all_hold("first")
    restore(lab.context, RestoreRequest(back=True))
    assert not (lab.root / "live" / "main.db").exists()
    assert lab.readers["papers"]() == "second"


def test_one_absent_store_makes_the_safety_set_incomplete_and_never_the_latest_but_it_is_pinned_and_leads_back(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    (lab.root / "live" / "main.db").unlink()
    safety = lab.context.sets.entry(restore(lab.context, to(entry)).result["safety_set"])
    assert safety.state == "incomplete"
    assert safety.pinned is not None
    assert lab.context.sets.resolve("latest").entry.id == entry.id
    with pytest.raises(Refused, match=f"set {safety.id} of demo is incomplete"):
        restore(lab.context, to(safety))
    prove(lab, lab.take("third"))
    assert len(expire_old_sides(lab.context, clock.now() + LATER)) == 1
    report = restore(lab.context, RestoreRequest(back=True))
    assert report.result["set"] == safety.id
    assert lab.sides() == {"main": "third", "papers": "second"}
    assert "it was absent before the restore, so nothing of it was saved: it stays as it is" in said(report, Severity.WARNING)


def test_control_a_safety_set_of_all_stores_is_a_backup_like_any_other(lab: Lab) -> None:
    entry = lab.take("first")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    assert lab.context.sets.resolve("latest").entry.id == safety
    assert lab.context.sets.entry(safety).state == "verified"


# --- who holds what ---


def held_by(path: Path) -> int:
    """The pid of a program that has the file open, and that no service is. It is not this program's child: those do not count."""
    started = subprocess.run(["sh", "-c", f"sleep 600 <{path} >/dev/null 2>&1 & echo $!"], capture_output=True, check=True)
    return int(started.stdout)


def test_a_process_that_has_files_open_and_that_nobody_declared_is_named_and_refused(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, sqlites=1, services=0)
    entry = lab.take("first")
    lab.write("second")
    unvouched = open_context(lab.root, lab.context.stack, vouched=False)
    holder = held_by(lab.root / "live" / "papers" / "notes" / "c.md")
    try:
        with pytest.raises(Refused, match=rf"c\.md is open in sleep \(pid {holder}\)") as refused:
            restore(unvouched, to(entry))
        assert refused.value.store == "papers"
        assert lab.all_hold("second")
        assert journals(lab.context.state) == []
    finally:
        os.kill(holder, signal.SIGKILL)
    restore(lab.context, to(entry))
    assert lab.all_hold("first")
    lab.close()


def test_a_service_that_has_files_open_is_a_warning_is_stopped_and_the_restore_goes_on(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    service = lab.services[0]
    service.stop()
    service.holds = lab.root / "live" / "papers" / "notes" / "c.md"
    service.start()
    plan = restore(lab.context, to(entry, plan=True))
    assert re.search(rf"c\.md is open in sleep \(pid {service.pid}\): the restore goes back unless it ends", said(plan, Severity.WARNING))
    assert lab.all_hold("second")
    report = restore(lab.context, to(entry))
    assert lab.all_hold("first")
    assert report.ended() is Outcome.WARNING
    assert service.is_running()


@pytest.mark.parametrize("back", [False, True], ids=["restore", "back"])
def test_a_process_that_no_service_stops_ends_the_restore_before_the_first_switch(lab: Lab, back: bool) -> None:
    entry = lab.take("first")
    lab.write("second")
    if back:
        restore(lab.context, to(entry))
    holder = held_by(lab.root / "live" / "papers" / "notes" / "c.md")
    try:
        with pytest.raises(Failed, match=rf"open in sleep \(pid {holder}\).*the live data was not touched") as failed:
            restore(lab.context, RestoreRequest(back=True) if back else to(entry))
        assert failed.value.store == "papers"
    finally:
        os.kill(holder, signal.SIGKILL)
    assert lab.all_hold("first" if back else "second")
    assert lab.services[0].is_running()
    assert journals(lab.context.state)[-1].stores(Step.SWITCHING) == []
    restore(lab.context, RestoreRequest(back=True) if back else to(entry))
    assert lab.all_hold("second" if back else "first")


def test_control_a_process_that_goes_on_after_the_switch_reads_the_old_file(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    path = lab.root / "live" / "papers" / "notes" / "c.md"
    for store in lab.context.stores.values():
        store.refuse_holders = lambda place: None  # type: ignore[method-assign]
    lab.context.stores["papers"]._refuse_holders = lambda found: None  # type: ignore[attr-defined]
    with open(path, "rb") as held:
        restore(lab.context, to(entry))
        assert held.read() != path.read_bytes()
    assert lab.all_hold("first")


@pytest.mark.parametrize("is_service", [True, False], ids=["a service", "nobody's"])
def test_a_sqlite_file_whose_page_size_changes_may_be_open_in_a_service_and_in_nothing_else(lab: Lab, is_service: bool) -> None:
    path, service = lab.root / "live" / "main.db", lab.services[0]
    lab.write("first")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma page_size=1024")
        connection.execute("vacuum")
    entry = lab.take("first")
    path.unlink()
    lab.write("second")
    service.stop()
    service.holds = path if is_service else None
    service.start()
    holder = service.pid if is_service else held_by(path)
    try:
        plan = restore(lab.context, to(entry, plan=True))
        assert re.search(rf"open in sleep \(pid {holder}\).*page_size 1024, not 4096", said(plan, Severity.WARNING))
        if is_service:
            restore(lab.context, to(entry))
        else:
            with pytest.raises(Failed, match=rf"pid {holder}.*the live data was not touched"):
                restore(lab.context, to(entry))
    finally:
        if not is_service:
            os.kill(holder, signal.SIGKILL)
    assert lab.all_hold("first" if is_service else "second")


def test_all_refusals_of_all_stores_are_said_together(lab: Lab) -> None:
    entry = lab.take("first")

    def refuse(*_: object, **__: object) -> None:
        raise Refused("not today")

    for store in lab.context.stores.values():
        store.foresee = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(ManyRefused) as refused:
        restore(lab.context, to(entry))
    assert [(problem.store, problem.message) for problem in refused.value.problems()] == [("main", "not today"), ("papers", "not today")]


# --- space ---


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "small", "6m") as mounted:
        yield mounted


def fill_up(path: Path, leave: int) -> None:
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    with open(path / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - leave, 1))


@pytest.mark.fault("E-3")
@pytest.mark.root
def test_too_little_room_is_refused_before_anything_with_what_is_needed_and_where_to_stage(small: Path) -> None:
    lab = make_lab(small, sqlites=1, services=1)
    entry = lab.take("first")
    lab.write("second")
    fill_up(small, 60_000)
    before = digest_of_tree(lab.root / "live")
    with pytest.raises(Refused, match=rf"restore needs [0-9.]+ [kM]B on {small}, which has [0-9.]+ kB") as refused:
        restore(lab.context, to(entry))
    assert "--stage-dir DIRECTORY" in str(refused.value.next)
    assert digest_of_tree(lab.root / "live") == before
    assert len(lab.context.sets.entries()) == 1
    lab.close()


@pytest.mark.fault("E-3")
@pytest.mark.root
def test_a_disk_that_fills_up_while_staging_leaves_live_data_untouched_and_no_stage(small: Path) -> None:
    lab = make_lab(small, sqlites=1, services=1)
    entry = lab.take("first")
    lab.write("second")
    store = lab.context.stores["papers"]
    real = store.stage

    def stage(*words: Any) -> Any:
        fill_up(small, 8192)
        return real(*words)

    store.stage = stage  # type: ignore[method-assign]
    with pytest.raises(Failed, match="the live data was not touched"):
        restore(lab.context, to(entry))
    (small / "filler").unlink()
    assert lab.all_hold("second")
    assert [path.name for path in (lab.root / "live").iterdir()] == ["main.db", "papers"] or not list((lab.root / "live").rglob(".*"))
    assert lab.services[0].is_running()
    lab.close()


@pytest.fixture
def nearly_full(small: Path, tmp_path: Path) -> Iterator[Lab]:
    """Restored once, with a file system of live data that has no room to keep what is live now; the repository is elsewhere."""
    (tmp_path / "disk" / "state").mkdir(parents=True, mode=0o700)
    lab = make_lab(small, sqlites=1, services=1, disk=tmp_path / "disk")
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    lab.write("third")
    fill_up(small, 16_384)
    yield lab
    lab.close()


@pytest.mark.fault("E-4")
@pytest.mark.root
def test_a_way_back_that_has_no_room_to_keep_what_is_live_now_is_refused_before_anything(nearly_full: Lab) -> None:
    before, sets = digest_of_tree(nearly_full.root / "live"), len(nearly_full.context.sets.entries())
    for plan in (True, False):
        with pytest.raises(Refused, match=rf"restore --back needs [0-9.]+ kB on {nearly_full.root}, which has"):
            restore(nearly_full.context, RestoreRequest(back=True, plan=plan))
    assert digest_of_tree(nearly_full.root / "live") == before
    assert len(nearly_full.context.sets.entries()) == sets
    (nearly_full.root / "filler").unlink()
    assert restore(nearly_full.context, RestoreRequest(back=True, plan=True)).result["plan"]["stores"]["main"]["bytes_needed"] > 0
    restore(nearly_full.context, RestoreRequest(back=True))
    assert nearly_full.all_hold("second")


@pytest.mark.control("E-4")
@pytest.mark.root
def test_control_unforeseen_and_without_room_that_is_held_it_fails_in_the_middle(nearly_full: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reserve, "hold", lambda *_: None)
    nearly_full.context.stores["main"].back_needs = lambda place: {}  # type: ignore[method-assign]
    with pytest.raises(Failed, match="all stores are back as they were before"):
        restore(nearly_full.context, RestoreRequest(back=True))
    assert journals(nearly_full.context.state)[-1].stores(Step.SWITCHING) == ["main"]
    assert nearly_full.all_hold("third")


def test_a_stage_directory_that_others_can_write_or_that_is_inside_a_store_is_refused(lab: Lab, tmp_path: Path) -> None:
    entry = lab.take("first")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(Refused, match="can be written by others"):
        restore(lab.context, to(entry, stage_dir=shared))
    inside = lab.root / "live" / "papers" / "raw" / "stage"
    inside.mkdir(mode=0o700)
    with pytest.raises(Refused, match="is inside of what is restored"):
        restore(lab.context, to(entry, stage_dir=inside))
    with pytest.raises(Refused, match="No such file"):
        restore(lab.context, to(entry, stage_dir=tmp_path / "nosuch"))


# --- the way back ---


def test_back_returns_to_the_old_sides_with_what_was_written_since_the_safety_set(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    report = restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("second")
    assert "it goes back to the old sides of the restore" in said(report)
    assert report.result["set"] is None
    assert report.result["back"] == f"storekeeper restore demo {report.result['safety_set']}"
    restore(lab.context, RestoreRequest(set=report.result["safety_set"]))
    assert lab.all_hold("first")


@pytest.mark.fault("E-26")
def test_going_back_twice_changes_nothing_and_says_so(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    restore(lab.context, RestoreRequest(back=True))
    before, sets = digest_of_tree(lab.root / "live"), len(lab.context.sets.entries())
    report = restore(lab.context, RestoreRequest(back=True))
    assert "was gone back from already" in said(report)
    assert report.ended() is Outcome.OK
    assert digest_of_tree(lab.root / "live") == before
    assert len(lab.context.sets.entries()) == sets


@pytest.mark.fault("E-26")
def test_restoring_the_same_set_twice_holds_the_same(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    restore(lab.context, to(entry))
    assert lab.all_hold("first")
    restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("first")


def test_back_without_any_restore_is_refused(lab: Lab) -> None:
    lab.take("first")
    with pytest.raises(Refused, match="nothing to go back from"):
        restore(lab.context, RestoreRequest(back=True))


def test_back_goes_to_the_safety_set_when_the_old_sides_are_gone_and_says_which(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    prove(lab, lab.take("third"))
    assert len(expire_old_sides(lab.context, clock.now() + LATER)) == 1
    report = restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("second")
    assert report.result["set"] == safety
    assert f"it goes back to safety set {safety}" in said(report)
    assert "was gone back from already" in said(restore(lab.context, RestoreRequest(back=True)))


def test_a_plan_of_the_way_back_changes_nothing(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    before = digest_of_tree(lab.root)
    report = restore(lab.context, RestoreRequest(back=True, plan=True))
    assert digest_of_tree(lab.root) == before
    assert report.result["plan"]["stores"]["main"]["counts_now"] == {"things": 305}
    assert report.result["plan"]["services"] == ["service-0"]


def test_a_way_back_whose_second_store_fails_leaves_all_stores_restored(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    store = lab.context.stores["papers"]

    def fail(*_: object) -> None:
        raise Failed("the disk is on fire")

    store.switch_back = fail  # type: ignore[method-assign]
    with pytest.raises(Failed):
        restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("first")
    del store.switch_back
    restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("second")


# --- when the time of old sides is over ---


def old_sides(lab: Lab) -> list[str]:
    return sorted(str(path.relative_to(lab.root)) for path in (lab.root / "live").rglob(".*"))


def test_old_sides_go_only_past_their_time_and_only_when_there_is_a_newer_proven_set(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    kept = old_sides(lab)
    assert kept
    now = clock.now()
    assert expire_old_sides(lab.context, now + LATER) == [], "there is no newer proven set"
    newer = lab.take("third")
    assert expire_old_sides(lab.context, now + LATER) == [], "the newer set is not proven"
    prove(lab, newer)
    assert expire_old_sides(lab.context, now) == [], "its time is not over"
    assert expire_old_sides(lab.context, now - timedelta(days=400)) == [], "the clock went back"
    assert old_sides(lab) == kept
    (removed,) = expire_old_sides(lab.context, now + LATER)
    assert removed.startswith("the side that the restore of")
    assert old_sides(lab) == []
    assert lab.all_hold("third")
    assert expire_old_sides(lab.context, now + LATER) == []


def test_what_became_live_again_by_going_back_is_never_removed_as_an_old_side(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    restore(lab.context, RestoreRequest(back=True))
    prove(lab, lab.take("third"))
    (removed,) = expire_old_sides(lab.context, clock.now() + LATER)
    assert removed.startswith("the side that the back of")
    assert lab.all_hold("third")
    assert old_sides(lab) == []


def test_a_removal_of_old_sides_that_was_killed_is_ended_by_the_next_and_back_never_uses_a_half(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    prove(lab, lab.take("third"))
    store = lab.context.stores["papers"]

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.discard_old = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="Input/output"):
        expire_old_sides(lab.context, clock.now() + LATER)
    del store.discard_old
    assert restore(lab.context, RestoreRequest(back=True, plan=True)).result["plan"]["set"] == safety
    assert len(expire_old_sides(lab.context, clock.now() + LATER)) == 1
    assert old_sides(lab) == []


def test_a_keep_of_the_stack_file_is_what_is_said_and_held(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, sqlites=1, services=0, keep=RestoreModel(keep_old=timedelta(hours=1), keep_safety=timedelta(hours=2)))
    entry = lab.take("first")
    lab.write("second")
    report = restore(lab.context, to(entry))
    prove(lab, lab.take("third"))
    assert expire_old_sides(lab.context, clock.now() + timedelta(minutes=50)) == []
    assert len(expire_old_sides(lab.context, clock.now() + timedelta(minutes=70))) == 1
    pinned = lab.context.sets.entry(report.result["safety_set"]).pinned
    assert pinned is not None
    assert pinned.until is not None
    assert pinned.until < clock.now() + timedelta(hours=2)


@pytest.mark.fault("E-26")
def test_resume_with_nothing_open_says_so(lab: Lab) -> None:
    report = resume(lab.context)
    assert report.result == {"ended": None}
    assert report.problems == [Problem("no restore of demo is open", Severity.INFO)]

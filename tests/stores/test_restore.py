"""A restore of a real stack: what it says before, what it does, the way back, and what is refused."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest

from storekeeper.host import clock
from storekeeper.outcomes import Outcome, Problem, Refused, Severity
from storekeeper.restore.kept import expire_old_sides
from storekeeper.restore.plan import ManyRefused
from storekeeper.stack.model import FilesModel, SqliteModel, Stack
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.restoring import record_proof, said, to
from tests.harness.stacks import Lab, digest_of_tree, open_context

pytestmark = pytest.mark.lab(sqlites=1, services=1)


LATER = timedelta(days=8)


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
    record_proof(lab, lab.take("third"))
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


def test_all_refusals_of_all_stores_are_said_together(lab: Lab) -> None:
    entry = lab.take("first")

    def refuse(*_: object, **__: object) -> None:
        raise Refused("not today")

    for store in lab.context.stores.values():
        store.foresee = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(ManyRefused) as refused:
        restore(lab.context, to(entry))
    assert [(problem.store, problem.message) for problem in refused.value.problems()] == [("main", "not today"), ("papers", "not today")]


@pytest.mark.fault("E-26")
def test_restoring_the_same_set_twice_holds_the_same(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, to(entry))
    restore(lab.context, to(entry))
    assert lab.all_hold("first")
    restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("first")


@pytest.mark.fault("E-26")
def test_resume_with_nothing_open_says_so(lab: Lab) -> None:
    report = resume(lab.context)
    assert report.result == {"ended": None}
    assert report.problems == [Problem("no restore of demo is open", Severity.INFO)]

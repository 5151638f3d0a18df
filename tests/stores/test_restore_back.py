"""The way back of a restore, and how long the sides that it needs are kept."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Outcome, Refused
from storekeeper.restore.kept import expire_old_sides
from storekeeper.stack.model import RestoreModel
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.restoring import record_proof, said, to
from tests.harness.stacks import Lab, digest_of_tree, make_lab

pytestmark = pytest.mark.lab(sqlites=1, services=1)


LATER = timedelta(days=8)


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


def test_back_without_any_restore_is_refused(lab: Lab) -> None:
    lab.take("first")
    with pytest.raises(Refused, match="nothing to go back from"):
        restore(lab.context, RestoreRequest(back=True))


def test_back_goes_to_the_safety_set_when_the_old_sides_are_gone_and_says_which(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    record_proof(lab, lab.take("third"))
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
    record_proof(lab, newer)
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
    record_proof(lab, lab.take("third"))
    (removed,) = expire_old_sides(lab.context, clock.now() + LATER)
    assert removed.startswith("the side that the back of")
    assert lab.all_hold("third")
    assert old_sides(lab) == []


def test_a_removal_of_old_sides_that_was_killed_is_ended_by_the_next_and_back_never_uses_a_half(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, to(entry)).result["safety_set"]
    record_proof(lab, lab.take("third"))
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
    record_proof(lab, lab.take("third"))
    assert expire_old_sides(lab.context, clock.now() + timedelta(minutes=50)) == []
    assert len(expire_old_sides(lab.context, clock.now() + timedelta(minutes=70))) == 1
    pinned = lab.context.sets.entry(report.result["safety_set"]).pinned
    assert pinned is not None
    assert pinned.until is not None
    assert pinned.until < clock.now() + timedelta(hours=2)

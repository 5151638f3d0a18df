"""The disk fills at a step of a restore: nothing is lost, nothing is mixed, and the way back has the room that was held for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.restore.journal import Journal, Step, journals, unfinished
from storekeeper.restore.reserve import Reserve
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.mounts import disk, fill
from tests.harness.stacks import Lab, make_lab

pytestmark = pytest.mark.root
FIRST, LIVE = "first", "second"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Live data, repository and state on one file system of 16 MiB; only what the tests' own services need is elsewhere."""
    with disk(tmp_path / "small", "16m") as small:
        (tmp_path / "services").mkdir()
        (small / "services").symlink_to(tmp_path / "services")
        made = make_lab(small, sqlites=2, services=1)
        yield made
        made.close()


def empty(lab: Lab) -> None:
    (lab.root / "filler").unlink(missing_ok=True)


def restored_on_a_disk_that_fills(lab: Lab, entry: SetEntry, step: Step, store: str | None, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Restore; the disk is full from this line of the journal on. Returns the error's sentence, or None."""
    write = Journal.write

    def filling(journal: Journal, each: Step, name: str | None = None, **facts: object) -> None:
        write(journal, each, name, **facts)
        if (each, name) == (step, store):
            fill(lab.root)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", filling)
        try:
            restore(lab.context, RestoreRequest(set=entry.id))
        except StorekeeperError as error:
            return error.message
    return None


def fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise Failed("this store is broken")

    monkeypatch.setattr(lab.context.stores["papers"], "probe", fail, raising=False)


STEPS: list[tuple[Step, str | None]] = [
    (Step.SWITCHED, "main"),
    (Step.SERVING, None),
    (Step.STAGED, "papers"),
    (Step.STOPPING, None),
    (Step.SWITCHING, "main"),
    (Step.SWITCHING, "meta"),
    (Step.SWITCHED, "meta"),
    (Step.SWITCHING, "papers"),
    (Step.SWITCHED, "papers"),
    (Step.PROBED, "main"),
    (Step.PROBED, "meta"),
    (Step.GOING_BACK, None),
    (Step.BACK, "papers"),
    (Step.BACK, "meta"),
]


@pytest.mark.slow
@pytest.mark.fault("E-4")
def test_a_disk_that_fills_at_a_step_of_the_switch_or_of_the_way_back_keeps_neither_from_its_end(
    lab: Lab, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last store is broken, so that every restore must go back, on the full disk."""
    entry, wrong = lab.take(FIRST), []
    fails(lab, monkeypatch)
    steps = STEPS[: campaign.trials(2, len(STEPS))]
    for step, store in steps:
        lab.write(LIVE)
        said = restored_on_a_disk_that_fills(lab, entry, step, store, monkeypatch)
        stuck = unfinished(lab.context.state) is not None
        served = lab.services[0].is_running()
        empty(lab)
        if stuck:
            resume(lab.context)
        if stuck or not served or not lab.all_hold(LIVE) or list((lab.root / "live").glob("*reserve*")):
            wrong.append((step, store, said, lab.sides()))
        for each in lab.context.sets.entries():
            if each.id != entry.id:
                shutil.rmtree(each.path)
    campaign.found(len(steps), "steps at which the disk filled", f"{len(wrong)} ways back that lacked room or left a mix")
    assert wrong == []


@pytest.mark.control("E-4")
def test_control_without_room_that_is_held_the_way_back_is_stuck_until_somebody_makes_some(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = lab.take(FIRST)
    lab.write(LIVE)
    fails(lab, monkeypatch)
    for method in ("hold", "hold_on", "let_go"):
        monkeypatch.setattr(Reserve, method, lambda *_, **__: None)
    said = restored_on_a_disk_that_fills(lab, entry, Step.SWITCHED, "main", monkeypatch)
    assert "the way back failed too" in str(said)
    assert not lab.services[0].is_running()
    assert not journals(lab.context.state)[-1].is_closed
    empty(lab)
    resume(lab.context)
    assert lab.all_hold(LIVE)


@pytest.mark.control("E-3")
def test_control_files_that_are_copied_over_live_ones_on_a_disk_that_fills_are_a_mix(lab: Lab) -> None:
    entry = lab.take(FIRST)
    lab.write(LIVE)
    live = lab.root / "live" / "papers"
    shutil.rmtree(live / "notes")
    fill(lab.root)
    with pytest.raises((OSError, shutil.Error), match="No space left"):
        shutil.copytree(entry.path / "papers" / "content" / "notes", live / "notes")
    note = live / "notes" / "c.md"
    assert not note.exists() or note.stat().st_size < 3_000, "what was live is gone, and what should replace it is not there"

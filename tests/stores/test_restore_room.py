"""The room that a restore and its way back need: foreseen, asked for before anything is touched, and missed without harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore.journal import Step, journals
from storekeeper.restore.reserve import Reserve
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.mounts import disk, fill
from tests.harness.restoring import to, two_sides
from tests.harness.stacks import Lab, digest_of_tree, make_lab

pytestmark = pytest.mark.lab(sqlites=1, services=1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "small", "6m") as mounted:
        yield mounted


@pytest.fixture
def crowded(small: Path) -> Iterator[Lab]:
    """All of a stack, its sets and its state on a file system with little room."""
    made = make_lab(small, sqlites=1, services=1)
    yield made
    made.close()


@pytest.mark.fault("E-3")
@pytest.mark.root
def test_too_little_room_is_refused_before_anything_with_what_is_needed_and_where_to_stage(small: Path, crowded: Lab) -> None:
    entry = two_sides(crowded)
    fill(small, 60_000)
    before = digest_of_tree(crowded.root / "live")
    with pytest.raises(Refused, match=rf"restore needs [0-9.]+ [kM]B on {small}, which has [0-9.]+ kB") as refused:
        restore(crowded.context, to(entry))
    assert "--stage-dir DIRECTORY" in str(refused.value.next)
    assert digest_of_tree(crowded.root / "live") == before
    assert len(crowded.context.sets.entries()) == 1


@pytest.mark.fault("E-3")
@pytest.mark.root
def test_a_disk_that_fills_up_while_staging_leaves_live_data_untouched_and_no_stage(small: Path, crowded: Lab) -> None:
    entry = two_sides(crowded)
    store = crowded.context.stores["papers"]
    real = store.stage

    def stage(*words: Any) -> Any:
        fill(small, 8192)
        return real(*words)

    store.stage = stage  # type: ignore[method-assign]
    with pytest.raises(Failed, match="the live data was not touched"):
        restore(crowded.context, to(entry))
    (small / "filler").unlink()
    assert crowded.all_hold("second")
    assert [path.name for path in (crowded.root / "live").iterdir()] == ["main.db", "papers"] or not list(
        (crowded.root / "live").rglob(".*")
    )
    assert crowded.services[0].is_running()


@pytest.fixture
def nearly_full(small: Path, tmp_path: Path) -> Iterator[Lab]:
    """Restored once, with a file system of live data that has no room to keep what is live now; the repository is elsewhere."""
    (tmp_path / "disk" / "state").mkdir(parents=True, mode=0o700)
    lab = make_lab(small, sqlites=1, services=1, disk=tmp_path / "disk")
    restore(lab.context, to(two_sides(lab)))
    lab.write("third")
    fill(small, 16_384)
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

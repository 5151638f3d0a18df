"""Switching files: old whole or new whole, from whatever point it was interrupted, and nothing that is not covered is touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host.tree import remove
from storekeeper.outcomes import Failed, Refused
from storekeeper.sets.comparison import refuse_difference
from tests.harness.trees import many, store_at
from tests.stores.files_scene import ENTRIES, TOKEN, WHOLE, dies_at, make_case
from tests.stores.walk import Journal, take


def test_a_switch_brings_the_set_and_the_way_back_what_was_live(tmp_path: Path, include: tuple[str, ...], means: None) -> None:
    case, log = make_case(tmp_path, include), Journal()
    assert case.side() == "old"
    assert case.before != case.changed, "control"
    kept = (case.root / "raw/cache/kept").stat().st_ino
    for _ in range(2):
        case.store.switch(case.place, log)
        assert case.side() == "new"
    assert (case.root / "raw/cache/kept").stat().st_ino == kept, "the same file, not a copy"
    for _ in range(2):
        case.store.switch_back(case.place, log)
        assert case.side() == "old"
    case.store.switch(case.place, log)
    assert case.side() == "new", "a way back can be undone"
    case.store.switch_back(case.place, log)
    assert case.side() == "old"
    case.store.discard_stage(case.place)
    assert not list(tmp_path.rglob(".storekeeper-*"))


@pytest.mark.fault("E-22")
def test_what_an_application_writes_between_the_stage_and_the_switch_is_in_the_old_side(tmp_path: Path, include: tuple[str, ...]) -> None:
    case, log = make_case(tmp_path, include), Journal()
    (case.root / "raw" / "acknowledged").write_text("written late")
    (case.root / "late").write_text("rewritten late")
    case.store.switch(case.place, log)
    assert case.side() == "new"
    old = [path for path in tmp_path.rglob("*") if path.is_file() and "/old/" in str(path)]
    assert {path.name for path in old if path.read_text() in ("written late", "rewritten late")} == {"acknowledged", "late"}
    case.store.switch_back(case.place, log)
    assert (case.root / "raw" / "acknowledged").read_text() == "written late"


def test_what_is_written_after_a_switch_is_kept_by_the_way_back(tmp_path: Path, include: tuple[str, ...]) -> None:
    case, log = make_case(tmp_path, include), Journal()
    case.store.switch(case.place, log)
    (case.root / "raw" / "after").write_text("after")
    (case.root / "index.json").unlink()
    (case.root / "index.json").write_text("replaced by the application")
    case.store.switch_back(case.place, log)
    assert case.side() == "old"
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "/new/" in str(path)]
    assert {path.name for path in kept if path.read_text() in ("after", "replaced by the application")} == {"after", "index.json"}


def test_what_is_not_covered_is_never_touched(tmp_path: Path) -> None:
    root = many(tmp_path / "live" / "raw", 5).parent
    (root / "mine").mkdir()
    (root / "mine" / "x").write_text("not covered")
    store = store_at(root, tmp_path, include=["raw"])
    folder, record = take(store, tmp_path / "sets")
    (root / "mine" / "x").write_text("not covered, later")
    inode = (root / "mine").stat().st_ino
    place, log = store.place(TOKEN, None), Journal()
    store.stage(folder, record, place)
    store.switch(place, log)
    assert ((root / "mine").stat().st_ino, (root / "mine" / "x").read_text()) == (inode, "not covered, later")


def test_a_missing_root_is_made_as_it_was_and_removed_by_the_way_back(tmp_path: Path) -> None:
    root = many(tmp_path / "srv" / "app" / "live", 5)
    (root / "processed" / "markdown").mkdir(parents=True)
    (root / "processed").chmod(0o2750)
    root.chmod(0o751)
    store = store_at(root, tmp_path, include=["processed/markdown", "0"])
    folder, record = take(store, tmp_path / "sets")
    remove(tmp_path / "srv")
    place, log = store.place(TOKEN, None), Journal()
    store.stage(folder, record, place)
    assert not (tmp_path / "srv").exists(), "staging makes nothing live"
    store.switch(place, log)
    assert (root.stat().st_mode & 0o7777, (root / "processed").stat().st_mode & 0o7777) == (0o751, 0o2750)
    store.switch_back(place, log)
    assert not (tmp_path / "srv").exists()
    assert store.is_absent()


def test_a_half_finished_switch_is_never_discarded(tmp_path: Path) -> None:
    case = make_case(tmp_path, ENTRIES)
    assert dies_at(6, lambda: case.store.switch(case.place, Journal()))
    for discard in (case.store.discard_stage, case.store.discard_old):
        with pytest.raises(Failed, match="not finished"):
            discard(case.place)
    case.store.switch(case.place, Journal())
    assert case.side() == "new"


def test_a_removal_killed_half_way_is_ended_by_the_next_and_never_switched_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(tmp_path, WHOLE)
    case.store.switch(case.place, Journal())
    real = os.unlink

    def dying(*words: Any, **more: Any) -> None:
        monkeypatch.setattr(os, "unlink", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", dying)
    with pytest.raises(KeyboardInterrupt):
        case.store.discard_old(case.place)
    assert list(tmp_path.glob(".storekeeper-*"))
    case.store.switch_back(case.place, Journal())
    assert case.side() == "new"
    case.store.discard_old(case.place)
    assert not list(tmp_path.glob(".storekeeper-*"))


def test_a_stage_that_somebody_else_prepared_is_not_used(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    place = store.place(TOKEN, None)
    hidden = Path(place["places"][0]["hidden"])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    os.symlink(tmp_path / "outside", hidden)
    for use in (lambda: store.stage(folder, record, place), lambda: store.switch(place, Journal()), lambda: store.discard_stage(place)):
        with pytest.raises(Failed, match="no private directory"):
            use()
    hidden.unlink()
    hidden.mkdir(mode=0o777)
    hidden.chmod(0o777)
    with pytest.raises(Failed, match="no private directory"):
        store.stage(folder, record, place)
    assert (tmp_path / "outside" / "precious").exists()


def test_a_set_of_other_entries_is_refused(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 20)
    folder, record = take(store_at(root, tmp_path, include=["0", "1"]), tmp_path / "sets")
    with pytest.raises(Refused, match="the set covers 0, 1, the stack file 0, 2"):
        store_at(root, tmp_path, include=["0", "2"]).foresee(folder, record, None)
    with pytest.raises(Refused, match="the stack file all of it"):
        store_at(root, tmp_path).foresee(folder, record, None)


def test_what_became_excluded_since_is_restored_and_what_no_longer_is_stays_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "live"
    for inner in ("a/x", "a/cache/x", "a/logs/x"):
        (root / inner).parent.mkdir(parents=True, exist_ok=True)
        (root / inner).write_text("first")
    folder, record = take(store_at(root, tmp_path, exclude=["a/cache"]), tmp_path / "sets")
    for inner in ("a/x", "a/cache/x", "a/logs/x"):
        (root / inner).write_text("second")
    store = store_at(root, tmp_path, exclude=["a/logs"])
    place = store.place(TOKEN, None)
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    store.switch(place, Journal())
    assert [(root / inner).read_text() for inner in ("a/x", "a/cache/x", "a/logs/x")] == ["first", "second", "first"]

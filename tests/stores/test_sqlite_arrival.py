"""A restored SQLite file where nothing is live takes the name, with no stale log beside it and nobody's file under it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from tests.harness import sqlite as lab
from tests.stores import walk
from tests.stores.sqlite_scene import FACTS, MODES, TOKEN, Scene


def leave_a_log(live: Path, mode: str) -> None:
    """Leave the journal or log of a killed program where its database was."""
    lab.make(live, 3000, mode=mode, word="stale")
    if mode == "delete":
        lab.crash_into(live)
    else:
        with lab.program(lab.LOGGER, live):
            pass
    live.unlink()


@pytest.mark.fault("E-19")
@pytest.mark.control("E-19")
@pytest.mark.parametrize("mode", MODES)
def test_a_stale_log_is_never_played_into_the_file_that_takes_the_name(tmp_path: Path, mode: str) -> None:
    scene = Scene(tmp_path, mode)
    scene.live.unlink()
    leave_a_log(scene.live, mode)
    stale = scene.companions()
    shutil.copytree(scene.live.parent, tmp_path / "naive")
    shutil.copy(scene.folder / "database.sqlite", tmp_path / "naive" / "live.db")
    with closing(sqlite3.connect(tmp_path / "naive" / "live.db")) as naive:  # the control: a copy put under the name
        try:
            found = naive.execute(FACTS).fetchall()
        except sqlite3.DatabaseError:
            found = []
    assert found != scene.new

    assert scene.store.is_absent()
    assert scene.store.foresee(scene.folder, scene.record, None).counts_now is None
    scene.stage()
    scene.switch()
    scene.store.probe(scene.place, scene.record)
    assert scene.now() == scene.new
    scene.switch_back()
    assert scene.store.is_absent()
    assert [name for name in scene.companions() if name.startswith("live.db")] == stale
    scene.switch()
    assert scene.now() == scene.new
    scene.store.discard_stage(scene.place)
    scene.store.discard_old(scene.place)
    assert [name for name in scene.companions() if name.startswith(".")] == []


def test_a_file_put_where_none_was_has_the_mode_owner_and_journal_mode_of_the_backed_up_one(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 5, mode="wal")
    os.chmod(live, 0o660)
    if os.geteuid() == 0:
        os.chown(live, 65534, 65533)
    before = live.stat()
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    live.unlink()
    place, log = store.place(TOKEN, None), walk.Journal()
    store.stage(folder, record, place)
    store.switch(place, log)
    after = live.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert lab.ask(live, "pragma journal_mode") == [("wal",)]
    lab.tell(live, "insert into papers (title) values ('since')")
    with lab.program(lab.OPENER, live) as application, pytest.raises(Failed, match=rf"pid {application.pid}"):
        store.switch_back(place, log)
    store.switch_back(place, log)
    assert store.is_absent()
    assert lab.ask(Path(place["stage"]), "select count(*) from papers") == [(6,)]  # what was written since is kept


def test_a_file_that_appears_while_it_is_restored_is_left_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "delete")
    scene.live.unlink()
    scene.stage()
    note = scene.log.note

    def appear(step: str, **facts: object) -> None:
        note(step, **facts)
        if not scene.live.exists():
            lab.make(scene.live, 1, word="somebody's")

    scene.log.note = appear
    with pytest.raises(Failed, match="made by another program"):
        scene.switch()
    scene.switch_back()
    assert lab.ask(scene.live, "select title from papers") == [("somebody's 0",)]


def test_a_stage_on_another_file_system_takes_the_name_as_well(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"storekeeper-test-{os.getpid()}"
    elsewhere.mkdir()
    try:
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a second file system at /dev/shm")
        scene = Scene(tmp_path, "wal", stage_dir=elsewhere)
        needed = scene.store.foresee(scene.folder, scene.record, elsewhere).bytes_needed
        assert set(needed) == {elsewhere, scene.live.parent}
        scene.stage()
        scene.switch()
        assert scene.now() == scene.new
        scene.switch_back()
        assert scene.now() == scene.old
        scene.live.unlink()
        log = walk.Journal()
        scene.stage()
        scene.store.switch(scene.place, log)
        assert scene.now() == scene.new
        scene.store.switch_back(scene.place, log)
        assert scene.store.is_absent()
        scene.store.switch(scene.place, log)
        assert scene.now() == scene.new
        scene.store.discard_stage(scene.place)
        scene.store.discard_old(scene.place)
        assert os.listdir(elsewhere) == []
        assert [name for name in scene.companions() if name.startswith(".")] == []
    finally:
        shutil.rmtree(elsewhere)

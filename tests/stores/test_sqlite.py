"""A SQLite file through the whole contract, under a live writer, in both journal modes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import PinOrder
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from tests.harness import sqlite as lab
from tests.harness.proving import content_of_copy
from tests.stores import walk

MODES = ("wal", "delete")


def content_of(store, folder: Path, record: StoreRecord, scratch: Path):
    scratch.mkdir(exist_ok=True)
    return content_of_copy(store, folder, record, scratch)


@pytest.mark.parametrize("mode", MODES)
def test_a_backup_under_a_live_writer_restores_exactly_and_the_way_back_too(tmp_path: Path, mode: str) -> None:
    live = lab.make(tmp_path / "live.db", 3000, mode=mode)
    os.chmod(live, 0o640)
    store = lab.store_at(live, tmp_path)
    with lab.writing(live, tmp_path / "acknowledged"):
        assert store.preflight() == []
        taken = walk.take_whole(store, tmp_path / "set")
    folder, record = taken.folder, taken.record
    walk.check_sums(folder, record)
    store.verify(folder, record)
    found = content_of(store, folder, record, tmp_path / "scratch")
    assert (found.counts, found.digests) == (dict(record.counts), dict(record.digests))
    assert record.klass == ("snapshot" if mode == "wal" else "locked-copy")
    assert (record.pause_ms == 0) == (mode == "wal")
    assert stat.S_IMODE((folder / "database.sqlite").stat().st_mode) == 0o400
    assert sorted(os.listdir(folder)) == ["database.sqlite"]
    assert 3000 <= record.counts["papers"] <= 3000 + len(lab.acknowledged(tmp_path / "acknowledged")) + 1

    lab.tell(live, "delete from papers where id % 2")
    before = lab.ask(live, "select id, title from papers")
    log, place = walk.Journal(), store.place("0011aabb", None)
    foreseen = store.foresee(folder, record, None)
    assert foreseen.counts_now == {"papers": len(before)}
    assert foreseen.counts_after == dict(record.counts)
    assert list(foreseen.bytes_needed) == [tmp_path]
    staged = store.stage(folder, record, place)
    assert staged.digests == dict(record.digests)
    store.switch(place, log)
    store.switch(place, log)
    store.probe(place, record)
    assert lab.ask(live, "select count(*) from papers") == [(record.counts["papers"],)]
    assert lab.ask(live, "pragma journal_mode") == [(mode,)]
    assert stat.S_IMODE(live.stat().st_mode) == 0o640
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".stage")]

    store.switch_back(place, log)
    store.switch_back(place, log)
    assert lab.ask(live, "select id, title from papers") == before
    store.switch(place, log)
    store.probe(place, record)
    store.discard_stage(place)
    store.discard_old(place)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".main.")]
    assert lab.ask(live, "select name from sqlite_master where name like '%storekeeper%'") == []


def test_a_plain_copy_of_an_idle_file_in_wal_mode_loses_rows_and_a_backup_does_not(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 1000, mode="wal")
    with closing(sqlite3.connect(live, isolation_level=None)) as application:
        application.execute("pragma wal_autocheckpoint=0")
        application.execute("insert into papers (title) select title from papers limit 900")
        shutil.copy(live, tmp_path / "plain.db")
        _, record = walk.take(lab.store_at(live, tmp_path), tmp_path / "set")
    assert record.counts == {"papers": 1900}
    assert lab.ask(tmp_path / "plain.db", "select count(*) from papers") == [(1000,)]
    assert lab.ask(tmp_path / "plain.db", "pragma integrity_check") == [("ok",)]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_written_after_the_pin_is_not_in_the_set(tmp_path: Path, mode: str) -> None:
    live = lab.make(tmp_path / "live.db", 10, mode=mode)
    store, work = lab.store_at(live, tmp_path), tmp_path / "work"
    work.mkdir()
    (tmp_path / "set").mkdir()
    hold = store.hold(work)
    assert hold.order == (PinOrder.SNAPSHOT if mode == "wal" else PinOrder.WRITE_LOCK)
    hold.prepare()
    hold.pin()
    if mode == "delete":
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            lab.tell(live, "insert into papers (title) values ('late')", timeout=0)
    else:
        lab.tell(live, "insert into papers (title) values ('late')")
    hold.copy()
    hold.release()
    lab.tell(live, "insert into papers (title) values ('later')")
    into = StoreFolder(tmp_path / "set", None, lambda _: None)
    assert not store.begin_dump(hold, into)
    dumped = store.dump(hold, into)
    hold.close()
    hold.close()
    assert dumped.counts == {"papers": 10}
    assert (hold.pause_ms > 0) == (mode == "delete")
    assert os.listdir(work) == []


@pytest.mark.parametrize("name", ["a b.db", "what?mode=memory.db", "100%41.db", "a#b.db", 'it\'s "quoted".db', "ü.db", ":memory:"])
@pytest.mark.parametrize("mode", MODES)
def test_a_path_with_signs_that_mean_something_in_a_uri_is_that_file(tmp_path: Path, name: str, mode: str) -> None:
    live = tmp_path / "folder" / name
    live.parent.mkdir()
    lab.make(live, 5, mode=mode)
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    assert record.counts == {"papers": 5}
    place, log = store.place("0011aabb", None), walk.Journal()
    lab.tell(live, "delete from papers")
    store.stage(folder, record, place)
    store.switch(place, log)
    assert lab.ask(live, "select count(*) from papers") == [(5,)]
    store.switch_back(place, log)
    assert lab.ask(live, "select count(*) from papers") == [(0,)]
    store.discard_stage(place)
    store.discard_old(place)
    assert [each for each in os.listdir(live.parent) if not each.startswith(name)] == []


def test_looking_changes_no_file_whether_the_application_runs_or_not(tmp_path: Path) -> None:
    for mode in MODES:
        live = lab.make(tmp_path / mode / "live.db" if (tmp_path / mode).mkdir() is None else Path(), 50, mode=mode)
        store = lab.store_at(live, tmp_path)
        folder, record = walk.take(store, tmp_path / f"set-{mode}")
        before = {each.name: each.read_bytes() for each in live.parent.iterdir()}
        store.preflight()
        store.inspect()
        store.foresee(folder, record, None)
        store.place("0011aabb", None)
        assert {each.name: each.read_bytes() for each in live.parent.iterdir()} == before


def test_a_missing_file_is_absent_and_a_missing_directory_is_not_known(tmp_path: Path) -> None:
    assert lab.store_at(tmp_path / "live.db", tmp_path).is_absent()
    with pytest.raises(Unknown, match="not there"):
        lab.store_at(tmp_path / "mount" / "live.db", tmp_path).is_absent()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Failed, match="no file"):
        lab.store_at(tmp_path / "folder.db", tmp_path).is_absent()
    with pytest.raises(Failed, match="not there"):
        lab.store_at(tmp_path / "live.db", tmp_path).preflight()
    with pytest.raises(Unknown, match="not there"):
        lab.store_at(tmp_path / "live.db", tmp_path).inspect()
    assert os.listdir(tmp_path) == ["folder.db"]


def test_a_file_that_is_no_database_is_an_error_and_never_empty(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    live.write_bytes(b"no database at all, but long enough to look like something" * 100)
    store = lab.store_at(live, tmp_path)
    with pytest.raises(Failed, match=r"damaged.*not a database"):
        store.inspect()
    with pytest.raises(Failed, match="not a database"):
        store.preflight()
    with pytest.raises(Failed, match="not a database"):
        store.hold(tmp_path)


def test_a_live_file_with_a_torn_table_fails_and_is_not_taken(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 3000)
    with open(live, "r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(8 * 4096))
    with pytest.raises(Failed, match="malformed"):
        walk.take(lab.store_at(live, tmp_path), tmp_path / "set")


def test_a_transaction_that_a_crash_left_half_written_is_rolled_back_before_the_file_is_copied(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 3000)
    lab.crash_into(live)
    shutil.copy(live, tmp_path / "plain.db")
    half = "select count(*) from papers where body = upper(body)"
    assert 0 < lab.ask(tmp_path / "plain.db", half)[0][0] < 3000  # what a copy of the file alone holds
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    store.verify(folder, record)
    assert record.counts == {"papers": 3000}
    assert lab.ask(folder / "database.sqlite", half) == [(0,)]


def test_a_link_leads_to_the_file_and_its_journal(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    real = lab.make(tmp_path / "data" / "real.db", 7, mode="wal")
    (tmp_path / "link.db").symlink_to(real)
    store = lab.store_at(tmp_path / "link.db", tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    place, log = store.place("0011aabb", None), walk.Journal()
    lab.tell(real, "delete from papers")
    store.stage(folder, record, place)
    store.switch(place, log)
    assert lab.ask(real, "select count(*) from papers") == [(7,)]
    assert (tmp_path / "link.db").is_symlink()


def test_a_file_that_this_user_may_not_write_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = lab.make(tmp_path / "live.db", 5)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anything: the system's answer for another user
    with pytest.raises(Refused, match="may not write"):
        lab.store_at(live, tmp_path).preflight()


def test_the_registry_opens_this_kind(tmp_path: Path) -> None:
    declared = lab.store_at(tmp_path / "live.db", tmp_path)._declared
    assert open_store("main", declared, Surroundings("tests", tmp_path, tmp_path)).kind == "sqlite"

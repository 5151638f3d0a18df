"""A restored SQLite file becomes live in one step, whatever reads, writes, crashes or lies about meanwhile."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused
from tests.harness import sqlite as lab
from tests.stores import walk
from tests.stores.sqlite_scene import FACTS, MODES, TOKEN, Scene


@pytest.mark.fault("J4")
def test_a_reader_that_never_ends_makes_the_switch_fail_by_name_and_the_live_file_stays(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "delete", patience_s=0.3)
    scene.stage()
    before = scene.live.read_bytes()
    with lab.program(lab.READER, scene.live) as reader:
        with pytest.raises(Failed, match=rf"not touched: it is open in python\S* \(pid {reader.pid}\)"):
            scene.switch()
        assert scene.live.read_bytes() == before
    scene.switch_back()
    assert scene.now() == scene.old
    scene.switch()
    assert scene.now() == scene.new


@pytest.mark.control("J4")
def test_control_the_backup_api_alone_waits_for_that_reader_for_ever(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "delete")
    statuses: list[int] = []

    def watch(status: int, remaining: int, total: int) -> None:
        statuses.append(status)
        if len(statuses) == 20:
            raise TimeoutError

    with (
        lab.program(lab.READER, scene.live),
        closing(sqlite3.connect(scene.folder / "database.sqlite")) as source,
        closing(sqlite3.connect(scene.live, timeout=0)) as destination,
        pytest.raises(TimeoutError),
    ):
        source.backup(destination, progress=watch, sleep=0.001)
    assert set(statuses) == {sqlite3.SQLITE_BUSY}


@pytest.mark.fault("J4")
def test_a_reader_of_a_log_keeps_its_rows_and_does_not_stop_the_switch(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "wal", patience_s=0.3)
    scene.stage()
    with closing(sqlite3.connect(scene.live, isolation_level=None)) as reader:
        reader.execute("begin")
        assert reader.execute(FACTS).fetchall() == scene.old
        scene.switch()
        assert reader.execute(FACTS).fetchall() == scene.old
        reader.execute("commit")
        assert reader.execute(FACTS).fetchall() == scene.new


@pytest.mark.fault("J6")
def test_prepared_statements_of_a_running_application_show_the_new_rows_at_once(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.live, isolation_level=None)) as application:
        assert application.execute(FACTS).fetchall() == scene.old
        assert application.execute("select title from papers where id = 1").fetchone() == ("old 0",)
        scene.switch()
        assert application.execute("select title from papers where id = 1").fetchone() == ("new 0",)
        assert application.execute(FACTS).fetchall() == scene.new
        application.execute("insert into papers (title) values ('written through the old connection')")
    assert lab.ask(scene.live, "select count(*) from papers where title like 'written%'") == [(1,)]
    assert lab.ask(scene.live, "pragma integrity_check") == [("ok",)]


@pytest.mark.control("J6")
def test_control_a_file_that_is_put_in_the_place_of_the_live_one_leaves_running_applications_with_the_old_rows(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.live, isolation_level=None)) as application:
        assert application.execute(FACTS).fetchall() == scene.old
        shutil.copy(scene.folder / "database.sqlite", scene.live.with_name("copy"))
        os.replace(scene.live.with_name("copy"), scene.live)
        assert application.execute(FACTS).fetchall() == scene.old, "stale for as long as it runs"


LOOPER = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    while True:
        print(connection.execute(sys.argv[2]).fetchall(), flush=True)
"""


@pytest.mark.fault("J6", "E-19")
def test_a_client_that_reads_all_the_time_sees_all_of_the_old_or_all_of_the_new(scene: Scene, tmp_path: Path) -> None:
    with lab.program(LOOPER, scene.live, FACTS) as client:
        for _ in range(3):
            scene.switch()
            scene.switch_back()
        seen = {client.first.strip()}
        client.kill()
        seen |= set(client.stdout.read().split("\n")[:-1])
    assert seen <= {str(scene.old), str(scene.new)}


def _switch_at_last(scene: Scene) -> None:
    """A writer that never rests may keep the lock past the patience of one try; that is refused, untouched, and tried again."""
    for _ in range(10):
        try:
            scene.switch()
        except Failed as error:
            if "was not touched" not in error.message:
                raise
        else:
            return
    raise AssertionError("the lock was never had")


@pytest.mark.fault("E-22")
def test_every_acknowledged_row_is_in_the_live_file_or_in_the_side_that_was_kept(scene: Scene, tmp_path: Path) -> None:
    log = tmp_path / "acknowledged"
    with lab.writing(scene.live, log) as writer:
        _switch_at_last(scene)
        count = len(lab.acknowledged(log))
        lab.wait_for(lambda: len(lab.acknowledged(log)) > count + 3)
        writer.kill()
        writer.wait()
    kept = {title for path in (scene.live, Path(scene.place["old"])) for (title,) in lab.ask(path, "select title from papers")}
    assert len(lab.acknowledged(log)) > 4
    assert lab.acknowledged(log) <= kept
    assert lab.ask(scene.live, "select count(*) from papers where title like 'old%'") == [(0,)]


@pytest.mark.control("E-22")
def test_control_saving_the_old_side_before_the_lock_is_had_loses_acknowledged_rows(scene: Scene, tmp_path: Path) -> None:
    log = tmp_path / "acknowledged"
    with lab.writing(scene.live, log) as writer:
        with closing(sqlite3.connect(scene.live)) as live, closing(sqlite3.connect(tmp_path / "old.db")) as old:
            live.backup(old)
        count = len(lab.acknowledged(log))
        lab.wait_for(lambda: len(lab.acknowledged(log)) > count + 3)
        with closing(sqlite3.connect(scene.folder / "database.sqlite")) as source, closing(sqlite3.connect(scene.live)) as live:
            source.backup(live)
        writer.kill()
        writer.wait()
    kept = {title for path in (scene.live, tmp_path / "old.db") for (title,) in lab.ask(path, "select title from papers")}
    assert lab.acknowledged(log) - kept


SHAPES = [{"page_size": 1024}, {"page_size": 16384}, {"auto_vacuum": 1}, {"auto_vacuum": 2}, {"encoding": "UTF-16le"}]


@pytest.mark.fault("J5")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pragmas", SHAPES, ids=str)
def test_another_page_size_auto_vacuum_or_encoding_is_restored_when_nobody_has_the_file_open(
    tmp_path: Path, mode: str, pragmas: dict
) -> None:
    scene = Scene(tmp_path, mode, **pragmas)
    name, value = next(iter(pragmas.items()))
    with lab.program(lab.OPENER, scene.live) as application:
        with pytest.raises(Refused, match=rf"open in python\S* \(pid {application.pid}\).*the set has {name} {value}, not"):
            scene.store.foresee(scene.folder, scene.record, None)
        scene.stage()
        with pytest.raises(Failed, match=rf"pid {application.pid}"):
            scene.switch()
        assert scene.now() == scene.old
    scene.store.foresee(scene.folder, scene.record, None)
    scene.switch()
    scene.store.probe(scene.place, scene.record)
    assert (scene.now(), lab.ask(scene.live, f"pragma {name}")) == (scene.new, [(value,)])
    assert lab.ask(scene.live, "pragma journal_mode") == [(mode,)]
    scene.switch_back()
    assert scene.now() == scene.old
    assert lab.ask(scene.live, "pragma journal_mode") == [(mode,)]


@pytest.mark.control("J5")
def test_control_sqlite_refuses_another_page_size_over_a_log_and_an_open_connection_breaks_on_another_encoding(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "wal", page_size=1024)
    with (
        closing(sqlite3.connect(scene.folder / "database.sqlite")) as source,
        closing(sqlite3.connect(scene.live)) as live,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        source.backup(live)
    other = lab.make(tmp_path / "other.db", 5, encoding="UTF-16le")
    plain = lab.make(tmp_path / "plain.db", 5)
    with closing(sqlite3.connect(plain)) as application:
        application.execute(FACTS).fetchall()
        with closing(sqlite3.connect(other)) as source, closing(sqlite3.connect(plain)) as live:
            source.backup(live)
        with pytest.raises(sqlite3.OperationalError, match="same text encoding"):
            application.execute(FACTS)


def test_an_empty_live_file_and_an_empty_set_are_switched_too(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    live.touch()
    store, log = lab.store_at(live, tmp_path), walk.Journal()
    assert not store.is_absent()
    folder, record = walk.take(store, tmp_path / "set")
    store.verify(folder, record)
    lab.make(live, 10)
    place = store.place(TOKEN, None)
    store.stage(folder, record, place)
    store.switch(place, log)
    store.probe(place, record)
    assert lab.ask(live, "select * from sqlite_master") == []
    store.switch_back(place, log)
    assert lab.ask(live, "select count(*) from papers") == [(10,)]

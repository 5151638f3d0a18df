"""Guards of a SQLite file's switch: who comes late, what lies beside its name, and who never goes away."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.sqlite import arrival, switching
from storekeeper.stores.sqlite.overwriting import Overwriting
from storekeeper.stores.sqlite.place import Place
from tests.harness import sqlite as lab
from tests.stores.walk import Journal, take

TOKEN = "0011aabb"


@pytest.mark.fault("J5")
def test_who_opens_a_file_after_the_first_look_keeps_its_shape_from_changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    live = tmp_path / "data" / "live.db"
    store = lab.store_at(live, tmp_path)
    lab.make(live, 30, page_size=1024)
    folder, record = take(store, tmp_path / "set")
    live.unlink()
    lab.make(live, 40)
    place, before = store.place(TOKEN, None), live.read_bytes()
    store.stage(folder, record, place)
    monkeypatch.setattr(switching, "refuse_others", lambda *_, **__: None)  # as if nobody had been there then
    with lab.program(lab.OPENER, live) as application, pytest.raises(Failed, match=rf"pid {application.pid}"):
        store.switch(place, Journal())
    assert live.read_bytes() == before
    store.switch(place, Journal())
    assert lab.ask(live, "pragma page_size") == [(1024,)], "the control: alone, it is changed"


@pytest.mark.fault("E-19")
def test_what_lies_beside_a_name_without_a_database_is_set_aside_before_a_file_takes_the_name(tmp_path: Path) -> None:
    place = Place.named("main", tmp_path / "live.db", TOKEN, None)
    stale = [databases.beside(place.live, suffix) for suffix in databases.SUFFIXES]
    for path in stale:
        path.write_bytes(b"stale")
    lab.make(place.near, 30)
    arrival.arrive(place)
    assert [path.name for path in stale if path.exists()] == []
    assert lab.ask(place.live, "select count(*) from papers") == [(30,)]


@pytest.mark.fault("J4")
def test_a_switch_that_a_reader_is_in_the_way_of_comes_to_an_end(tmp_path: Path) -> None:
    source, live = lab.make(tmp_path / "new.db", 50), lab.make(tmp_path / "live.db", 90)
    overwriting = Overwriting(source, live, tmp_path / "old.db", lambda: None, patience_s=0.3)
    with lab.program(lab.READER, live):
        pid = os.fork()
        if pid == 0:
            try:
                overwriting.run()
            except Failed:
                os._exit(3)
            finally:
                os._exit(1)
        assert ended_within(15, pid) == 3


def ended_within(seconds: float, pid: int) -> int | None:
    """A child's exit code; None, and its end, where it goes on for longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None

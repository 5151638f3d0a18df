"""What a store says is done is on the disk: a kill never shows what is not, and a power cut only where nothing else was written since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.stores.exchange import switch_entry, switch_entry_back
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Store
from storekeeper.stores.sqlite import arrival, rawfiles
from storekeeper.stores.sqlite.overwriting import Overwriting
from tests.harness import sqlite as lab
from tests.harness.chroma import Keeper, execute
from tests.harness.durability import Synced
from tests.harness.stacks import make_lab
from tests.harness.trees import store_at
from tests.stores.walk import Journal, take

TOKEN = "0123abcd"
KINDS = ("main", "papers", "vectors")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind whose files are ours to make durable, below `room`."""
    room = tmp_path / "room"
    room.mkdir()
    if request.param == "vectors":
        execute(room / "vectors", "load(collection('notes'), 50, 4)")
        yield Keeper(room / "vectors", tmp_path / "keeper", nobody_uses=True).store
        return
    made = make_lab(room, sqlites=1, services=0)
    made.write("one")
    yield made.context.stores[request.param]
    made.close()


@pytest.mark.fault("E-2", "J2")
def test_what_is_staged_is_durable_before_it_is_said_to_be_staged(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "room" / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder, record = take(store, tmp_path / "set")
    synced = Synced(monkeypatch)
    store.stage(folder, record, store.place(TOKEN, elsewhere))
    assert any(path.is_file() for path in elsewhere.rglob("*")), "nothing was staged there"
    assert synced.lacking(elsewhere) == []


@pytest.mark.fault("E-2", "J2")
def test_names_that_a_switch_or_its_way_back_changed_are_durable_before_it_returns(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = take(store, tmp_path / "set")
    place, journal, synced = store.place(TOKEN, None), Journal(), Synced(monkeypatch)
    store.stage(folder, record, place)
    synced.trust(tmp_path / "room")
    store.switch(place, journal)
    assert synced.lacking(tmp_path / "room", files=False) == []
    store.switch_back(place, journal)
    assert synced.lacking(tmp_path / "room", files=False) == []


@pytest.mark.fault("E-2", "J2")
@pytest.mark.parametrize("back", [False, True], ids=["the switch", "the way back"])
def test_a_switched_directory_is_durable_on_all_sides_before_the_switch_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    names = {name: tmp_path / name / "entry" for name in ("live", "stage", "old")}
    for name in names.values():
        name.parent.mkdir()
    for name in ("live", "stage"):
        names[name].mkdir()
    journal, synced = Journal(), Synced(monkeypatch)
    synced.trust(tmp_path)
    switch_entry(names["live"], names["stage"], names["old"], journal, "entry")
    assert synced.lacking(tmp_path) == []
    if back:
        switch_entry_back(names["live"], names["stage"], names["old"], journal, "entry")
        assert synced.lacking(tmp_path) == []


@pytest.mark.fault("E-2", "J2")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_old_side_of_a_sqlite_file_is_durable_before_the_live_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    (tmp_path / "kept").mkdir()
    source, live, saved = lab.make(tmp_path / "new.db", 50), lab.make(tmp_path / "live.db", 90, mode=mode), tmp_path / "kept" / "old.db"
    before, synced, announced = lab.ask(live, "select count(*) from papers"), Synced(monkeypatch), []

    def announce() -> None:
        announced.append((synced.has(saved), synced.has(saved.parent)))

    Overwriting(source, live, saved, announce).run()
    assert announced == [(True, True)]
    assert lab.ask(saved, "select count(*) from papers") == before


@pytest.mark.fault("E-2", "J2")
def test_a_sqlite_file_that_comes_from_another_file_system_is_durable_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, synced, near = lab.make(tmp_path / "stage.db", 50), Synced(monkeypatch), tmp_path / "near"
    near.mkdir()
    arrival._copy(source, near / "live.db")
    assert synced.lacking(near) == []


@pytest.mark.fault("E-9", "J2")
def test_a_raw_copy_that_is_staged_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room").mkdir()
    made, synced = make_lab(tmp_path / "room", sqlites=1, services=0), Synced(monkeypatch)
    made.write("one")
    live, staged = made.context.stores["main"], tmp_path / "staged"
    _, record = take(live, tmp_path / "set")
    raw = tmp_path / "raw"
    raw.mkdir()
    staged.mkdir()
    details = live.raw_copy(StoreFolder(raw, None, lambda _: None))
    rawfiles.stage(raw, replace(record, details=details), staged / "main.db", keep_owners=False)
    made.close()
    assert synced.lacking(staged) == []


# --- trees of files ---


@pytest.fixture
def tree(tmp_path: Path) -> tuple[FilesStore, Path]:
    """A store whose root has something excluded in a covered directory, which a switch carries to the side that comes in."""
    root = tmp_path / "room" / "root"
    for name in ("papers/a.pdf", "papers/cache/one", "papers/cache/deep/two"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return store_at(root, tmp_path / "keeper", exclude=("papers/cache",)), root


@pytest.mark.fault("E-2", "J2")
def test_what_a_switch_carries_over_is_durable_in_both_places(
    tree: tuple[FilesStore, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, root = tree
    folder, record = take(store, tmp_path / "set")
    place, synced = store.place(TOKEN, None), Synced(monkeypatch)
    store.stage(folder, record, place)
    synced.trust(tmp_path / "room")
    store.switch(place, Journal())
    assert (root / "papers" / "cache" / "deep" / "two").exists()
    assert synced.lacking(tmp_path / "room", files=False) == []


@pytest.mark.fault("E-1", "J2")
def test_the_plan_of_a_switch_is_durable_before_the_first_name_moves(
    tree: tuple[FilesStore, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the inodes by which a crash is taken up: without it nobody knows which side a name carries."""
    store, _ = tree
    folder, record = take(store, tmp_path / "set")
    place, synced, durable_plans = store.place(TOKEN, None), Synced(monkeypatch), []
    store.stage(folder, record, place)
    hidden, exchange = Path(place["places"][0]["hidden"]), durable.exchange

    def look_and_exchange(first: Path, second: Path) -> None:
        durable_plans.append((synced.has(hidden / "plan.jsonl"), synced.has(hidden)))
        exchange(first, second)

    monkeypatch.setattr(durable, "exchange", look_and_exchange)
    store.switch(place, Journal())
    assert durable_plans == [(True, True)]

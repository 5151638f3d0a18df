"""A switch of a tree of files, or its way back, that is killed or loses power at any change of a name: both ways are open."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.host.tree import remove
from storekeeper.outcomes import StorekeeperError
from storekeeper.stores.files import foreseeing
from storekeeper.stores.files.store import FilesStore
from tests.harness.powercut import PowerCut
from tests.harness.trees import store_at
from tests.stores.files_scene import ENTRIES, EXCLUDED, Case, dies_at, make_case
from tests.stores.walk import Journal


def again(case: Case) -> FilesStore:
    """The store as a new process would open it."""
    include = case.store._scope.include
    return store_at(case.root, case.root.parent, include=include, exclude=EXCLUDED)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fsync: SIGKILL takes nothing that was written, the power cuts below do. And nobody is looked for: these trees are new."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(foreseeing, "refuse_holders", lambda *_, **__: None)


def points_of(tmp_path: Path, include: tuple[str, ...], way: str) -> int:
    """At how many changes of a name that way of a switch could be killed. After each, both ways from there end where they should."""
    for number in range(200):
        ends = []
        for goal in ("new", "old"):
            room = tmp_path / f"{number}-{goal}"
            room.mkdir()
            case = make_case(room, include)
            if way == "switch_back":
                case.store.switch(case.place, Journal())
            ends.append(dies_at(number, lambda case=case: getattr(case.store, way)(case.place, Journal())))
            store = again(case)
            (store.switch if goal == "new" else store.switch_back)(case.place, Journal())
            assert case.side(killed=True) == goal, f"killed before change {number}"
            shutil.rmtree(room)
        if not any(ends):
            return number
    return 200


@pytest.mark.fault("E-1")
def test_a_switch_killed_before_any_change_of_a_name_can_be_finished_or_gone_back_from(
    tmp_path: Path, include: tuple[str, ...], means: None, quick: None
) -> None:
    assert points_of(tmp_path, include, "switch") > 8, "a run that was never interrupted proves nothing"


@pytest.mark.fault("E-1")
def test_a_way_back_killed_before_any_change_of_a_name_can_be_finished_or_turned_round(
    tmp_path: Path, include: tuple[str, ...], quick: None
) -> None:
    assert points_of(tmp_path, include, "switch_back") > 8, "a run that was never interrupted proves nothing"


@pytest.mark.fault("E-1")
def test_a_switch_and_its_way_back_both_killed_leave_both_ways_open(
    tmp_path: Path, include: tuple[str, ...], means: None, quick: None
) -> None:
    chance, deaths = random.Random(7), 0
    for number in range(15):
        first, second = chance.randrange(30), chance.randrange(15)
        for goal in ("new", "old"):
            room = tmp_path / f"{number}-{goal}"
            room.mkdir()
            case = make_case(room, include)
            deaths += dies_at(first, lambda case=case: case.store.switch(case.place, Journal()))
            deaths += dies_at(second, lambda case=case: case.store.switch_back(case.place, Journal()))
            store = again(case)
            store.switch(case.place, Journal())
            assert case.side(killed=True) == "new", f"killed before changes {first} and {second}"
            if goal == "old":
                store.switch_back(case.place, Journal())
                assert case.side(killed=True) == "old", f"killed before changes {first} and {second}"
            shutil.rmtree(room)
    assert deaths > 20


@pytest.mark.control("E-1")
def test_control_switching_by_names_alone_after_a_kill_mixes_the_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the inodes, a second run exchanges once more what the first had exchanged already."""
    case = make_case(tmp_path, ENTRIES)
    live, new = case.root / "raw", Path(case.place["places"][0]["hidden"]) / "new" / "raw"
    durable.exchange(new, live)  # and here it was killed, before it had noted so
    durable.exchange(new, live)
    assert (live / "1.pdf").read_text() == "second", "the switch that was asked for has been undone"


@pytest.mark.fault("E-2")
@pytest.mark.root
def test_after_a_power_cut_at_any_step_of_a_switch_both_ways_are_open(tmp_path: Path) -> None:
    goals = 0
    with PowerCut(tmp_path / "power") as power:
        for number in (0, 3, 5, 7, 9, 12, 15, 1000):
            room = power.disk / f"case-{number}"
            room.mkdir()
            case = make_case(room, ENTRIES)
            os.sync()
            dies_at(number, lambda case=case: case.store.switch(case.place, Journal()))
            left = power.cut()
            for goal in ("new", "old"):
                after = _moved(case, power.disk, left)
                try:
                    (after.store.switch if goal == "new" else after.store.switch_back)(after.place, Journal())
                except StorekeeperError as error:
                    raise AssertionError(f"after a cut at {number} the way to the {goal} side is shut: {error}") from error
                assert after.side(killed=True) == goal, f"cut at {number}"
                goals += 1
            remove(room)
    assert goals == 16


@pytest.mark.fault("E-2")
@pytest.mark.root
def test_what_a_switch_has_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    with PowerCut(tmp_path / "power") as power:
        case = make_case(power.disk, ENTRIES)
        os.sync()  # what the application itself has never fsynced is not ours to keep
        case.store.switch(case.place, Journal())
        assert _moved(case, power.disk, power.cut()).side() == "new"


@pytest.mark.control("E-2")
@pytest.mark.root
def test_control_without_fsync_a_power_cut_takes_what_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PowerCut(tmp_path / "power") as power:
        monkeypatch.setattr(os, "fsync", lambda _: None)
        case = make_case(power.disk, ENTRIES)
        case.store.switch(case.place, Journal())
        left = power.cut()
        assert not (left / "live" / "raw" / "1.pdf").is_file() or (left / "live" / "raw" / "1.pdf").read_text() != "first raw/1.pdf"


def _moved(case: Case, disk: Path, left: Path) -> Case:
    """The same case on the disk that a cut has left."""
    place = {"places": [{key: value.replace(str(disk), str(left)) for key, value in each.items()} for each in case.place["places"]]}
    root = left / case.root.relative_to(disk)
    store = store_at(root, root.parent, include=case.store._scope.include, exclude=EXCLUDED)
    return Case(root, store, case.folder, case.record, place, case.before, case.changed)

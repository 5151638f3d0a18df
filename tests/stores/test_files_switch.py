"""Switching files: old whole or new whole, from whatever point it was interrupted, and nothing that is not covered is touched."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable
from storekeeper.host.tree import remove
from storekeeper.outcomes import Failed, Refused, StorekeeperError
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.files import foreseeing
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord
from tests.harness.powercut import PowerCut
from tests.harness.stacks import in_child
from tests.harness.trees import many, snapshot, store_at
from tests.stores.walk import Journal, take

TOKEN = "0123abcd"
KILLED = 77

WHOLE: tuple[str, ...] = ()
ENTRIES = ("raw", "processed/markdown", "index.json", "gone", "late")
EXCLUDED = ("cache", "raw/cache", "processed/markdown/tmp", "only-live/cache")
OPERATIONS = ("rename", "mkdir", "rmdir", "utime")


@dataclass
class Case:
    """A live tree that has changed since its set was taken, and that set, staged. `before` and `changed` are the two sides."""

    root: Path
    store: FilesStore
    folder: Path
    record: StoreRecord
    place: Facts
    before: dict[bytes, Any]
    changed: dict[bytes, Any]

    def side(self, *, killed: bool = False) -> str:
        """Which side is live: old, new, or a mix of both. What is excluded has to be there in any case.

        After a kill the times of directories that something excluded was moved from or to may be those of the move.
        """
        now, before, changed = (_untimed(each) if killed else each for each in (covered(self.root), self.before, self.changed))
        excluded = {inner: (self.root / inner / "kept").read_text() for inner in EXCLUDED}
        assert excluded == dict.fromkeys(EXCLUDED, "latest"), "what is excluded stays as it is"
        return "new" if now == before else "old" if now == changed else f"mixed: {now.keys() ^ before.keys()}"


def covered(root: Path) -> dict[bytes, Any]:
    """All that is covered, without directories that only lead to something excluded, and without times that moving things changes."""
    excluded = tuple(os.fsencode(inner) for inner in EXCLUDED)
    leading = {b"only-live", b"processed"}
    found = snapshot(root)
    return {inner: _lasting(what) for inner, what in found.items() if not inner.startswith(excluded) and inner not in leading}


def _lasting(what: tuple[Any, ...]) -> tuple[Any, ...]:
    mode, uid, gid, mtime, contents, _, xattrs = what
    return (mode, uid, gid, mtime, contents, xattrs)


def _untimed(side: dict[bytes, Any]) -> dict[bytes, Any]:
    return {inner: (*what[:3], None, *what[4:]) if inner in (b"raw", b"processed/markdown") else what for inner, what in side.items()}


def make_case(room: Path, include: tuple[str, ...]) -> Case:
    root = room / "live"
    for inner in ("raw", "raw/deep", "processed/markdown", "cache", "raw/cache", "processed/markdown/tmp", "gone"):
        (root / inner).mkdir(parents=True, exist_ok=True)
    for inner in ("raw/1.pdf", "raw/deep/2.pdf", "processed/markdown/1.md", "index.json", "gone/x"):
        (root / inner).write_text(f"first {inner}")
    for inner in EXCLUDED[:3]:
        (root / inner / "kept").write_text("earlier")
    store = store_at(root, room, include=[*include, *(["only-live"] if include else [])], exclude=EXCLUDED)
    folder, record = take(store, room / "sets")
    before = covered(root)
    (root / "raw/1.pdf").write_text("second")
    (root / "raw/new.pdf").write_text("second")
    (root / "index.json").write_text("second, longer")
    shutil.rmtree(root / "gone")
    (root / "only-live" / "cache").mkdir(parents=True)
    (root / "only-live" / "x").write_text("second")
    (root / "late").write_text("only live")
    for inner in EXCLUDED:
        (root / inner / "kept").write_text("latest")
    place = store.place(TOKEN, None)
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    return Case(root, store, folder, record, place, before, covered(root))


def again(case: Case) -> FilesStore:
    """The store as a new process would open it."""
    include = case.store._scope.include
    return store_at(case.root, case.root.parent, include=include, exclude=EXCLUDED)


def dies_at(number: int, action: Callable[[], object]) -> bool:
    """Run an action in a child that dies, as by SIGKILL, before its `number`-th change of a name. Whether it died."""

    def run() -> None:
        count = iter(range(1_000_000))

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*words: Any, **more: Any) -> Any:
                if next(count) == number:
                    os._exit(KILLED)
                return real(*words, **more)

            return call

        for name in OPERATIONS:
            setattr(os, name, dying(getattr(os, name)))
        durable.exchange = dying(durable.exchange)
        action()

    code = in_child(run)
    assert code in (0, KILLED)
    return code == KILLED


def cannot_exchange(first: Path, second: Path) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(first), None, str(second))


@pytest.fixture(params=[WHOLE, ENTRIES], ids=["the whole root", "included entries"])
def include(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(params=["exchange", "two renames"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "two renames":
        monkeypatch.setattr(durable, "exchange", cannot_exchange)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fsync: SIGKILL takes nothing that was written, the power cuts below do. And nobody is looked for: these trees are new."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(foreseeing, "refuse_holders", lambda *_, **__: None)


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


@pytest.mark.fault("E-1")
def test_a_switch_killed_before_any_change_of_a_name_can_be_finished_or_gone_back_from(
    tmp_path: Path, include: tuple[str, ...], means: None, quick: None
) -> None:
    points = 0
    for number in range(200):
        ends = []
        for goal in ("new", "old"):
            room = tmp_path / f"{number}-{goal}"
            room.mkdir()
            case = make_case(room, include)
            ends.append(dies_at(number, lambda case=case: case.store.switch(case.place, Journal())))
            store = again(case)
            (store.switch if goal == "new" else store.switch_back)(case.place, Journal())
            assert case.side(killed=True) == goal, f"killed before change {number}"
            shutil.rmtree(room)
        if not any(ends):
            break
        points += 1
    assert points > 8, "a run that was never interrupted proves nothing"


@pytest.mark.fault("E-1")
def test_a_way_back_killed_before_any_change_of_a_name_can_be_finished_or_turned_round(
    tmp_path: Path, include: tuple[str, ...], quick: None
) -> None:
    points = 0
    for number in range(200):
        ends = []
        for goal in ("old", "new"):
            room = tmp_path / f"{number}-{goal}"
            room.mkdir()
            case = make_case(room, include)
            case.store.switch(case.place, Journal())
            ends.append(dies_at(number, lambda case=case: case.store.switch_back(case.place, Journal())))
            store = again(case)
            (store.switch if goal == "new" else store.switch_back)(case.place, Journal())
            assert case.side(killed=True) == goal, f"killed before change {number}"
            shutil.rmtree(room)
        if not any(ends):
            break
        points += 1
    assert points > 8, "a run that was never interrupted proves nothing"


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

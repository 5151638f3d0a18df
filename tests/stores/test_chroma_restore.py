"""Making a staged Chroma directory live, and the way back: crashes at every step, mount points, servers that were not restarted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.chroma import catalogue, layout, store
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.dumping import CONTENT, LISTING
from storekeeper.stores.chroma.place import Place
from storekeeper.stores.lines import read_lines
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord
from tests.harness.chroma import Keeper, Log, execute, serving

TOKEN = "0123abcd"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "store"
    execute(directory, "load(collection('papers', sync=500), 1200, 8); load(collection('notes'), 50, 4)")
    return directory


@pytest.fixture(scope="module")
def later(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same directory some time later: without `notes`, by which it is told apart."""
    directory = Path(shutil.copytree(made, tmp_path_factory.mktemp("later") / "store"))
    execute(directory, "client.delete_collection('notes'); load(collection('papers'), 100, 8, first=5000)")
    return directory


@pytest.fixture
def keeper(made: Path, tmp_path: Path) -> Keeper:
    return Keeper(Path(shutil.copytree(made, tmp_path / "store")), tmp_path / "room")


@pytest.fixture
def kept(keeper: Keeper, later: Path) -> tuple[Path, StoreRecord]:
    """A set of what was there, and the live directory as it is later."""
    folder, record, _ = keeper.backup()
    shutil.rmtree(keeper.directory)
    shutil.copytree(later, keeper.directory)
    return folder, record


def _names(directory: Path) -> set[str]:
    with catalogue.open_catalogue(directory, sealed=True) as found:
        return {each.key for each in found.collections()}


OLD, NEW = {"papers"}, {"papers", "notes"}


def test_a_restore_puts_back_what_the_set_holds_and_the_way_back_what_was_there(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    before = content_of(keeper.directory)
    foresight = keeper.store.foresee(folder, record, None)
    assert (foresight.counts_now, foresight.counts_after) == ({"papers": 1300}, {"papers": 1200, "notes": 50})
    place, log = keeper.store.place(TOKEN, None), Log()
    staged = keeper.store.stage(folder, record, place)
    assert (staged.counts, staged.digests) == (record.counts, record.digests)
    assert content_of(keeper.directory) == before  # nothing live is touched
    keeper.store.switch(place, log)
    keeper.store.probe(place, record)
    assert content_of(keeper.directory) == staged
    assert execute(keeper.directory, "say(client.get_collection('papers', embedding_function=None).count())") == [1200]
    assert content_of(Path(place["old"])) == before
    keeper.store.switch_back(place, log)
    assert content_of(keeper.directory) == before
    assert not Path(place["old"]).exists()
    keeper.store.discard_stage(place)
    keeper.store.discard_old(place)
    assert sorted(path.name for path in keeper.directory.parent.iterdir()) == ["room", "store"]


def test_staging_twice_or_after_a_crash_gives_the_same(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    place = keeper.store.place(TOKEN, None)
    Path(place["stage"]).mkdir()
    (Path(place["stage"]) / "half").write_bytes(b"of a stage that a crash cut")
    first = keeper.store.stage(folder, record, place)
    assert keeper.store.stage(folder, record, place) == first
    assert not (Path(place["stage"]) / "half").exists()


def test_modes_owners_and_times_come_back(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    place = keeper.store.place(TOKEN, None)
    keeper.directory.chmod(0o2750)
    keeper.store.stage(folder, record, place)
    assert stat.S_IMODE(Path(place["stage"]).stat().st_mode) == 0o2750
    recorded = {entry["path"]: entry for entry in _listed(folder)}
    for path, entry in layout.scan(Path(place["stage"])).items():
        wanted = recorded[path]
        assert (entry.mode, entry.uid, entry.gid, entry.mtime_ns) == tuple(wanted[key] for key in ("mode", "uid", "gid", "mtime_ns"))


def test_a_set_that_rotted_since_it_was_verified_is_never_staged_as_good(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    artefact = next((folder / CONTENT).glob(f"*/{layout.VECTORS}"))
    artefact.chmod(0o600)
    with open(artefact, "r+b") as file:
        file.seek(40)
        file.write(b"\xff")
    with pytest.raises(Failed, match="not what was recorded"):
        keeper.store.stage(folder, record, keeper.store.place(TOKEN, None))


@pytest.mark.parametrize("path", ["../outside", "/outside", "a/../../outside", "."])
def test_a_hostile_listing_writes_nothing_outside(path: str, keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    (folder / LISTING).chmod(0o600)
    (folder / LISTING).write_text(f'{{"path":"{path}","type":"directory","mode":493,"uid":0,"gid":0,"mtime_ns":0}}\n')
    with pytest.raises(Failed, match="no path inside"):
        keeper.store.stage(folder, record, keeper.store.place(TOKEN, None))
    assert not (keeper.directory.parent / "outside").exists()


def test_what_was_absent_is_absent_again_after_the_way_back(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    shutil.rmtree(keeper.directory)
    assert keeper.store.foresee(folder, record, None).counts_now is None
    place, log = keeper.store.place(TOKEN, None), Log()
    keeper.store.stage(folder, record, place)
    keeper.store.switch(place, log)
    keeper.store.probe(place, record)
    keeper.store.switch_back(place, log)
    assert keeper.store.is_absent()
    keeper.store.discard_stage(place)
    keeper.store.discard_old(place)


class _Killed(BaseException):
    """The program dies here."""


class _Deadly:
    """Counts the steps that a switch makes, and dies before or after the one it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
        self.steps = 0
        self.deadly: tuple[int, str] | None = None
        self._wrap(monkeypatch, os, "rename")
        self._wrap(monkeypatch, durable, "exchange")
        self._wrap(monkeypatch, durable, "make_directory")
        self._wrap(monkeypatch, log, "note")

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def step(*arguments: Any, **words: Any) -> Any:
            self.steps += 1
            if self.deadly == (self.steps, "before"):
                raise _Killed
            result = original(*arguments, **words)
            if self.deadly == (self.steps, "after"):
                raise _Killed
            return result

        monkeypatch.setattr(owner, name, step)


def _cannot_exchange(first: Path, second: Path) -> None:
    raise OSError(22, "Invalid argument", str(first), None, str(second))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["exchange", "two renames", "mount point"])
def test_a_switch_killed_at_any_step_ends_whole_on_either_side(
    how: str, when: str, keeper: Keeper, kept: tuple[Path, StoreRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind: killed at every step, then either finished or taken back; never a mix."""
    folder, record = kept
    if how == "two renames":
        monkeypatch.setattr(durable, "exchange", _cannot_exchange)
    if how == "mount point":
        monkeypatch.setattr("storekeeper.stores.chroma.place.os.path.ismount", lambda path: Path(path) == keeper.directory)
    deaths = 0
    for step in range(1, 200):
        killed = False
        for way in ("forward", "back"):
            killed = _walk(keeper, folder, record, (step, when), way, monkeypatch) or killed
        if not killed:
            break
        deaths += 1
    assert deaths >= 4


def _walk(keeper: Keeper, folder: Path, record: StoreRecord, deadly: tuple[int, str], way: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    place, log = keeper.store.place(TOKEN, None), Log()
    assert _names(keeper.directory) == OLD
    keeper.store.stage(folder, record, place)
    killed = False
    with monkeypatch.context() as patch:
        steps = _Deadly(patch, log)
        steps.deadly = deadly
        try:
            keeper.store.switch(place, log)
        except _Killed:
            killed = True
        steps.deadly = None
        if way == "forward":
            keeper.store.switch(place, log)
            keeper.store.probe(place, record)
            assert _names(keeper.directory) == NEW
            assert _names(Path(place["old"])) == OLD
        steps.steps, steps.deadly = 0, deadly
        try:
            keeper.store.switch_back(place, log)
        except _Killed:
            killed = True
        steps.deadly = None
        keeper.store.switch_back(place, log)
    assert _names(keeper.directory) == OLD
    keeper.store.discard_stage(place)
    keeper.store.discard_old(place)
    return killed


def test_a_stage_directory_on_another_file_system_or_nowhere_is_refused(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> None:
    folder, record = kept
    with pytest.raises(Refused, match="is not there"):
        keeper.store.foresee(folder, record, keeper.directory.parent / "nosuch")
    if os.stat("/dev/shm").st_dev != keeper.directory.stat().st_dev:
        with pytest.raises(Refused, match="another file system"):
            keeper.store.foresee(folder, record, Path("/dev/shm"))
    elsewhere = keeper.directory.parent / "elsewhere"
    elsewhere.mkdir()
    place, log = keeper.store.place(TOKEN, elsewhere), Log()
    assert Path(place["stage"]).parent == elsewhere
    keeper.store.stage(folder, record, place)
    keeper.store.switch(place, log)
    assert _names(keeper.directory) == NEW
    keeper.store.switch_back(place, log)
    assert _names(keeper.directory) == OLD


def test_a_backup_leaves_out_what_a_restore_keeps_inside_a_mount_point(keeper: Keeper) -> None:
    (keeper.directory / f"{layout.OURS}{TOKEN}.old").mkdir()
    (keeper.directory / f"{layout.OURS}{TOKEN}.old" / layout.DATABASE).touch()
    folder, _, _ = keeper.backup()
    assert list((folder / CONTENT).glob(f"{layout.OURS}*")) == []


@pytest.fixture
def switched(keeper: Keeper, kept: tuple[Path, StoreRecord]) -> Iterator[tuple[Keeper, Facts, StoreRecord]]:
    """A directory that was exchanged under a running server, as when somebody forgets to stop it."""
    folder, record = kept
    with serving(keeper.directory) as server:
        served = Keeper(keeper.directory, keeper.room, runtime=server, url=server.url)
        served.store.foresee(folder, record, None)  # with a runtime its own server may hold the directory
        place = served.store.place(TOKEN, None)
        served.store.stage(folder, record, place)
        served.store.switch(place, Log())
        yield served, place, record


@pytest.mark.fault("J11")
def test_a_server_that_was_not_restarted_after_the_switch_fails_the_probe(switched: tuple[Keeper, Facts, StoreRecord]) -> None:
    keeper, place, record = switched
    with pytest.raises(Failed, match="it reads the old directory on"):
        keeper.store.probe(place, record)
    runtime = keeper.store.runtime
    assert runtime is not None
    runtime.stop()
    with pytest.raises(Failed, match="does not run"):
        keeper.store.probe(place, record)
    runtime.start()
    keeper.store.probe(place, record)


@pytest.mark.fault("J11")
def test_a_server_without_a_runtime_is_asked_for_the_restored_collections(switched: tuple[Keeper, Facts, StoreRecord]) -> None:
    keeper, place, record = switched
    unsupervised = Keeper(keeper.directory, keeper.room, url=keeper.store.runtime.url)  # type: ignore[union-attr]
    with pytest.raises(Failed, match="does not know the restored collection notes"):
        unsupervised.store.probe(place, record)


@pytest.mark.control("J11")
def test_without_the_start_time_a_server_on_the_old_directory_looks_well(
    switched: tuple[Keeper, Facts, StoreRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: heartbeat, and the counts of collections that both sides have, are all in order."""
    keeper, place, record = switched
    monkeypatch.setattr(store.ChromaStore, "_check_restarted", lambda *_: None)
    both = StoreRecord(**{**vars(record), "counts": {"papers": 1200}})
    keeper.store.probe(place, both)


def test_a_server_that_does_not_answer_fails_preflight(keeper: Keeper) -> None:
    with pytest.raises(Failed, match="does not answer"):
        Keeper(keeper.directory, keeper.room, url="http://127.0.0.1:9").store.preflight()


@pytest.mark.fault("J11")
def test_a_crash_between_switch_and_probe_still_finds_the_server_that_was_not_restarted(
    switched: tuple[Keeper, Facts, StoreRecord],
) -> None:
    keeper, place, record = switched
    again = Keeper(keeper.directory, keeper.room, runtime=keeper.store.runtime, url=keeper.store.runtime.url)  # type: ignore[arg-type,union-attr]
    with pytest.raises(Failed, match="it reads the old directory on"):
        again.store.probe(place, record)


def _listed(folder: Path) -> list[dict[str, Any]]:
    return list(read_lines(folder / LISTING))


def test_the_names_of_a_place_do_not_clash(keeper: Keeper) -> None:
    place = Place.of(keeper.store.place(TOKEN, None))
    assert place.stage.name == f".vectors.storekeeper-{TOKEN}"
    assert place.old.name == f".vectors.storekeeper-{TOKEN}.old"
    assert len({place.live, place.stage, place.old}) == 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_directory_that_is_a_mount_point_is_exchanged_by_its_children(made: Path, tmp_path: Path) -> None:
    """The root of a container's volume: its name cannot be exchanged (EBUSY), and what is beside it is another file system."""
    live = tmp_path / "volume"
    live.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", live], check=True)
    try:
        shutil.copytree(made, live, dirs_exist_ok=True)
        keeper = Keeper(live, tmp_path / "room")
        folder, record, _ = keeper.backup()
        execute(live, "client.delete_collection('notes')")
        with pytest.raises(OSError, match="busy"):  # control
            durable.exchange(live, live.with_name("room"))
        keeper.store.foresee(folder, record, None)
        place, log = keeper.store.place(TOKEN, None), Log()
        keeper.store.stage(folder, record, place)
        keeper.store.switch(place, log)
        keeper.store.probe(place, record)
        assert _names(live) == NEW
        keeper.store.switch_back(place, log)
        assert _names(live) == OLD
        keeper.store.discard_stage(place)
        keeper.store.discard_old(place)
        assert [path.name for path in live.iterdir() if path.name.startswith(layout.OURS)] == []
    finally:
        subprocess.run(["umount", live], check=True)

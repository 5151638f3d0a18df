"""A restored SQLite file becomes live in one step, whatever reads, writes, crashes or lies about meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from copy import copy
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.sqlite import switching
from tests.harness import sqlite as lab
from tests.harness.campaign import Campaign
from tests.harness.sqlite_switch import FileLog, Killer
from tests.stores import walk

MODES = ("wal", "delete")
TOKEN = "0011aabb"
FACTS = "select min(title), max(title), count(*) from papers"


class Scene:
    """A live file of 400 `old` rows, a set of 300 `new` rows, and the store that will switch them."""

    def __init__(self, directory: Path, mode: str, *, patience_s: float = 5.0, stage_dir: Path | None = None, **pragmas: object) -> None:
        self.live = directory / "data" / "live.db"
        self.live.parent.mkdir()
        self.store = lab.store_at(self.live, directory, patience_s=patience_s)
        lab.make(self.live, 300, mode=mode, word="new", **pragmas)
        self.folder, self.record = walk.take(self.store, directory / "set")
        self.live.unlink()
        lab.make(self.live, 400, mode=mode, word="old")
        self.old = lab.ask(self.live, FACTS)
        self.new = lab.ask(self.folder / "database.sqlite", FACTS)
        self.place = self.store.place(TOKEN, stage_dir)
        self.log = walk.Journal()

    def again(self, directory: Path) -> Scene:
        """The same at the beginning, in another directory."""
        scene = copy(self)
        scene.live = directory / "data" / "live.db"
        scene.live.parent.mkdir(parents=True)
        if self.live.exists():
            shutil.copy(self.live, scene.live)
        scene.store = lab.store_at(scene.live, directory)
        scene.place = scene.store.place(TOKEN, None)
        scene.log = walk.Journal()
        scene.stage()
        return scene

    def stage(self) -> None:
        self.store.stage(self.folder, self.record, self.place)

    def switch(self) -> None:
        self.store.switch(self.place, self.log)

    def switch_back(self) -> None:
        self.store.switch_back(self.place, self.log)

    def now(self) -> list[tuple]:
        assert lab.ask(self.live, "pragma integrity_check") == [("ok",)]
        return lab.ask(self.live, FACTS)

    def companions(self) -> list[str]:
        return sorted(name for name in os.listdir(self.live.parent) if name != "live.db")


@pytest.fixture(params=MODES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    scene = Scene(tmp_path, request.param)
    scene.stage()
    return scene


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


# --- where nothing is live


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


# --- crashes


class Crashing(walk.Journal):
    """A journal under which the program ends at the note of this number, just before it is written or just after."""

    def __init__(self, number: int, *, written: bool) -> None:
        super().__init__()
        self.left, self.written = number, written

    def note(self, step: str, **facts: object) -> None:
        self.left -= 1
        if self.left < 0 and not self.written:
            raise walk.Crash(step)
        super().note(step, **facts)
        if self.left < 0:
            raise walk.Crash(step)


def crash(scene: Scene, direction: str, number: int, *, written: bool) -> bool:
    """Whether the switch got as far as that note. What was noted before is kept, as the journal on disk is."""
    dying = Crashing(number, written=written)
    dying.notes = scene.log.notes
    try:
        getattr(scene.store, direction)(scene.place, dying)
    except walk.Crash:
        return True
    return False


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: many small switches without waiting for a disk."""
    directory = Path("/dev/shm", f"storekeeper-{os.getpid()}")
    if not directory.parent.is_dir():
        yield tmp_path
        return
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("then", ["switch", "switch_back"])
@pytest.mark.parametrize("direction", ["switch", "switch_back"])
@pytest.mark.parametrize("kind", ["wal", "delete", "shape-wal", "absent"])
def test_a_switch_that_ended_at_any_note_is_finished_or_undone(in_memory: Path, kind: str, direction: str, then: str) -> None:
    reached = 0
    begin = Scene(in_memory, kind.removeprefix("shape-").replace("absent", "delete"), **({"page_size": 1024} if "shape" in kind else {}))
    if kind == "absent":
        begin.live.unlink()
    for number in range(6):
        for written in (False, True):
            scene = begin.again(in_memory / f"{number}{written}")
            if direction == "switch_back":
                scene.switch()
            if not crash(scene, direction, number, written=written):
                break
            reached += 1
            if kind != "absent":
                assert scene.now() in (scene.old, scene.new)
            getattr(scene, then)()
            getattr(scene, then)()
            if kind == "absent" and then == "switch_back":
                assert scene.store.is_absent()
            else:
                assert scene.now() == (scene.new if then == "switch" else scene.old)
            scene.store.discard_stage(scene.place)
            scene.store.discard_old(scene.place)
            assert [name for name in scene.companions() if name.startswith(".")] == []
    assert reached >= 4


@pytest.mark.parametrize("written", [False, True], ids=["before the commit", "after the commit"])
def test_what_an_application_wrote_after_a_crash_does_not_hide_which_side_is_live(scene: Scene, written: bool) -> None:
    """The counter that SQLite adds one to for a restore, it also adds one to for an application's CREATE TABLE."""
    version = lab.ask(scene.live, "pragma schema_version")[0][0]
    assert crash(scene, "switch", 1 if written else 0, written=not written)
    if not written:
        lab.tell(scene.live, "create table since (x)")
        assert lab.ask(scene.live, "pragma schema_version") == [(version + 1,)]  # the control: just what a finished switch leaves
    else:
        assert lab.ask(scene.live, "pragma schema_version") == [(version + 1,)]
    lab.tell(scene.live, "insert into papers (title) values ('since')")
    scene.switch()
    kept = Path(scene.place["old"])
    live = {title for (title,) in lab.ask(scene.live, "select title from papers")}
    old = {title for (title,) in lab.ask(kept, "select title from papers")}
    assert "new 0" in live
    assert "old 0" in old
    assert "since" in (live if written else old)
    assert lab.ask(kept, "select count(*) from sqlite_master where name = 'since'") == [(0 if written else 1,)]


def test_a_marker_that_a_transaction_kept_from_being_dropped_is_dropped_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, "delete")
    scene.stage()
    drop = switching.drop_markers
    monkeypatch.setattr(switching, "drop_markers", lambda live: False)
    scene.switch()
    monkeypatch.setattr(switching, "drop_markers", drop)
    markers = "select count(*) from sqlite_master where name glob '_storekeeper_switch_*'"
    assert lab.ask(scene.live, markers) == [(1,)]
    scene.store.probe(scene.place, scene.record)
    with closing(sqlite3.connect(scene.live, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        assert not drop(scene.live)
    scene.store.discard_old(scene.place)
    assert lab.ask(scene.live, markers) == [(0,)]


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


CALLS = {"pwrite64": 3, "fdatasync": 1, "unlink": 1}  # of five kills, how many are at each of these


@pytest.mark.fault("J3")
@needs_strace
@pytest.mark.parametrize("mode", MODES)
def test_a_switch_killed_at_any_write_leaves_the_old_file_whole_or_the_new_one(in_memory: Path, mode: str, campaign: Campaign) -> None:
    begin, chance = Scene(in_memory, mode), random.Random(7)
    killed, seen, mixed, missed = 0, set(), [], 0
    for call, share in CALLS.items():
        most = calls_of(begin, in_memory / f"count-{call}", call)
        with Killer(in_memory, call, most + 1) as killer:
            for trial in range(campaign.trials(2, 50) * share):
                number = 1 + chance.randrange(most)
                scene = begin.again(in_memory / f"{call}-{trial}")
                log = scene.live.parent.parent / "log"
                if killer.switch(scene.place, log, number) != -signal.SIGKILL:
                    missed += 1
                    continue
                killed += 1
                side = switched_side(scene, FileLog(log))
                seen.add(side)
                mixed += [] if side else [(call, number)]
                shutil.rmtree(scene.live.parent.parent)
    campaign.found(killed, f"kills of a switch over a live file ({mode}), {missed} came too late", f"{len(mixed)} mixed or lost states")
    assert killed > missed
    assert mixed == []
    assert "old" in seen


def calls_of(begin: Scene, directory: Path, call: str) -> int:
    """How many of these system calls a whole switch makes."""
    scene, trace = begin.again(directory), directory / "trace"
    order = {"place": scene.place, "log": str(directory / "log"), "call": call, "skip": 0, "scratch": str(directory / "scratch")}
    argv = ["strace", "-f", "-qq", "-o", trace, "-e", f"trace={call}", sys.executable, "-m", "tests.harness.sqlite_switch"]
    subprocess.run([*map(str, argv)], cwd=lab.ROOT, input=json.dumps(order), text=True, capture_output=True, check=True)
    assert scene.now() == scene.new
    by_process: dict[str, int] = {}
    for line in trace.read_text().splitlines():
        if "(" in line:
            by_process[line.split()[0]] = by_process.get(line.split()[0], 0) + 1
    return max(by_process.values())


def switched_side(scene: Scene, log: FileLog) -> str:
    """Which side a killed switch left, whole; the empty word where it is neither, or where either way from there loses a side."""
    found = scene.now()
    side = "old" if found == scene.old else "new" if found == scene.new else ""
    scene.store.switch(scene.place, log)
    whole = scene.now() == scene.new and lab.ask(Path(scene.place["old"]), FACTS) == scene.old
    scene.store.switch_back(scene.place, log)
    return side if whole and scene.now() == scene.old else ""


@pytest.mark.control("J3")
@needs_strace
def test_control_a_copy_killed_at_a_write_leaves_a_mixture(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "delete")
    source = """
import os, sys
target = os.open(sys.argv[2], os.O_WRONLY)
for number, page in enumerate(iter(lambda: sys.stdin.buffer.read(4096), b"")):
    os.pwrite(target, page, number * 4096)
"""
    argv = ["strace", "-qq", "-o", tmp_path / "trace", "-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=KILL:when=20"]
    with open(scene.folder / "database.sqlite", "rb") as artefact:
        subprocess.run([*map(str, argv), sys.executable, "-c", source, "-", scene.live], stdin=artefact, check=False)
    try:
        found = (lab.ask(scene.live, "pragma integrity_check"), lab.ask(scene.live, FACTS))
    except sqlite3.DatabaseError:
        found = None
    assert found not in (([("ok",)], scene.old), ([("ok",)], scene.new))

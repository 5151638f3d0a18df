"""A switch of a SQLite file that ends at any note or any write: one side is live and whole, and both ways are open."""

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
from pathlib import Path

import pytest

from storekeeper.stores.sqlite import switching
from tests.harness import sqlite as lab
from tests.harness.campaign import Campaign
from tests.harness.sqlite_switch import FileLog, Killer
from tests.stores import walk
from tests.stores.sqlite_scene import FACTS, MODES, Scene


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

"""Removing sets on a real disk: nothing is lost, nothing foreign is touched, and a kill leaves every set whole or gone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Busy, Failed, Refused
from storekeeper.sets import pruning
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.pruning import Pruned
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.stack.model import Keep
from tests.harness.campaign import Campaign
from tests.harness.sets import START, open_sets, publish, publish_daily, tampered

NEWEST = Keep(days=0, daily=0, weekly=0, monthly=0, at_least=1)
LATER = START + timedelta(days=60)
prune = partial(pruning.prune, confirmed=True)  # most policies here keep one set of many


def damage(entry: SetEntry) -> None:
    tampered(entry.path / "papers" / "notes.bin").write_bytes(b"rot")


def picture(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below a folder, to the bit and the time."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
    return found


def ids(sets: StackSets) -> list[int]:
    return [entry.sequence for entry in sets.entries()]


def removed(done: Pruned) -> list[str]:
    return [set_id for set_id, _ in done.removed]


def test_the_dry_run_says_what_the_run_does_and_changes_nothing(sets: StackSets, source: Path):
    for day in range(12):
        publish(sets, source, START + timedelta(days=day), share=day > 2)
    before = picture(sets.path)
    keep = NEWEST.model_copy(update={"daily": 2, "weekly": 3})
    foreseen = prune(sets, keep, LATER, dry_run=True)
    assert picture(sets.path) == before
    assert prune(sets, keep, LATER) == foreseen
    assert len(foreseen.removed) == 9
    assert ids(sets) == [4, 11, 12]


def test_freed_bytes_are_what_the_disk_gets_back(sets: StackSets, source: Path):
    """Shared files are freed with their last link; the control: summing up sizes says more than there was."""

    def held() -> int:
        files = [path.lstat() for path in sets.path.rglob("*") if path.is_file()]
        return sum({status.st_ino: status.st_size for status in files}.values())

    for day in range(6):
        publish(sets, source, START + timedelta(days=day), share=day not in (0, 3))
    before = held()
    naive = sum(path.stat().st_size for entry in sets.entries()[:5] for path in entry.path.rglob("*") if path.is_file())
    freed = prune(sets, NEWEST, LATER).bytes_freed
    assert freed == before - held()
    assert naive > freed


@pytest.mark.fault("C1")
def test_the_last_good_set_is_kept_for_ever_when_all_newer_ones_are_bad(sets: StackSets, source: Path):
    entries = publish_daily(sets, source, 6)
    for entry in entries[1:]:
        damage(entry)
        sets.records.add(entry.id, "verify", "failed", START, reason="papers: rot")
    for day in (1, 60, 80):
        assert entries[0].id not in removed(prune(sets, NEWEST, START + timedelta(days=day)))
    assert ids(sets) == [1, 2, 3, 4, 5, 6]


@pytest.mark.fault("C1")
def test_nothing_is_removed_when_the_set_that_would_be_left_is_bad(sets: StackSets, source: Path):
    """Nobody has verified it since it rotted; without reading it back first, the last good sets would be gone."""
    entries = publish_daily(sets, source, 4)
    damage(entries[-1])
    before = picture(sets.path)
    with pytest.raises(Refused, match=r"is damaged: papers/notes\.bin is truncated: 3 of 5 bytes; nothing was removed"):
        prune(sets, NEWEST, LATER, dry_run=True)
    assert picture(sets.path) == before
    with pytest.raises(Refused, match="nothing was removed"):
        prune(sets, NEWEST, LATER)
    assert ids(sets) == [1, 2, 3, 4]
    assert sets.entry(entries[-1].id).state == "damaged"
    assert removed(prune(sets, NEWEST, LATER)) == [entry.id for entry in entries[:2]], "then the newest good one is what is left"
    assert ids(sets) == [3, 4]


@pytest.mark.control("C1")
def test_without_the_look_at_the_survivor_the_last_good_set_would_go(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    entries = publish_daily(sets, source, 2)
    damage(entries[-1])
    monkeypatch.setattr(pruning, "_refuse_bad_survivor", lambda *_, **__: None)
    prune(sets, NEWEST, LATER)
    (left,) = sets.entries()
    manifest = left.manifest
    assert manifest is not None
    assert check_artefacts(left.path, manifest, Progress()), "the control: all that is left is rot"


@pytest.mark.fault("C3")
def test_the_newest_good_set_outlives_a_policy_of_one_day(sets: StackSets, source: Path):
    publish_daily(sets, source, 3)
    prune(sets, Keep(days=1, daily=0, weekly=0, monthly=0, at_least=1), START + timedelta(days=80))
    assert ids(sets) == [3]


@pytest.mark.fault("C2")
def test_after_a_failed_run_nothing_is_removed(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    assert prune(sets, NEWEST, LATER, newest_run_failed=True).removed == ()
    assert ids(sets) == [1, 2, 3, 4, 5]


@pytest.mark.fault("C4", "C5")
def test_a_clock_in_1970_or_a_year_ahead_removes_nothing(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    for now in (START - timedelta(days=365 * 55), START + timedelta(days=365)):
        assert prune(sets, NEWEST, now).removed == ()
    assert prune(sets, NEWEST, START + timedelta(days=5)).removed, "the control"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.fault("C6")
@pytest.mark.control("C6")
def test_the_night_the_clock_changes_gives_one_set_a_run(tmp_path: Path, source: Path, zone: str):
    """02:30 comes twice on 2025-10-26 in Berlin; the local time as a name would come twice too."""
    program = (
        "import sys, time; from pathlib import Path; from datetime import datetime, UTC\n"
        "from tests.harness.sets import open_sets, publish\n"
        "sets = open_sets(Path(sys.argv[1])); moment = float(sys.argv[3])\n"
        "entry = publish(sets, Path(sys.argv[2]), datetime.fromtimestamp(moment).astimezone())\n"
        "print(entry.id, time.strftime('%Y%m%d_%H%M%S', time.localtime(moment)))\n"
    )
    names, local = [], []
    for moment in ("1761438600", "1761442200", "1743294600", "1743298200"):  # 2025-10-26 00:30 and 01:30, 2025-03-30 00:30 and 01:30 UTC
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(source), moment],
            env={**os.environ, "TZ": zone, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        name, said = done.stdout.split()
        names.append(name)
        local.append(said)
    assert [name[:16] for name in names] == ["20251026T003000Z", "20251026T013000Z", "20250330T003000Z", "20250330T013000Z"]
    assert len(set(names)) == 4
    assert ids(open_sets(tmp_path)) == [1, 2, 3, 4]
    if zone == "Europe/Berlin":
        assert local[0] == local[1], "the control: by local time two runs have one name"


@pytest.mark.fault("C9")
def test_foreign_files_are_never_touched(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    repository = sets.path.parent
    foreign = ["notes.txt", ".trash/mine.txt", ".records/notes.txt", "old-backups/x", ".trash/20250109/x", "20250109T030000Z-000001.txt"]
    for name in foreign:
        (sets.path / name).parent.mkdir(parents=True, exist_ok=True)
        (sets.path / name).write_text("mine")
    (repository / "README").write_text("mine")
    (sets.path / "20240101T000000Z-000099").symlink_to(repository)
    prune(sets, NEWEST, LATER)
    assert ids(sets) == [5]
    assert all((sets.path / name).read_text() == "mine" for name in foreign)
    assert (repository / "README").read_text() == "mine"
    assert (sets.path / "20240101T000000Z-000099").is_symlink()


@pytest.mark.parametrize("name", ["notes.txt", "papers/notes.txt", "papers/files/notes.txt", "papers/files/sub/notes.txt", "mine/x"])
@pytest.mark.fault("C9")
def test_a_set_with_somebodys_file_in_it_is_left_alone_and_named(sets: StackSets, source: Path, name: str):
    first, *_ = publish_daily(sets, source, 3)
    (first.path / name).parent.mkdir(exist_ok=True)
    (first.path / name).write_text("mine")
    foreseen = prune(sets, NEWEST, LATER, dry_run=True)
    done = prune(sets, NEWEST, LATER)
    assert done == foreseen
    assert ids(sets) == [1, 3]
    assert (first.path / name).read_text() == "mine"
    assert any("which is not ours: it is left alone" in problem.message for problem in done.problems)


@pytest.mark.fault("C9")
def test_a_directory_that_only_looks_like_a_set_is_left_alone(sets: StackSets, source: Path):
    publish_daily(sets, source, 3)
    mine = sets.path / "20240109T030000Z-000777"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    prune(sets, NEWEST, LATER)
    assert (mine / "notes.txt").read_text() == "mine"


@pytest.mark.fault("C9")
def test_a_damaged_manifest_does_not_let_somebodys_file_go(sets: StackSets, source: Path):
    first, *_ = publish_daily(sets, source, 3)
    tampered(first.path / "manifest.json").write_bytes(b"{}")
    (first.path / "notes.txt").write_text("mine")
    prune(sets, NEWEST, LATER)
    assert ids(sets) == [1, 3]
    (first.path / "notes.txt").unlink()
    prune(sets, NEWEST, LATER)
    assert ids(sets) == [3]


@pytest.mark.fault("C10")
def test_a_set_in_use_is_not_removed(sets: StackSets, source: Path):
    first, *_ = publish_daily(sets, source, 3)
    with sets.using(first):
        foreseen = prune(sets, NEWEST, LATER, dry_run=True)
        assert prune(sets, NEWEST, LATER) == foreseen
        assert dict(foreseen.kept)[first.id] == ("in use",)
        assert ids(sets) == [1, 3]
        manifest = first.manifest
        assert manifest is not None
        assert check_artefacts(first.path, manifest, Progress()) == []
    prune(sets, NEWEST, LATER)
    assert ids(sets) == [3], "the control: free, it goes"


@pytest.mark.fault("C10")
def test_a_set_that_comes_into_use_after_the_decision_is_not_removed(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    first, *_ = publish_daily(sets, source, 3)
    real, held = pruning._refuse_bad_survivor, []

    def use_first(*arguments: object, **options: object) -> None:
        user = sets.using(first)
        user.__enter__()
        held.append(user)
        real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pruning, "_refuse_bad_survivor", use_first)
    done = prune(sets, NEWEST, LATER)
    held[0].__exit__(None, None, None)
    assert dict(done.kept)[first.id] == ("in use",)
    assert ids(sets) == [1, 3]


@pytest.mark.fault("C11")
@pytest.mark.control("C11")
def test_a_dry_run_whose_sets_go_each_time_says_which_is_gone_and_never_that_there_is_nothing(
    sets: StackSets, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish_daily(sets, source, 12)
    look, looks = pruning._is_free, []

    def gone_by_then(path: Path) -> bool:
        looks.append(path)
        path.rename(tmp_path / path.name)
        return look(path)

    monkeypatch.setattr(pruning, "_is_free", gone_by_then)
    with pytest.raises(Busy, match=r"went away each of 5 times that they were looked at: No such file or directory: ") as refusal:
        prune(sets, NEWEST, LATER, dry_run=True)
    assert len(looks) == 5
    assert str(looks[-1]) in refusal.value.message
    with pytest.raises(FileNotFoundError):  # under the lock nobody else removes anything: that is no reason to look again
        prune(sets, NEWEST, LATER)
    assert len(looks) == 6


def test_a_living_partial_is_neither_swept_nor_pruned(sets: StackSets, source: Path):
    publish_daily(sets, source, 3)
    with sets.begin(LATER) as partial:
        (partial.path / "papers").mkdir()
        assert sets.sweep() == []
        prune(sets, NEWEST, LATER)
        assert (partial.path / "papers").is_dir()
    dead = sets.path / ".20250101T000000Z-000050.partial"
    durable.make_directory(dead)
    prune(sets, NEWEST, LATER)
    assert dead.is_dir(), "partials are the sweep's alone"
    assert sets.sweep() == [dead.name], "the control: dead, it goes"


@pytest.mark.fault("C13")
@pytest.mark.control("C13")
def test_pinned_sets_outlive_the_rules_until_they_are_let_go(sets: StackSets, source: Path):
    first, second, *_ = publish_daily(sets, source, 4)
    sets.records.pin(first.id, "pinned by a person")
    sets.records.pin(second.id, "before a restore", START + timedelta(days=70))
    prune(sets, NEWEST, LATER)
    assert ids(sets) == [1, 2, 4]
    prune(sets, NEWEST, START + timedelta(days=80))
    assert ids(sets) == [1, 4]
    sets.records.unpin(first.id)
    prune(sets, NEWEST, START + timedelta(days=80))
    assert ids(sets) == [4]


def test_the_records_of_a_set_go_with_it(sets: StackSets, source: Path):
    first, *_, last = publish_daily(sets, source, 3)
    for entry in (first, last):
        sets.records.add(entry.id, "prove", "ok", START)
    prune(sets, NEWEST, LATER)
    assert list(sets.records.sets()) == [last.id]


def test_leftovers_in_the_trash_go_with_the_next_run(sets: StackSets, source: Path):
    first, *_ = publish_daily(sets, source, 3)
    sets.records.add(first.id, "prove", "ok", START)
    durable.ensure_directory(sets.trash)
    durable.rename(first.path, sets.trash / first.id)
    foreseen = prune(sets, Keep(), START + timedelta(days=3), dry_run=True)
    done = prune(sets, Keep(), START + timedelta(days=3))
    assert done == foreseen
    assert done.bytes_freed > 3000
    assert os.listdir(sets.trash) == []
    assert list(sets.records.sets()) == []


@pytest.mark.fault("C8")
def test_a_kill_while_sets_are_removed_leaves_each_whole_or_gone(sets: StackSets, source: Path, campaign: Campaign):
    """SIGKILL at random moments. What is still listed is whole; what is not, is in the trash and goes with the next run."""
    rng, trials = random.Random(3), campaign.trials(reduced=20, full=200)
    publish_daily(sets, source, 12)
    twelve = shutil.copytree(sets.path, sets.path.parents[1] / "twelve")
    whole = _seconds_of_a_prune(sets)
    in_the_middle, damaged, lost = 0, 0, 0
    for _ in range(trials):
        durable.remove_tree(sets.path)
        shutil.copytree(twelve, sets.path)
        before = {entry.id for entry in sets.entries()}
        child = _forked(lambda: prune(sets, NEWEST, LATER))
        time.sleep(rng.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after = {entry.id for entry in sets.entries()}
        in_the_middle += bool(after != before and (len(after) > 1 or sets.in_trash()))
        damaged += len(_damaged(sets))
        lost += not ({max(before)} <= after <= before)
    campaign.found(
        trials, f"kills of a retention run, {in_the_middle} of them between the first removal and the last", f"{damaged} half sets listed"
    )
    assert (damaged, lost) == (0, 0)
    assert in_the_middle > trials // 8, "hardly a run was cut short: nothing was tested"
    prune(sets, NEWEST, LATER)
    assert len(sets.entries()) == 1
    assert os.listdir(sets.trash) == []


@pytest.mark.control("C8")
@pytest.mark.parametrize("in_place", [True, False])
def test_removing_a_set_in_place_would_leave_half_of_it_listed(
    sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
):
    """The same kill, after the first file of the first set: without the trash half a set is listed, with it none is."""
    publish_daily(sets, source, 3)

    def one_file_and_dead(folder: Path) -> None:
        next(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json").unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(durable, "remove_tree", one_file_and_dead)
    if in_place:
        monkeypatch.setattr(pruning, "_move_to_trash", lambda _, entry: one_file_and_dead(entry.path))
    child = _forked(lambda: prune(sets, NEWEST, LATER))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(_damaged(sets)) == int(in_place)


def _forked(action: Callable[[], object]) -> int:
    """The pid of a child that does this and ends."""
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    return pid


def _seconds_of_a_prune(sets: StackSets) -> float:
    began = time.monotonic()
    os.waitpid(_forked(lambda: prune(sets, NEWEST, LATER)), 0)
    return time.monotonic() - began


def _damaged(sets: StackSets) -> list[str]:
    """The sets that are listed and not whole."""
    found = []
    for entry in sets.entries():
        manifest = entry.manifest if entry.readable else None
        if manifest is None or check_artefacts(entry.path, manifest, Progress()):
            found.append(entry.id)
    return found


def test_a_disk_that_refuses_to_remove_is_told_and_the_sets_stay_in_the_trash(
    sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch
):
    publish_daily(sets, source, 3)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "remove_tree", _refuse)
        with pytest.raises(Failed, match="could not be removed"):
            prune(sets, NEWEST, LATER)
    assert ids(sets) == [3]
    prune(sets, NEWEST, LATER)
    assert os.listdir(sets.trash) == []


def _refuse(path: Path) -> Iterator[None]:
    raise OSError(30, "Read-only file system", str(path))


@pytest.mark.fault("C10")
def test_the_lock_of_a_set_follows_it_into_the_trash(sets: StackSets, source: Path):
    """So a reader that opened it before the rename cannot be cut off: the rename waits for the reader's lock."""
    (entry,) = publish_daily(sets, source, 1)
    with locks.hold_directory(entry.path, shared=True):
        assert not pruning._move_to_trash(sets, entry)
    assert pruning._move_to_trash(sets, entry)

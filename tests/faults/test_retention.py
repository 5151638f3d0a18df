"""Removing sets on a real disk: nothing is lost, nothing foreign is touched, and a kill leaves every set whole or gone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Refused
from storekeeper.sets import pruning
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.pruning import MostWouldGo, Pruned
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.stack.model import Keep
from tests.harness.program import Program
from tests.harness.sets import FAULT_COUNT, START, open_sets, publish, publish_daily, tampered, write_source

NEWEST = Keep(days=0, daily=0, weekly=0, monthly=0, at_least=1)
LATER = START + timedelta(days=60)
prune = partial(pruning.prune, confirmed=True)  # most policies here keep one set of many


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def sets(tmp_path: Path) -> StackSets:
    return open_sets(tmp_path)


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


def test_the_newest_good_set_outlives_a_policy_of_one_day(sets: StackSets, source: Path):
    publish_daily(sets, source, 3)
    prune(sets, Keep(days=1, daily=0, weekly=0, monthly=0, at_least=1), START + timedelta(days=80))
    assert ids(sets) == [3]


def test_after_a_failed_run_nothing_is_removed(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    assert prune(sets, NEWEST, LATER, newest_run_failed=True).removed == ()
    assert ids(sets) == [1, 2, 3, 4, 5]


def test_a_clock_in_1970_or_a_year_ahead_removes_nothing(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    for now in (START - timedelta(days=365 * 55), START + timedelta(days=365)):
        assert prune(sets, NEWEST, now).removed == ()
    assert prune(sets, NEWEST, START + timedelta(days=5)).removed, "the control"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
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


def test_a_kill_while_sets_are_removed_leaves_each_whole_or_gone(sets: StackSets, source: Path):
    """SIGKILL at random moments. What is still listed is whole; what is not, is in the trash and goes with the next run."""
    rng, program = random.Random(3), Path(__file__).parents[2]
    code = (
        "import sys; from pathlib import Path; from datetime import timedelta\n"
        "from tests.harness.sets import START, open_sets; from tests.faults.test_retention import LATER, NEWEST, prune\n"
        "sets = open_sets(Path(sys.argv[1])); print('ready', flush=True); prune(sets, NEWEST, LATER); print('done', flush=True)\n"
    )
    cut_short = 0
    publish_daily(sets, source, 12)
    for _ in range(FAULT_COUNT):
        while len(sets.entries()) < 12:
            publish(sets, source, START + timedelta(days=20))
        before = {entry.id for entry in sets.entries()}
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(sets.path.parents[1])],
            cwd=program,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(program),
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        cut_short += process.stdout.read() == ""
        process.stdout.close()
        process.wait()
        _check_whole(sets)
        assert {entry.id for entry in sets.entries()} <= before
        assert max(before) in {entry.id for entry in sets.entries()}
    assert cut_short > FAULT_COUNT // 4, "hardly a run was cut short: nothing was tested"
    prune(sets, NEWEST, LATER)
    assert len(sets.entries()) == 1
    assert os.listdir(sets.trash) == []


def test_removing_a_set_in_place_would_leave_half_of_it_listed(sets: StackSets, source: Path):
    """The control of the kill: without the trash, what a kill leaves is listed and incomplete."""
    (entry,) = publish_daily(sets, source, 1)
    for path in list(entry.path.rglob("*.txt")):
        path.unlink()
    with pytest.raises(AssertionError):
        _check_whole(sets)


def _environment(program: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": "1"}


def _check_whole(sets: StackSets) -> None:
    for entry in sets.entries():
        manifest = entry.manifest
        assert manifest is not None
        assert check_artefacts(entry.path, manifest, Progress()) == []


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


@pytest.mark.fault("C12")
def test_a_policy_that_would_drop_more_than_half_of_the_sets_shows_its_plan_and_stops(sets: StackSets, source: Path):
    publish_daily(sets, source, 5)
    before = picture(sets.path)
    with pytest.raises(MostWouldGo, match="4 of 5 sets of demo would go, more than half: nothing was removed") as refusal:
        pruning.prune(sets, NEWEST, LATER)
    assert picture(sets.path) == before
    assert refusal.value.next == "storekeeper prune demo --yes"
    plan, foreseen = refusal.value.plan, pruning.prune(sets, NEWEST, LATER, dry_run=True)
    assert (plan.kept, plan.removed, plan.bytes_freed) == (foreseen.kept, foreseen.removed, foreseen.bytes_freed)
    assert "without --yes nothing is removed" in foreseen.problems[-1].message
    assert removed(pruning.prune(sets, NEWEST, LATER, confirmed=True)) == [set_id for set_id, _ in plan.removed]


@pytest.mark.fault("C12")
@pytest.mark.parametrize(("kept", "stops"), [(1, True), (2, True), (3, False), (4, False)])
def test_half_of_the_sets_may_go_and_one_more_may_not(sets: StackSets, source: Path, kept: int, stops: bool):
    publish_daily(sets, source, 6)
    keep = NEWEST.model_copy(update={"at_least": kept})
    if stops:
        with pytest.raises(MostWouldGo):
            pruning.prune(sets, keep, LATER)
    else:
        pruning.prune(sets, keep, LATER)
    assert len(ids(sets)) == (6 if stops else kept)


@pytest.mark.control("C12")
def test_without_the_stop_a_mistyped_policy_costs_most_sets_at_once(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    """`days: 3` where 30 was meant."""
    publish_daily(sets, source, 20)
    mistyped = Keep(days=3, daily=0, weekly=0, monthly=0, at_least=1)
    monkeypatch.setattr(pruning, "_needs_a_word", lambda *_: False)
    pruning.prune(sets, mistyped, START + timedelta(days=19, hours=1))
    assert ids(sets) == [18, 19, 20]


@pytest.mark.fault("C12")
def test_the_program_stops_with_the_plan_and_a_backup_keeps_what_it_would_drop(tmp_path: Path):
    program = Program(tmp_path)
    program.declare_small()
    for _ in range(4):
        assert program.run("backup", "demo").code == 0
    text = (program.config / "stacks/demo.yml").read_text()
    program.declare(text + "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 1}}\n")
    live = program.database().read_bytes()

    ended = program.answer("backup", "demo")
    document = ended.document
    assert (ended.code, document["outcome"], document["result"]["retention"]) == (4, "warning", None)
    assert "4 of 5 sets of demo would go, more than half: nothing was removed" in document["problems"][-1]["message"]
    assert document["problems"][-1]["next"].endswith("prune demo --dry-run")

    ended = program.answer("prune", "demo")
    document = ended.document
    assert (ended.code, document["outcome"], document["result"]["dry_run"]) == (2, "refused", True)
    assert (len(document["result"]["removed"]), len(document["result"]["kept"])) == (4, 1)
    assert "prune demo --yes" in ended.complaints[0]
    assert len(program.answer("list", "demo").document["result"]["sets"]) == 5
    assert "remove " in program.run("prune", "demo").out, "the plan is shown to a person too"

    elsewhere = program.answer("prune", "demo", "--confirm", "demo@another")
    assert (elsewhere.code, len(program.answer("list", "demo").document["result"]["sets"])) == (2, 5)
    done = program.answer("prune", "demo", "--confirm", f"demo@{os.uname().nodename}")
    assert (done.code, len(done.document["result"]["removed"])) == (0, 4)
    assert len(program.answer("list", "demo").document["result"]["sets"]) == 1
    assert program.database().read_bytes() == live

"""What keeps retention from removing too much: a policy that is a mistake, sets in use, files of others."""

from __future__ import annotations

import os
import subprocess
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from storekeeper.cli.main import main
from storekeeper.host.progress import Progress
from storekeeper.sets import copies, pruning
from storekeeper.sets import readahead as readahead_module
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.pruning import MostWouldGo
from storekeeper.sets.repository import Repository, StackSets
from storekeeper.stack.model import Keep
from tests.faults.test_retention import LATER, NEWEST, ids, picture, prune, removed
from tests.harness.program import Program
from tests.harness.sets import START, publish_daily


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


@pytest.mark.control("C3")
def test_removal_by_age_alone_would_take_the_newest_good_set(sets: StackSets, source: Path):
    """`find -mtime +1 -exec rm`, as it stands in many a crontab, on the day after backups stopped."""
    entries = publish_daily(sets, source, 3)
    for entry in entries:
        os.utime(entry.path, (entry.time.timestamp(),) * 2)
    words = ["find", str(sets.path), "-maxdepth", "1", "-name", "2*", "-mtime", "+1"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert {Path(line).name for line in found} == {entry.id for entry in entries}


@pytest.mark.control("C9")
def test_without_the_look_for_strangers_somebodys_notes_would_go(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    first, *_ = publish_daily(sets, source, 3)
    (first.path / "notes.txt").write_text("mine")
    monkeypatch.setattr(pruning, "_stranger_in", lambda _: None)
    prune(sets, NEWEST, LATER)
    assert not (first.path / "notes.txt").exists()


@pytest.mark.control("C10")
def test_without_the_lock_a_set_would_go_while_it_is_read(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    first, *_ = publish_daily(sets, source, 3)
    manifest = first.manifest
    assert manifest is not None
    monkeypatch.setattr(pruning.locks, "hold_directory", lambda *_, **__: nullcontext(True))
    with sets.using(first):
        prune(sets, NEWEST, LATER)
        with pytest.raises(FileNotFoundError):  # the reader finds its set gone
            check_artefacts(first.path, manifest, Progress())


@pytest.mark.fault("C10")
@pytest.mark.parametrize(("verb", "module"), [("prove", copies), ("verify", readahead_module)])
def test_retention_that_runs_during_a_proof_or_a_verify_leaves_the_set_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, module: ModuleType
):
    program = Program(tmp_path)
    program.declare_small()
    for _ in range(3):
        assert program.run("backup", "demo").code == 0
    sets = Repository.open(program.repository, program.state).stack("demo")
    first, *_ = sets.entries()
    name = "check_artefacts" if verb == "prove" else "examine"
    real, seen = getattr(module, name), []

    def raced(*arguments: object, **options: object) -> object:
        prune(sets, NEWEST, sets.entries()[-1].time + timedelta(days=1))
        seen.append(ids(sets))
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, raced)
    assert main(["--config", str(program.config), "--quiet", verb, "demo", first.id]) == 0
    assert seen[0] == [1, 3], "the others went"
    monkeypatch.undo()
    prune(sets, NEWEST, sets.entries()[-1].time + timedelta(days=1))
    assert ids(sets) == [3]

"""Sets that are damaged in every way, read back in parts, by a run that is killed, and while retention takes them away."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Outcome
from storekeeper.sets import artefacts
from storekeeper.sets.artefacts import Subset
from storekeeper.sets.pruning import _move_to_trash
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry, SetGone, StackSets
from storekeeper.sets.verification import SetVerdict, verify_set
from tests.harness.campaign import Campaign
from tests.harness.descendants import Kept
from tests.harness.sets import open_sets, publish, tampered, write_source
from tests.harness.stacks import Lab

MANY = {f"{number // 20:02}/{number:03}.bin": os.urandom(200 + 31 * number) for number in range(120)}
Damage = Callable[[Path, Path, random.Random], None]  # of a file of a set, with a set to take others from


def verified(lab: Lab, entry: SetEntry, subset: Subset | None = None) -> SetVerdict:
    return verify_set(lab.context.sets, entry, lab.context.stores, Progress(), subset=subset)


def content_of(folder: Path) -> list[Path]:
    """The files of a set that have a byte, without its manifest."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json" and path.stat().st_size)


def cut(victim: Path, _other: Path, chance: random.Random) -> None:
    os.truncate(tampered(victim), chance.randrange(victim.stat().st_size))


def extend(victim: Path, _other: Path, chance: random.Random) -> None:
    with open(tampered(victim), "ab") as file:
        file.write(chance.randbytes(chance.randint(1, 5000)))


def exchange(victim: Path, other: Path, _chance: random.Random) -> None:
    """By the same artefact of another set: as large or not, it decodes."""
    victim.unlink()
    shutil.copy(other, victim)


def remove(victim: Path, _other: Path, _chance: random.Random) -> None:
    victim.unlink()


def add(victim: Path, _other: Path, chance: random.Random) -> None:
    victim.with_name(f"{victim.name}.{chance.randrange(1000)}").write_bytes(b"one too many")


# The damage, the names that verify may give it, and how many trials the campaign makes.
DAMAGES: dict[str, tuple[Damage, set[str], int]] = {
    "cut": (cut, {"truncated"}, 100),
    "extended": (extend, {"extended"}, 50),
    "exchanged": (exchange, {"replaced", "truncated", "extended", "altered"}, 50),
    "missing": (remove, {"missing"}, 50),
    "one too many": (add, {"extra"}, 50),
}


@pytest.mark.fault("B2")
@pytest.mark.control("B2")
@pytest.mark.parametrize("damage", DAMAGES)
def test_an_artefact_that_is_not_what_was_written_is_found_and_named(lab: Lab, damage: str, campaign: Campaign) -> None:
    """The control: the manifest alone, which a list of the sets reads, says that every one of them is good."""
    make, names, full = DAMAGES[damage]
    count, chance, found, listed_as_good = campaign.trials(4, full), random.Random(damage), 0, 0
    told: Counter[str] = Counter()
    other = take_set(lab.context, purpose="backup")
    lab.write("other")
    entry = take_set(lab.context, purpose="backup")
    pristine = lab.root / "pristine"
    shutil.copytree(entry.path, pristine)
    for _ in range(count):
        victim = _victim(entry, other, chance, both=damage == "exchanged")
        make(victim, other.path / victim.relative_to(entry.path), chance)
        listed_as_good += lab.context.sets.entry(entry.id).state == "verified"
        verdict = verified(lab, entry)
        kinds = {fault.kind for each in verdict.stores.values() for fault in each.faults}
        told.update(kinds)
        found += verdict.outcome is Outcome.FAILED and bool(kinds & names) and lab.context.sets.entry(entry.id).state == "damaged"
        _put_back(lab, entry, pristine)
    campaign.found(count, f"artefacts {damage}", f"{found} found, named {', '.join(sorted(told))}")
    assert found == count
    assert listed_as_good == count
    assert verified(lab, entry).outcome is Outcome.OK


def _victim(entry: SetEntry, other: SetEntry, chance: random.Random, *, both: bool) -> Path:
    files = content_of(entry.path)
    if both:
        files = [each for each in files if _differs(each, other.path / each.relative_to(entry.path))]
    return chance.choice(files)


def _differs(path: Path, other: Path) -> bool:
    return other.is_file() and other.read_bytes() != path.read_bytes()


def _put_back(lab: Lab, entry: SetEntry, pristine: Path) -> None:
    durable.remove_tree(entry.path)
    shutil.copytree(pristine, entry.path)
    lab.context.sets.records.remove(entry.id)


# B8


@pytest.fixture
def many(tmp_path: Path) -> SetEntry:
    return publish(open_sets(tmp_path), write_source(tmp_path / "source", MANY))


@pytest.mark.fault("B8")
@pytest.mark.control("B8")
def test_the_parts_of_a_set_read_every_file_once_also_when_each_run_is_killed_and_begun_again(
    tmp_path: Path, many: SetEntry, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
) -> None:
    """The control: all parts but one leave files unread, and damage in them unseen."""
    sets, chance, killed, covered, expected = open_sets(tmp_path), random.Random(8), 0, 0, 0
    read: list[str] = []
    begin = artefacts._Examination._begin_hash

    def begun(self: Any, started: Any, descriptor: int) -> None:
        read.append(os.path.basename(started.path))
        begin(self, started, descriptor)

    monkeypatch.setattr(artefacts._Examination, "_begin_hash", begun)
    listed = {path.name for path in content_of(many.path)}
    for parts in campaign.trials(2, 12) * [3] + [1, 2, 5]:
        read.clear()
        for number in range(1, parts + 1):
            killed += _killed(sets, many, (number, parts), chance)
            before = len(read)
            assert verify_set(sets, many, {}, Progress(), subset=(number, parts)).outcome is Outcome.OK
            assert parts == 1 or len(read) - before < len(listed), "the control"
        covered += len(listed & set(read))
        expected += len(listed)
        assert sum(name.endswith(".bin") and name != "notes.bin" for name in read) == len(MANY), "each of them once"
    campaign.found(expected, "files of sets that were verified in parts, runs killed between", f"{covered} read; {killed} runs were killed")
    assert killed
    assert covered == expected
    assert sets.entry(many.id).state == "verified"


def _killed(sets: StackSets, entry: SetEntry, subset: Subset, chance: random.Random) -> bool:
    """Verify in a process that is killed after any time; a run that was killed says nothing of the set."""
    run = Kept(lambda: verify_set(sets, entry, {}, Progress(), subset=subset))
    time.sleep(chance.uniform(0, 0.02))
    run.send(signal.SIGKILL)
    assert sets.entry(entry.id).state == "verified"
    return run.end().code == -signal.SIGKILL


# B9


@pytest.mark.fault("B9")
def test_verifying_while_the_set_is_removed_is_no_false_alarm(tmp_path: Path, campaign: Campaign) -> None:
    """Retention moves a set only when it has the set's lock for itself; here at any moment of a verify."""
    sets, source, chance = open_sets(tmp_path), write_source(tmp_path / "source"), random.Random(9)
    count, alarms, met = campaign.trials(20, 200), 0, 0
    for _ in range(count):
        outcome, waited = _raced(sets, publish(sets, source), chance)
        alarms += outcome is not Outcome.OK and outcome is not None
        met += waited or outcome is None
    campaign.found(count, "races of verify with the removal of the same set", f"{alarms} false alarms; in {met} they met")
    assert alarms == 0
    assert met > count // 10, "verify and removal hardly met: nothing was tested"
    assert sets.entries() == []


@pytest.mark.control("B9")
def test_control_without_the_lock_a_set_that_is_removed_while_it_is_read_raises_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, source = open_sets(tmp_path), write_source(tmp_path / "source")
    entry = publish(sets, source)
    step = Progress.step

    def remove_meanwhile(self: Progress, *words: Any) -> None:
        step(self, *words)
        if entry.path.exists():
            _move_to_trash(sets, entry)

    monkeypatch.setattr(locks, "hold_directory", lambda *_, **__: contextlib.nullcontext(True))
    monkeypatch.setattr(Progress, "step", remove_meanwhile)
    manifest = entry.manifest
    assert manifest is not None
    assert artefacts.check_artefacts(entry.path, manifest, Progress())


def _raced(sets: StackSets, entry: SetEntry, chance: random.Random) -> tuple[Outcome | None, bool]:
    """The verdict, None where the set was gone first; and whether the removal had to wait for the verify."""
    tries: list[bool] = []

    def take_away() -> None:
        time.sleep(chance.uniform(0, 0.008))
        while not tries or not tries[-1]:
            tries.append(_move_to_trash(sets, entry))

    remover = threading.Thread(target=take_away)
    remover.start()
    try:
        outcome = verify_set(sets, entry, {}, Progress()).outcome
    except SetGone:
        outcome = None
    remover.join()
    durable.remove_tree(sets.trash / entry.id)
    return outcome, len(tries) > 1

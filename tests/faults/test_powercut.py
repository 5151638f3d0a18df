"""The power goes while sets are made: nothing that is listed afterwards is invalid, and nothing that was acknowledged is gone."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import StorekeeperError
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import Repository
from tests.harness.powercut import PowerCut
from tests.harness.stacks import Lab, make_lab

CUTS = int(os.environ.get("STOREKEEPER_FAULT_COUNT", "20"))
CONTROL_CUTS = 4


@pytest.fixture
def power(tmp_path: Path) -> Iterator[PowerCut]:
    with PowerCut(tmp_path / "power", size_mib=200) as power:
        yield power


@pytest.fixture
def lab(power: PowerCut, tmp_path: Path) -> Iterator[Lab]:
    """A lab whose repository and state are on the disk whose power is cut; its live data are not."""
    root = tmp_path / "lab"
    root.mkdir()
    for name in ("repository", "state"):
        (power.disk / name).mkdir(mode=0o700)
    made = make_lab(root, sqlites=1, services=0, disk=power.disk)
    made.write("one")
    yield made
    made.close()


def _take_for_ever(lab: Lab, acknowledged: Path, first: Callable[[], None]) -> int:
    """A child that takes set after set and says each on a disk that is not cut; returns its pid."""
    pid = os.fork()
    if pid == 0:
        first()
        with open(acknowledged, "a", encoding="ascii", buffering=1) as told:
            while True:
                told.write(take_set(lab.context, purpose="backup").id + "\n")
    return pid


def _audit(after: Path, acknowledged: list[str]) -> list[str]:
    """What is wrong with the repository that a cut left."""
    try:
        sets = Repository.open(after / "repository", after / "state").stack("demo")
        entries = sets.entries()
    except StorekeeperError as error:
        return [error.message]
    wrong = [f"{name} is gone" for name in acknowledged if name not in {entry.id for entry in entries}]
    for entry in entries:
        manifest = entry.manifest if entry.readable else None
        if manifest is None:
            wrong.append(f"{entry.id}: {entry.reason}")
        else:
            wrong += [f"{entry.id}: {fault.message}" for fault in check_artefacts(entry.path, manifest, Progress())]
    return wrong


def _cut_often(power: PowerCut, lab: Lab, tmp_path: Path, cuts: int, first: Callable[[], None]) -> tuple[list[str], int]:
    """What was wrong after each cut, and how many acknowledged sets there were in the end."""
    acknowledged, wrong = tmp_path / "acknowledged", []
    acknowledged.touch()
    chance = random.Random(3)
    pid = _take_for_ever(lab, acknowledged, first)
    try:
        while not acknowledged.read_text():
            time.sleep(0.05)
        for _ in range(cuts):
            time.sleep(chance.uniform(0, 0.3))
            known = acknowledged.read_text().splitlines()
            wrong += _audit(power.cut(), known)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return wrong, len(acknowledged.read_text().splitlines())


@pytest.mark.root
@pytest.mark.slow
def test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone(power: PowerCut, lab: Lab, tmp_path: Path) -> None:
    wrong, acknowledged = _cut_often(power, lab, tmp_path, CUTS, lambda: None)
    assert wrong == []
    assert acknowledged > CUTS // 4


@pytest.mark.root
@pytest.mark.slow
def test_control_without_fsync_sets_are_lost_or_invalid(power: PowerCut, lab: Lab, tmp_path: Path) -> None:
    def forget_fsync() -> None:
        os.fsync = lambda descriptor: None  # type: ignore[assignment]

    wrong, _ = _cut_often(power, lab, tmp_path, CONTROL_CUTS, forget_fsync)
    assert wrong

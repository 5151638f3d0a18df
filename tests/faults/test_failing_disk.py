"""The disk refuses one system call of a backup, or all from one on: the run fails, says why, and is never green afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.sets import publishing
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from tests.harness.campaign import Campaign
from tests.harness.descendants import SAID, WELL
from tests.harness.stacks import Lab
from tests.harness.tracing import Traced, failing_at, traced

# Not link: where a file cannot be shared with the set before, it is copied.
WRITES = ("write", "pwrite64", "rename", "mkdir", "fchmod", "ftruncate", "copy_file_range", "sendfile")
SYNCS = ("fsync", "fdatasync")
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


class Trials:
    """Backups of one lab, in each of which the disk fails once or from one call on."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        take_set(lab.context, purpose="backup")
        whole = traced(self.take, "-e", f"trace={','.join((*WRITES, *SYNCS))}", threads=True)
        assert whole.code == WELL, whole.message
        self.calls = whole.calls
        self.hit = 0
        self.green: list[str] = []
        self.harm: list[str] = []
        self._forget_new_sets()

    def take(self) -> SetEntry:
        return take_set(self.lab.context, purpose="backup")

    def used(self) -> int:
        """What the repository holds on disk."""
        return sum(path.lstat().st_blocks for path in self.lab.context.sets.path.rglob("*")) * 512

    def every(self, names: tuple[str, ...]) -> list[tuple[str, int]]:
        return [(name, number) for name in names for number in range(1, self.calls[name] + 1)]

    def one(self, call: str, number: int, error: str, *, for_ever: bool) -> None:
        """One trial; what must not be is added to `green` and `harm`."""
        where = f"{call} {number}{' and all later' if for_ever else ''}: {error}"
        ran = failing_at(self.take, call, number, error, for_ever=for_ever)
        if ran.injected:
            self.hit += 1
            self.green += [where] * (ran.code == WELL)
            self.harm += [f"{where}: {what}" for what in self._harm(ran)]
        self._forget_new_sets()

    def _harm(self, ran: Traced) -> Iterator[str]:
        sets = self.lab.context.sets
        if ran.code not in (WELL, SAID):
            yield f"it ended with {ran.code}: {ran.message}"
        if ran.code != WELL and [entry.id for entry in sets.entries()] != self.known:
            yield "the sets are not those of before"
        for entry in sets.entries():
            if entry.manifest is None or check_artefacts(entry.path, entry.manifest, Progress()):
                yield f"set {entry.id} is not whole"
        if self.used() > self.bytes + 65536 and ran.code != WELL:
            yield "the room is not freed"
        if not self.lab.all_hold("one"):
            yield "a live store was changed"

    def _forget_new_sets(self) -> None:
        self.lab.context.sets.sweep()
        for entry in self.lab.context.sets.entries()[1:]:
            durable.remove_tree(entry.path)
        self.known = [entry.id for entry in self.lab.context.sets.entries()]
        self.bytes = self.used()


def run_trials(lab: Lab, names: tuple[str, ...], campaign: Campaign, count: int, what: str) -> Trials:
    """Every call that a backup makes, with each error, once and for ever; `count` of them in a usual run of the tests."""
    trials = Trials(lab)
    whole = [(*each, error, for_ever) for each in trials.every(names) for error in ERRORS for for_ever in (False, True)]
    chosen = random.Random(3).sample(whole, min(len(whole), campaign.trials(count, len(whole))))
    for call, number, error, for_ever in chosen:
        trials.one(call, number, error, for_ever=for_ever)
    campaign.found(trials.hit, what, f"{len(trials.green)} taken for success, {len(trials.harm)} did harm")
    assert trials.hit > len(chosen) * 2 // 3, "the faults must hit backups that were under way"
    return trials


@pytest.mark.fault("A5", "A4")
def test_a_write_a_rename_or_a_directory_that_the_disk_refuses_fails_the_backup_and_leaves_nothing(lab: Lab, campaign: Campaign) -> None:
    trials = run_trials(lab, WRITES, campaign, 24, "calls refused with ENOSPC or EIO: write, rename, mkdir and their like")
    assert trials.green == []
    assert trials.harm == []
    assert trials.take().state == "verified"


@pytest.mark.fault("A6", "A5")
def test_an_fsync_that_fails_is_a_failure_and_is_never_tried_again_into_green(lab: Lab, campaign: Campaign) -> None:
    trials = run_trials(lab, SYNCS, campaign, 16, "calls of fsync alone that failed with ENOSPC or EIO")
    assert trials.green == []
    assert trials.harm == []
    assert trials.take().state == "verified"


@pytest.mark.control("A5", "A6")
@pytest.mark.parametrize("error", ERRORS)
def test_control_a_program_that_does_not_look_at_what_fsync_answers_publishes_a_set_that_is_on_no_disk(lab: Lab, error: str) -> None:
    def careless(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fsync(descriptor)

    def take() -> None:
        os.fsync = careless
        take_set(lab.context, purpose="backup")

    fsync = os.fsync
    ran = failing_at(take, "fsync", 1, error, for_ever=True)
    assert ran.injected > 5
    assert ran.code == WELL
    assert [entry.state for entry in lab.context.sets.entries()] == ["verified"]


@pytest.mark.control("A4")
def test_control_a_program_that_does_not_look_at_what_write_answers_publishes_half_a_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full from some byte on, for a program that goes on and does not read back what it wrote."""

    def careless(folder: Path, *_: Any) -> None:
        largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        largest.chmod(0o600)
        os.truncate(largest, largest.stat().st_size // 2)

    monkeypatch.setattr(publishing, "read_back", careless)
    entry = take_set(lab.context, purpose="backup")
    assert entry.state == "verified"
    assert entry.manifest is not None
    assert check_artefacts(entry.path, entry.manifest, Progress())

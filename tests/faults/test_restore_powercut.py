"""The power goes at any step of a restore and of the way back: after the next boot all stores are of one side, whole.

The live data, the repository and the state are on the disk that is cut. What a cut leaves is mounted over that disk in a namespace
of its own, so that every path is what it was, and `resume` is run there as the first thing after the boot.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.outcomes import StorekeeperError
from storekeeper.restore.journal import Journal, Step, unfinished
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.powercut import PowerCut
from tests.harness.stacks import Lab, chroma_part, make_lab, open_context

pytestmark = [pytest.mark.root, pytest.mark.slow]
_NEW_MOUNTS = 0x00020000


@pytest.fixture
def power(tmp_path: Path) -> Iterator[PowerCut]:
    with PowerCut(tmp_path / "power", size_mib=96) as power:
        yield power


@pytest.fixture
def lab(power: PowerCut, directories: Mapping[str, Path]) -> Iterator[Lab]:
    """SQLite, files and Chroma, with everything on the disk whose power is cut, in a lab without services: none survives a cut."""
    root = power.disk / "lab"
    root.mkdir()
    made = make_lab(root, sqlites=1, services=0, first={"vectors": chroma_part(root / "live" / "vectors", directories)})
    yield made
    made.close()


class Cuts:
    """Cuts the power at every n-th moment of those that it is told of, and keeps what `resume` made of each."""

    def __init__(self, power: PowerCut, lab: Lab, every: int, most: int) -> None:
        self._power = power
        self._lab = lab
        self._every = every
        self._left = most
        self._seen = 0
        self.ended: list[dict[str, object]] = []

    def moment(self) -> None:
        self._seen += 1
        if self._seen % self._every == 0 and self._left > 0:
            self._left -= 1
            self.ended.append(after_boot(self._power.cut(), self._power.disk, self._boot))

    def _boot(self) -> dict[str, object]:
        self._left = 0  # in the process that resumes nothing is cut
        return look(self._lab)

    @property
    def is_over(self) -> bool:
        return self._left == 0

    def mixed(self) -> list[dict[str, object]]:
        return [each for each in self.ended if each["sides"] not in (["first"], ["second"]) or each["open"]]


def after_boot(left: Path, disk: Path, action: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `action` finds, in a process that has the cut disk where the whole one is for everybody else."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            for words in (["--make-rprivate", "/"], ["--bind", str(left), str(disk)]):
                subprocess.run(["mount", *words], check=True, capture_output=True)
            os.write(writing, json.dumps(action()).encode())
            code = 0
        except BaseException as error:  # noqa: BLE001 told to the test
            os.write(writing, json.dumps({"sides": [f"{type(error).__name__}: {error}"], "open": True, "ended": None}).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as answer:
        found: dict[str, object] = json.loads(answer.read())
    os.waitpid(pid, 0)
    return found


def look(lab: Lab) -> dict[str, object]:
    """Resume as a new process does, and say what the stores hold."""
    context = open_context(lab.root, lab.context.stack, scratch=lab.context.scratch)
    ended: object
    try:
        ended = resume(context).result["ended"]
    except StorekeeperError as error:
        ended = error.message
    return {"ended": ended, "sides": sorted(set(lab.sides().values())), "open": unfinished(context.state) is not None}


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, moment: Callable[[], None]) -> Iterator[None]:
    """Tell of every moment before and after a line of the journal, and after every change of a name that a store makes."""
    write, rename = Journal.write, durable.rename

    def telling(journal: Journal, step: Step, store: str | None = None, **facts: object) -> None:
        moment()
        write(journal, step, store, **facts)
        moment()

    def telling_rename(source: Path, target: Path) -> None:
        rename(source, target)
        moment()

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", telling)
        patch.setattr(durable, "rename", telling_rename)
        yield


def restore_and_return(lab: Lab, entry: SetEntry, cuts: Cuts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore and go back in turn, until there were as many cuts as were wanted."""
    while not cuts.is_over:
        before = len(cuts.ended)
        lab.write("second")
        os.sync()
        with watched(monkeypatch, cuts.moment):
            restore(lab.context, RestoreRequest(set=entry.id))
            restore(lab.context, RestoreRequest(back=True))
        assert lab.all_hold("second")
        assert len(cuts.ended) > before, "not one moment was cut"
        for each in lab.context.sets.entries():
            if each.id != entry.id:
                shutil.rmtree(each.path)


@pytest.mark.fault("E-2")
def test_after_a_power_cut_at_any_step_resume_leaves_every_store_on_one_side(
    power: PowerCut, lab: Lab, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = lab.take("first")
    cuts = Cuts(power, lab, every=campaign.trials(11, 1), most=campaign.trials(6, 200))
    restore_and_return(lab, entry, cuts, monkeypatch)
    mixed = cuts.mixed()
    campaign.found(len(cuts.ended), "power cuts at steps of a restore or of the way back", f"{len(mixed)} mixed states after `resume`")
    assert mixed == []
    assert {"first", "second"} == {side for each in cuts.ended for side in each["sides"]} or not campaign.full  # type: ignore[attr-defined]


@pytest.mark.control("E-2")
def test_control_without_the_journals_fsync_a_power_cut_leaves_a_mix_that_nobody_knows_of(
    power: PowerCut, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = lab.take("first")
    lab.write("second")
    os.sync()
    switched = iter([False, True])
    found: list[dict[str, object]] = []
    real, sync = Journal.write, os.fsync

    def write(journal: Journal, step: Step, store: str | None = None, **facts: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)
            real(journal, step, store, **facts)
        if step is Step.SWITCHED and next(switched, False):
            found.append(after_boot(power.cut(), power.disk, lambda: look(lab)))

    monkeypatch.setattr(Journal, "write", write)
    restore(lab.context, RestoreRequest(set=entry.id))
    assert os.fsync is sync
    assert found[0]["sides"] != ["first"]
    assert found[0]["sides"] != ["second"]

"""The power goes while sets are made, while retention removes them and while a journal is written.

Nothing that is listed afterwards is invalid, nothing that was acknowledged is gone, and the next run goes on from there.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import StorekeeperError
from storekeeper.restore.journal import Journal, Step, journals, unfinished
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.pruning import prune
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import Repository, StackSets
from storekeeper.stack.model import Keep
from tests.harness.campaign import Campaign
from tests.harness.powercut import PowerCut
from tests.harness.sets import START, open_sets, publish, write_source
from tests.harness.stacks import Lab, make_lab

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONTROL_CUTS = 5
KEPT = 4  # sets that retention leaves
LINES = 100  # of each journal
Tell = Callable[[str], object]


@dataclass
class Cuts:
    """What a row of power cuts left behind."""

    wrong: list[str] = field(default_factory=list)  # in words
    hit: int = 0  # cuts in the middle of something, to be seen from what they left
    acknowledged: int = 0


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


@contextmanager
def _child(work: Callable[[Tell], None], acknowledged: Path) -> Iterator[int]:
    """A child that works until it is killed, and says what was acknowledged on a disk that is not cut; its pid."""
    acknowledged.touch()
    pid = os.fork()
    if pid == 0:
        try:
            with open(acknowledged, "a", encoding="ascii", buffering=1) as told:
                work(lambda word: told.write(word + "\n"))
        except BaseException:  # noqa: BLE001 said, and seen by the test as a child that tells nothing more
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _cut_often(
    power: PowerCut,
    acknowledged: Path,
    cuts: int,
    work: Callable[[Tell], None],
    audit: Callable[[Path, list[str], list[str]], tuple[list[str], bool]],
    within_s: float = 0.15,
) -> Cuts:
    """Cut at random moments while a child works. `audit` gets what a cut left, and what was told before it and just after it.

    The child waits while a cut is audited: else each audit would have more to read than the one before.
    """
    chance, found = random.Random(3), Cuts()
    with _child(work, acknowledged) as pid:
        while not acknowledged.read_text():
            time.sleep(0.02)
        for _ in range(cuts):
            time.sleep(chance.uniform(0, within_s))
            before = acknowledged.read_text().splitlines()
            left = power.cut()
            os.kill(pid, signal.SIGSTOP)
            wrong, hit = audit(left, before, acknowledged.read_text().splitlines())
            os.kill(pid, signal.SIGCONT)
            found.wrong += wrong
            found.hit += hit
    found.acknowledged = len(acknowledged.read_text().splitlines())
    return found


def _forget_fsync() -> None:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]


# --- Backups ---------------------------------------------------------------------------------------------------------


def _invalid(sets: StackSets) -> list[str]:
    """What is wrong with the sets that are listed."""
    wrong = []
    for entry in sets.entries():
        manifest = entry.manifest if entry.readable else None
        if manifest is None:
            wrong.append(f"{entry.id}: {entry.reason}")
        else:
            wrong += [f"{entry.id}: {fault.message}" for fault in check_artefacts(entry.path, manifest, Progress())]
    return wrong


def _audit_sets(left: Path, needed: list[str]) -> tuple[list[str], bool]:
    """What is wrong with the repository that a cut left, and whether the cut came in the middle of something."""
    try:
        sets = Repository.open(left / "repository", left / "state").stack("demo")
        hit = bool(sets.in_trash() or list(sets.path.glob(".*.partial")))
        there = {entry.id for entry in sets.entries()}
        return [f"{name} is gone" for name in needed if name not in there] + _invalid(sets), hit
    except StorekeeperError as error:
        return [error.message], True


def _take_for_ever(lab: Lab) -> Callable[[Tell], None]:
    def work(tell: Tell) -> None:
        while True:
            tell(take_set(lab.context, purpose="backup").id)

    return work


def _after_backup(left: Path, before: list[str], after: list[str]) -> tuple[list[str], bool]:
    return _audit_sets(left, before)


@pytest.mark.fault("J1")
def test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone(
    power: PowerCut, lab: Lab, tmp_path: Path, campaign: Campaign
) -> None:
    cuts = campaign.trials(reduced=20, full=200)
    found = _cut_often(power, tmp_path / "acknowledged", cuts, _take_for_ever(lab), _after_backup)
    said = f"{len(found.wrong)} sets invalid or gone of {found.acknowledged} acknowledged"
    campaign.found(cuts, f"power cuts while sets are taken ({found.hit} in the middle of one)", said)
    assert found.wrong == []
    assert found.acknowledged > cuts // 4
    assert found.hit > cuts // 4, "most cuts came when nothing was under way: this run proves little"


@pytest.mark.fault("J2")
@pytest.mark.control("J1")
def test_control_without_fsync_sets_are_lost_or_invalid(power: PowerCut, lab: Lab, tmp_path: Path) -> None:
    """The same cuts and the same audit: they see it when nothing is made durable."""

    def work(tell: Tell) -> None:
        _forget_fsync()
        _take_for_ever(lab)(tell)

    assert _cut_often(power, tmp_path / "acknowledged", CONTROL_CUTS, work, _after_backup).wrong


@pytest.mark.control("J2")
def test_control_killing_the_program_never_shows_that_fsync_was_forgotten(power: PowerCut, lab: Lab, tmp_path: Path) -> None:
    """The kernel keeps what a dead process has written: without power cuts all of this would look well."""

    def work(tell: Tell) -> None:
        _forget_fsync()
        _take_for_ever(lab)(tell)

    acknowledged = tmp_path / "acknowledged"
    with _child(work, acknowledged):
        while len(acknowledged.read_text().splitlines()) < CONTROL_CUTS:
            time.sleep(0.02)
    assert _audit_sets(power.disk, acknowledged.read_text().splitlines())[0] == []


# --- Retention -------------------------------------------------------------------------------------------------------


def _prune_for_ever(disk: Path, source: Path) -> Callable[[Tell], None]:
    """Two sets, a run of retention that removes the two oldest, and so on."""

    def work(tell: Tell) -> None:
        sets = open_sets(disk)
        for day in count():
            now = START + timedelta(days=day)
            for hour in (0, 1):
                tell(publish(sets, source, now + timedelta(hours=hour), share=True).id)
            prune(sets, Keep(days=0, daily=0, weekly=0, monthly=0, at_least=KEPT), now + timedelta(hours=2), confirmed=True)

    return work


def _after_retention(left: Path, before: list[str], after: list[str]) -> tuple[list[str], bool]:
    """What must be there: of the newest that any run of retention until the cut would keep, those acknowledged before it."""
    wrong, hit = _audit_sets(left, [name for name in after[-KEPT:] if name in before])
    sets = Repository.open(left / "repository", left / "state").stack("demo")
    sets.sweep()
    kept = {entry.id for entry in sets.entries()}
    last = max(entry.time for entry in sets.entries())
    prune(sets, Keep(days=0, daily=0, weekly=0, monthly=0, at_least=KEPT), last + timedelta(hours=1), confirmed=True)
    wrong += [f"after the next run of retention {name}" for name in _invalid(sets)]
    if sets.in_trash() or len(sets.entries()) != min(len(kept), KEPT):
        wrong.append(f"the next run of retention left {len(sets.entries())} sets of {len(kept)}")
    return wrong, hit


@pytest.mark.fault("J1")
def test_after_a_power_cut_in_retention_no_set_is_half_removed_and_none_that_is_kept_is_gone(
    power: PowerCut, tmp_path: Path, campaign: Campaign
) -> None:
    cuts = campaign.trials(reduced=20, full=200)
    work = _prune_for_ever(power.disk, write_source(tmp_path / "live"))
    found = _cut_often(power, tmp_path / "acknowledged", cuts, work, _after_retention, within_s=0.1)
    said = f"{len(found.wrong)} sets half removed, invalid or gone; {found.acknowledged} were made and all but {KEPT} removed"
    campaign.found(cuts, f"power cuts while sets are made and removed ({found.hit} in the middle of it)", said)
    assert found.wrong == []
    assert found.acknowledged > cuts
    assert found.hit > cuts // 4, "most cuts came when nothing was under way: this run proves little"


@pytest.mark.fault("J2")
@pytest.mark.control("J1")
def test_control_without_fsync_retention_leaves_less_than_it_keeps(power: PowerCut, tmp_path: Path) -> None:
    source = write_source(tmp_path / "live")

    def work(tell: Tell) -> None:
        _forget_fsync()
        _prune_for_ever(power.disk, source)(tell)

    def audit(left: Path, before: list[str], after: list[str]) -> tuple[list[str], bool]:
        return _audit_sets(left, [name for name in after[-KEPT:] if name in before])

    assert _cut_often(power, tmp_path / "acknowledged", CONTROL_CUTS, work, audit).wrong


# --- Journals --------------------------------------------------------------------------------------------------------


def _write_journals(state: Path) -> Callable[[Tell], None]:
    """One journal after the other, each line told when `write` has returned."""

    def work(tell: Tell) -> None:
        while True:
            journal = Journal.create(state, {"purpose": "restore", "stack": "demo", "stores": ["main"]})
            tell(f"{journal.token} 0")
            for number in range(1, LINES + 1):
                journal.write(Step.NOTE, "main", note="line", facts={"number": number, "filler": "x" * (number * 7 % 900)})
                tell(f"{journal.token} {number}")
            journal.write(Step.CLOSED)

    return work


def _after_journals(left: Path, before: list[str], after: list[str]) -> tuple[list[str], bool]:
    """Each journal has at least the lines that were acknowledged, in their order, and the unfinished one can be gone on with."""
    try:
        found = {each.token: [int(note["facts"]["number"]) for note in each.notes("main")][::-1] for each in journals(left / "state")}
        open_one = unfinished(left / "state")
        if open_one is not None:
            open_one.write(Step.ABANDONING, why="the power went")
            open_one.write(Step.CLOSED)
        went_on = unfinished(left / "state") is None
    except StorekeeperError as error:
        return [error.message], True
    told = {line.split()[0]: int(line.split()[1]) for line in before}
    wrong = [f"{token} has {len(found.get(token, []))} of {last} lines" for token, last in told.items() if len(found.get(token, [])) < last]
    wrong += [f"{token} is not begun" for token in told if token not in found]
    wrong += [f"{token} has other lines" for token, lines in found.items() if lines != list(range(1, len(lines) + 1))]
    return wrong + ([] if went_on else ["the journal cannot be gone on with"]), open_one is not None


@pytest.mark.fault("J1")
def test_after_a_power_cut_no_acknowledged_line_of_a_journal_is_gone_and_it_can_be_gone_on_with(
    power: PowerCut, tmp_path: Path, campaign: Campaign
) -> None:
    cuts = campaign.trials(reduced=20, full=200)
    (power.disk / "state").mkdir(mode=0o700)
    found = _cut_often(power, tmp_path / "acknowledged", cuts, _write_journals(power.disk / "state"), _after_journals, within_s=0.05)
    said = f"{len(found.wrong)} journals lack a line or cannot be gone on with, {found.acknowledged:,} lines acknowledged"
    campaign.found(cuts, f"power cuts while journals are written ({found.hit} in the middle of one)", said)
    assert found.wrong == []
    assert found.acknowledged > cuts
    assert found.hit > cuts // 4


@pytest.mark.fault("J2")
@pytest.mark.control("J1")
def test_control_without_fsync_acknowledged_lines_are_gone(power: PowerCut, tmp_path: Path) -> None:
    (power.disk / "state").mkdir(mode=0o700)

    def work(tell: Tell) -> None:
        _forget_fsync()
        _write_journals(power.disk / "state")(tell)

    assert _cut_often(power, tmp_path / "acknowledged", CONTROL_CUTS, work, _after_journals).wrong

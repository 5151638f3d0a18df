"""A backup is killed at any system call, or told to end: nothing invalid is ever listed, and the next run begins anew."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from storekeeper.cli.signals import Stopped, listening
from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from tests.harness.campaign import Campaign
from tests.harness.chroma import execute
from tests.harness.descendants import WELL, Kept
from tests.harness.postgresql import start_server
from tests.harness.stacks import Lab, chroma_part, make_lab, postgresql_part
from tests.harness.tracing import any_call, killed_at, traced

# Which stores are backed up, and how many of the kills each stack takes.
STACKS = {"sqlite and files": (10, 500), "with chroma": (5, 250), "with postgresql": (5, 250)}
ASKED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def laboratory(stack: str, room: Path) -> Iterator[Lab]:
    with ExitStack() as opened:
        first = {}
        if stack == "with chroma":
            execute(room / "vectors-one", "load(collection('one-papers', sync=100), 400, 8)")
            first = {"vectors": chroma_part(room / "vectors", {"one": room / "vectors-one"})}
        elif stack == "with postgresql":
            first = {"rows": postgresql_part(opened.enter_context(start_server(major=18)))}
        lab = make_lab(room, sqlites=1, services=0, first=first)
        opened.callback(lab.close)
        lab.write("one")
        yield lab


def backup_of(lab: Lab) -> Callable[[], SetEntry]:
    return lambda: take_set(lab.context, purpose="backup")


def partials(lab: Lab) -> list[Path]:
    return sorted(lab.context.sets.path.glob(".*.partial"))


def invalid_among(lab: Lab, known: set[str]) -> list[str]:
    """What is wrong with any listed set that was not known before; those that are whole become known."""
    found = []
    for entry in lab.context.sets.entries():
        if entry.id in known:
            continue
        manifest = entry.manifest
        faults = [str(entry.reason)] if manifest is None else [each.message for each in check_artefacts(entry.path, manifest, Progress())]
        if manifest is not None and not faults:
            for name, record in manifest.stores.items():
                lab.context.stores[name].verify(entry.path / name, record)
            known.add(entry.id)
        found += [f"{entry.id}: {fault}" for fault in faults]
    return found


def next_run_is_good(lab: Lab) -> bool:
    """A run after a kill sweeps what was left, as soon as the programs that the kill orphaned have let go of it, and takes a good set."""
    assert take_set(lab.context, purpose="backup").state == "verified"
    deadline = time.monotonic() + 30
    while partials(lab) and time.monotonic() < deadline:
        lab.context.sets.sweep()
        time.sleep(0.05)
    for entry in lab.context.sets.entries()[:-1]:
        durable.remove_tree(entry.path)
    return not partials(lab)


@pytest.mark.fault("A2")
@pytest.mark.parametrize("stack", STACKS)
def test_a_backup_killed_at_any_system_call_never_leaves_an_invalid_set_and_the_next_run_begins_anew(
    tmp_path: Path, stack: str, campaign: Campaign
) -> None:
    kills, chance = campaign.trials(*STACKS[stack]), random.Random(stack)
    with laboratory(stack, tmp_path) as lab:
        whole = traced(backup_of(lab))
        assert whole.code == WELL, whole.message
        known: set[str] = set()
        killed = missed = half = good = 0
        invalid = invalid_among(lab, known)
        before = lab.sides()
        while killed < kills:
            code = killed_at(backup_of(lab), *any_call(whole.calls, chance)).code
            hit = code == -signal.SIGKILL
            killed, missed = killed + hit, missed + (not hit)
            assert hit or code == WELL
            assert missed <= kills, "hardly a run was killed: nothing was tested"
            half += bool(partials(lab))
            invalid += invalid_among(lab, known)
            if hit and (killed % 10 == 0 or killed == kills):
                good += next_run_is_good(lab)
        campaign.found(killed, f"kills of a backup at any system call ({stack})", f"{len(invalid)} invalid sets listed")
        assert invalid == []
        assert half > kills // 5, "the kills must hit backups that were under way"
        assert good == len([number for number in range(1, kills + 1) if number % 10 == 0 or number == kills])
        assert lab.sides() == before


def told_to_end(lab: Lab, number: int, after: float) -> tuple[Kept, float]:
    """A backup that hears signals as the program does, and is sent one after that time; and how long it took to end."""

    def take() -> None:
        with listening() as ears:
            os.write(hears, b"!")
            try:
                take_set(lab.context, purpose="backup")
            except Exception:
                if ears.heard is None:
                    raise
                raise ears.heard from None  # as the program does

    heard, hears = os.pipe()
    run = Kept(take)
    os.read(heard, 1)
    time.sleep(after)
    run.send(number)
    os.close(heard)
    os.close(hears)
    return run, time.monotonic()


@pytest.mark.fault("A3")
@pytest.mark.parametrize("stack", ["with chroma", "with postgresql"])
def test_a_backup_that_is_told_to_end_leaves_no_partial_no_lock_and_no_program(tmp_path: Path, stack: str, campaign: Campaign) -> None:
    count, chance, slowest = campaign.trials(4, 100), random.Random(stack), 0.0
    with laboratory(stack, tmp_path) as lab:
        began = time.monotonic()
        first = take_set(lab.context, purpose="backup")
        usual = time.monotonic() - began
        stopped, known = 0, {first.id}
        left: list[str] = []
        invalid: list[str] = []
        for number in range(count):
            run, asked = told_to_end(lab, ASKED[number % 2], chance.uniform(0, usual))
            ending = run.end()
            slowest = max(slowest, time.monotonic() - asked)
            is_stopped = ending.code != WELL
            assert not is_stopped or ending.message.startswith("Stopped: SIG"), ending
            stopped += is_stopped
            left += [path.name for path in partials(lab)] + ending.orphans + ["a lock"] * locks.is_held(lab.context.sets.path)
            lab.context.sets.sweep()
            invalid += invalid_among(lab, known)
            assert_writers_go_on(lab, stack)
        campaign.found(
            count,
            f"backups told to end by SIGTERM or SIGINT ({stack})",
            f"{stopped} stopped, {len(left)} left something, {slowest:.1f} s to the end at most",
        )
        assert (left, invalid) == ([], [])
        assert stopped > count // 3, "the signals must come while a backup is under way"
        assert slowest < 30, "it hangs"
        assert take_set(lab.context, purpose="backup").state == "verified"


@pytest.mark.fault("A3")
def test_a_backup_that_is_told_to_end_while_its_partial_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directory = durable.make_directory

    def told_to_end(path: Path, *mode: int) -> None:
        make_directory(path, *mode)
        if path.suffix == ".partial":
            raise Stopped(signal.SIGTERM)

    with laboratory("sqlite and files", tmp_path) as lab:
        monkeypatch.setattr(durable, "make_directory", told_to_end)
        with pytest.raises(Stopped):
            take_set(lab.context, purpose="backup")
        assert partials(lab) == []


def assert_writers_go_on(lab: Lab, stack: str) -> None:
    """No store is held any more: each can be written to without waiting."""
    live = lab.root / "live"
    for path in [live / "main.db", *([lab.root / "vectors/chroma.sqlite3"] if stack == "with chroma" else [])]:
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")


@pytest.mark.control("A3")
def test_control_a_backup_that_does_not_hear_the_signal_leaves_its_partial(tmp_path: Path) -> None:
    with laboratory("sqlite and files", tmp_path) as lab:
        began = time.monotonic()
        take_set(lab.context, purpose="backup")
        usual, left = time.monotonic() - began, 0
        for part in (0.4, 0.5, 0.6, 0.7):
            run = Kept(backup_of(lab))
            time.sleep(usual * part)
            run.send(signal.SIGTERM)
            assert run.end().code in (-signal.SIGTERM, WELL)
            left += bool(partials(lab))
        assert left

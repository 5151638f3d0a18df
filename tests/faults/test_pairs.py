"""Any two verbs at once: what docs/overlap.md says of each pair, with the first stopped at a moment, and all of them at random."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from storekeeper.cli.catalogue import BY_NAME
from storekeeper.host import locks
from storekeeper.outcomes import Busy
from tests.faults.guards.host import HOST
from tests.harness.campaign import Campaign
from tests.harness.markdown import blocks
from tests.harness.mutation import Guard, replaced
from tests.harness.overlap import BESIDE, BUSY, ENDS, REFUSED, VERBS, WALKS, Host, Stuck, words_of
from tests.harness.program import CHECKOUT

PAGE = CHECKOUT / "docs/overlap.md"
# Beside each other in every run of the tests; each of the others meets itself there, and all of them in the campaign.
OFTEN = ("backup", "restore", "verify", "prove", "prune", "status")
LANES = 2  # hosts that are worked on side by side
MIGRATIONS = ("migrate", "migrate test", "migrate --plan", "migrate current")
# Where nothing was restored, proven or planned yet, a plan is applied already, or a restore is at work.
MAY_REFUSE = (
    *MIGRATIONS,
    *("restore --document", "restore --document --plan", "restore --back", "restore --plan", "reset --plan"),
    *("recover", "recover --plan"),
    *("check", "repair plan", "repair apply", "repair undo", "repair reingest"),
)

LOCK = next(guard for guard in HOST if guard.name == "the lock of a stack")
LOOK = Guard(
    name="a backup takes up what is open",
    protects="no set of a mixture",
    cases=("D5",),
    file="storekeeper/verbs/backup.py",
    old="    interrupted = refuse_or_resume(context)\n",
    new="    interrupted: list[Problem] = []\n",
    tests=(),
)
NO_TURNS = Guard(
    name="proofs take turns while they make their scratch places",
    protects="no proof sweeps what another has just made",
    cases=("D5",),
    file="storekeeper/sets/scratch.py",
    old="locks.turn(noted):",
    new="locks.hold_directory(noted, shared=True):",
    tests=(),
)
SHORT_TURNS = replace(NO_TURNS, name="as it is, but less patient", file="storekeeper/host/locks.py", old="_TURN = 60.0", new="_TURN = 0.1")
AS_ITS_PLACE_WAS_MADE = r"open storekeeper-demo-[0-9a-f]{8}', None"


def program_with(room: Path, *changes: Guard) -> Path:
    """A copy of the program in which these were changed."""
    copy = room / "changed"
    shutil.copytree(CHECKOUT / "storekeeper", copy / "storekeeper", ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        path = copy / change.file
        path.write_text(replaced(path.read_text(encoding="utf-8"), change), encoding="utf-8")
    return copy


def documented() -> dict[tuple[str, str], str]:
    """What the page says of each pair: the one at work, and the one that begins."""
    heads, *rows = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {
        (first, second): cell.strip()
        for row in rows
        for first in named_in(row[0])
        for head, cell in zip(heads[1:], row[1:], strict=True)
        for second in named_in(head)
    }


def named_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def sentence_of(outcome: str, known: Mapping[str, object], number: int = 0) -> str:
    """The page's words for this outcome, as a pattern. What stands there in capitals may be anything, unless it is known."""
    lines = [line.strip() for block in blocks(PAGE, "text") for line in block.splitlines()]
    words = [line.removeprefix(f"{outcome}: ") for line in lines if line.startswith(f"{outcome}: ")][number]
    return re.sub(r"[A-Z]{3,}", lambda found: re.escape(str(known[found[0]])) if found[0] in known else r"\S+", re.escape(words))


def is_excused(second: str, complaints: str, at_work: int) -> bool:
    """Whether it is refused for what has nothing to do with turns: it finds nothing to do, or open what the first is just moving."""
    excuses = [
        ("recover", "nothing is wrong with"),
        ("restore --document", "holds no document 'one'"),
        ("repair reingest", "(no rule|nothing) of the plan .*in again"),
        *((plan, rf"is open in \S+ \(pid {at_work}\)") for plan in ("restore --plan", "reset --plan", "migrate --plan")),
    ]
    return any(second.startswith(verb) and re.search(words, complaints) for verb, words in excuses)


def otherwise(host: Host, first: str, seconds: Sequence[str]) -> list[str]:
    """What was not as the page says of these pairs."""
    page, found = documented(), []
    host.make_ready_for(first)
    to_restore = words_of([entry for entry in host.sets.entries() if entry.usable][-1].path)
    with host.stopped(first) as process:
        is_mixed = len(host.words()) > 1
        assert is_mixed == (first in WALKS), f"the moment of {first} is another one"
        for second in seconds:
            outcome, before, run = page[first, second].partition(",")[0], host.seen(), host.run(second)
            wrong = [] if run.code in ENDS[outcome] or is_excused(second, run.complaints, process.pid) else [f"ended with {run.code}"]
            if outcome != BESIDE:
                wrong += [] if host.seen() == before else [f"changed {before} to {host.seen()}"]
                known = {"VERB": first.split(maxsplit=1)[0], "PID": process.pid} if outcome == BUSY else {}
                sentence = sentence_of(outcome, known, int(outcome == REFUSED and first == "restore --document"))
                wrong += [] if re.search(sentence, run.complaints) else ["did not say why"]
                wrong += [] if re.search(r"next: storekeeper .*\bjobs\b", run.err) else ["did not say where to look"]
            if not is_mixed and len(host.words()) > 1:
                wrong.append(f"left a mix of {host.words()}")
            found += [f"{second} beside {first} {each}: {run.complaints}" for each in wrong]
        run = host.let_go(process)
    ends = ENDS[BESIDE] if first != "recover --plan" else ENDS[REFUSED]  # there is nothing to recover
    found += [] if run.code in ends else [f"{first} ended with {run.code}: {run.complaints}"]
    found += [f"{first} left {host.words()} instead of {to_restore}"] if first == "restore" and host.words() != to_restore else []
    return found + [f"after {first}: {each}" for each in host.left()]


def test_the_page_tells_of_every_verb_in_both_places_and_knows_how_they_end() -> None:
    page = documented()
    assert set(page) == set(itertools.product(VERBS, VERBS))
    assert {verb.split()[0] for verb in VERBS} == set(BY_NAME) - {"completion", "evict"}
    assert set(page.values()) == {BESIDE, *(f"{outcome}, {ENDS[outcome][0]}" for outcome in (BUSY, REFUSED))}


@pytest.mark.fault("D5")
def test_any_two_verbs_at_once_do_what_the_page_says_and_leave_no_set_and_no_store_in_a_mixture(tmp_path: Path, campaign: Campaign) -> None:
    often = [*OFTEN, "restore --plan", "check"]
    pairs = {first: list(VERBS) if campaign.full else often if first in OFTEN else [first] for first in VERBS}

    def lane(number: int) -> list[str]:
        host = Host(tmp_path / f"host-{number}")
        found = [each for first in list(VERBS)[number::LANES] for each in otherwise(host, first, pairs[first])]
        everything = host.type("verify demo --all")
        return found if everything.code in ENDS[BESIDE] else [*found, everything.err]

    with ThreadPoolExecutor(LANES) as lanes:
        wrong = [each for found in lanes.map(lane, range(LANES)) for each in found]
    tried = sum(map(len, pairs.values()))
    campaign.found(tried, "pairs, the first held in the middle of its work", f"{len(wrong)} otherwise than documented")
    assert wrong == []


@pytest.mark.fault("D5")
def test_a_set_that_is_on_its_way_out_is_waited_for_and_then_named(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.make_ready_for("prune")
    with host.stopped("prune") as process:
        oldest = host.going()
        for verb in ("verify", "prove", "send"):
            run = host.type(f"{verb} demo {oldest}")
            assert run.code == ENDS[BUSY][0], run.err
            assert re.search(sentence_of(BUSY, {"SET": oldest, "STACK": "demo"}, 1), run.complaints)
        assert host.let_go(process).code in ENDS[BESIDE]
    assert oldest not in [entry.id for entry in host.sets.entries()]
    assert host.left() == []


@pytest.mark.fault("D5")
def test_sets_that_go_while_a_dry_run_looks_at_them_are_no_fault(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.make_ready_for("prune")
    doomed = host.going()
    with host.stopped("prune --dry-run", at=rf"open /sets/demo/{doomed}', None") as dry_run:
        host.must("prune")
        assert not (host.sets.path / doomed).exists()
        run = host.let_go(dry_run)
    assert run.code in ENDS[BESIDE], run.err
    assert doomed not in run.out.decode()
    assert host.left() == []


@pytest.mark.control("D5")
def test_control_without_the_lock_a_way_back_in_the_middle_of_a_restore_leaves_one_that_nothing_ends(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", program_with(tmp_path, LOCK))
    host.make_ready_for("restore")
    with host.stopped("restore") as process:
        host.must("restore --back")
        assert host.let_go(process).code == 1
    assert host.left() == ["a restore is open"]
    assert [host.run(verb).code for verb in ("resume", "backup")] == [1, 1], "no set can be taken any more"


@pytest.mark.control("D5")
def test_control_without_the_lock_and_without_a_look_a_backup_keeps_a_mixture(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", program_with(tmp_path, LOCK, LOOK))
    host.make_ready_for("restore")
    with host.stopped("restore"):
        host.must("backup")
        newest = host.sets.entries()[-1]
    assert newest.usable
    assert len(words_of(newest.path)) == 2


@pytest.mark.fault("D5")
def test_a_proof_that_makes_its_place_is_waited_for_and_a_wait_in_vain_says_nothing_of_the_set(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", program_with(tmp_path, SHORT_TURNS))
    host.must("backup")  # one that is not proven yet
    with host.stopped("prove", AS_ITS_PLACE_WAS_MADE) as process:
        second = host.run("prove")
        assert (second.code, "has been locked by another run" in second.complaints) == (3, True), second.err
        assert host.sets.entries()[-1].state == "verified"
        assert host.let_go(process).code in (0, 4)
    assert host.sets.entries()[-1].state == "proven"
    assert host.left() == []


@pytest.mark.control("D5")
def test_control_without_turns_a_proof_sweeps_the_place_that_another_has_just_made(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", program_with(tmp_path, NO_TURNS))
    with host.stopped("prove", AS_ITS_PLACE_WAS_MADE) as process:
        host.must("prove")
        first = host.let_go(process)
    assert (first.code, "No such file" in first.complaints) == (3, True), first.err


# --- all of them at random ---


@dataclass
class Soak:
    """Verbs that are chosen at random, some at a time, beside an application that makes another word live whenever it may."""

    host: Host
    until: float
    ended: Counter[int] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    looks: int = 0
    met: int = 0  # how often a verb was at work when the application looked

    @property
    def goes_on(self) -> bool:
        """Until its time is over; on a slow machine until one has met another, for a minute at most."""
        has_met = self.met + self.ended[ENDS[BUSY][0]] > 0
        return time.monotonic() < self.until + (0 if has_met else 60) and not (self.stuck or self.wrong or self.mixed)

    def work(self, seed: int) -> None:
        chosen = random.Random(seed)
        while self.goes_on:
            verb = chosen.choice([*VERBS, *OFTEN, *WALKS])
            try:
                run = self.host.run(verb)
            except Stuck as error:
                self.stuck.append(str(error))
                return
            self.ended[run.code] += 1
            if run.code not in (*ENDS[BESIDE], *ENDS[BUSY], *(ENDS[REFUSED] if verb in MAY_REFUSE else ())):
                self.wrong.append(f"{verb} ended with {run.code}: {run.err}")

    def look(self, pause: threading.Event) -> None:
        """Under the lock nothing is on its way: what is live, and what every set holds, is of one word."""
        while self.goes_on:
            try:
                with locks.hold(self.host.lock, "the application"):
                    self.mixed += self.host.mixtures()
                    self.host.write()
                    self.looks += 1
            except Busy:
                self.met += 1
            pause.wait(0.1)


@pytest.mark.fault("D5")
def test_verbs_at_random_and_at_once_end_and_leave_nothing_that_is_mixed_or_invalid(tmp_path: Path, campaign: Campaign) -> None:
    host, seconds, workers = Host(tmp_path / "host"), campaign.trials(8, 1800), 3
    soak = Soak(host, time.monotonic() + seconds)
    with ThreadPoolExecutor(workers + 1) as pool:
        for done in [pool.submit(soak.look, threading.Event()), *(pool.submit(soak.work, seed) for seed in range(workers))]:
            done.result()
    everything = host.type("verify demo --all")
    left = [*soak.mixed, *host.left(), *([] if everything.code in ENDS[BESIDE] else [everything.err])]
    busy, runs = soak.ended[ENDS[BUSY][0]], sum(soak.ended.values())
    told = f"{len(soak.stuck)} deadlocks, {len(soak.wrong)} wrong ends, {len(left)} invalid sets or mixed states in {soak.looks:,} looks"
    campaign.found(runs, f"verbs at random in {seconds:,} s, {workers} at once ({busy:,} turned away)", told)
    assert (soak.stuck, soak.wrong, left) == ([], [], [])
    assert busy + soak.met > 0, "none met another: nothing was tested"
    assert soak.looks > 0

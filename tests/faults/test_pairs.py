"""Any two verbs at once: what docs/overlap.md says of each pair, with the first stopped at a moment, and all of them at random."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from storekeeper.cli.catalogue import BY_NAME
from storekeeper.host import locks
from storekeeper.outcomes import Busy
from storekeeper.restore.journal import unfinished
from storekeeper.sets.repository import Repository, StackSets
from tests.faults.guards.host import HOST
from tests.harness.campaign import Campaign
from tests.harness.markdown import blocks
from tests.harness.mutation import Guard, replaced
from tests.harness.program import CHECKOUT, Program
from tests.harness.stacks import read_papers, read_sqlite, write_papers, write_sqlite

PAGE = CHECKOUT / "docs/overlap.md"
BESIDE, BUSY, REFUSED = "beside", "busy", "refused"
ENDS: Mapping[str, Sequence[int]] = {BESIDE: (0, 4), BUSY: (75,), REFUSED: (2,)}
LIMIT_S = 60.0  # a verb takes less than a second here: one that takes this long waits for another
KEPT = 3
STACK = """
stack: demo
stores:
  main: {{kind: sqlite, path: {live}/main.db}}
  papers: {{kind: files, path: {live}/papers}}
backup: {{keep: {{days: 0, daily: 0, weekly: 0, monthly: 0, at_least: {kept}}}}}
restore: {{keep_old: 1m, keep_safety: 1m}}
"""

# All threads of a process stop when it is about to do what STOP_AT says: the name of an audit event, and what stands in its arguments.
HOOK = """
import os, re, signal, sys
event, words = os.environ.pop("STOP_AT").split(" ", 1)

def stop(name, given):
    global event
    if name == event and re.search(words, str(given)):
        event = None
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop)
"""
BETWEEN_THE_SWITCHES = r"os.rename papers-0/plan\.jsonl"  # one store is switched, the other is not
BEFORE_ITS_NAME = r"os.rename \.partial',"
IN_A_SET = r"open /sets/demo/\w+-\d+/main/database\.sqlite"


@dataclass(frozen=True)
class Verb:
    """What is typed, and the moment at which it is stopped where it is the first of two."""

    typed: str
    stops_at: str


VERBS = {
    "backup": Verb("backup demo", BEFORE_ITS_NAME),
    "receive": Verb("receive demo", BEFORE_ITS_NAME),
    "prune": Verb("prune demo --yes", r"os.rename /\.trash/"),
    "pin": Verb("pin demo latest", r"os.rename pin\.json"),
    "unpin": Verb("unpin demo latest", r"os.remove pin\.json"),
    "restore": Verb("restore demo latest --yes --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "restore --back": Verb("restore demo --back --yes --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "resume": Verb("resume demo --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "verify": Verb("verify demo", IN_A_SET),
    "prove": Verb("prove demo", r"sqlite3.connect storekeeper-demo-"),
    "send": Verb("send demo --quiet", IN_A_SET),
    "restore --plan": Verb("restore demo latest --plan --nobody-uses papers", r"sqlite3.connect main\.db"),
    "prune --dry-run": Verb("prune demo --dry-run", r"open manifest\.json"),
    "due": Verb("due demo", r"open /due\.json"),
    "list": Verb("list demo", r"open /state/demo/listing"),
    "status": Verb("status demo", r"open /state/demo/listing"),
    "jobs": Verb("jobs demo", r"open /state/jobs/demo/"),
    "doctor": Verb("doctor demo", r"sqlite3.connect main\.db"),
}
WALKS = ("restore", "restore --back", "resume")
# In every run of the tests; the others in the campaign.
OFTEN = ("backup", "restore", "verify", "prove", "prune", "status")
LANES = 2  # hosts that are worked on side by side
MAY_REFUSE = ("restore --back", "restore --plan")  # where nothing was restored yet, or a restore is at work

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
    old="locks.hold_directory(noted, within=_TURN) as turn:",
    new="locks.hold_directory(noted, shared=True) as turn:",
    tests=(),
)
SHORT_TURNS = replace(NO_TURNS, name="as it is, but less patient", old="_TURN = 60.0", new="_TURN = 0.1")
AS_ITS_PLACE_WAS_MADE = r"open storekeeper-demo-[0-9a-f]{8}', None"


class Stuck(Exception):
    """A run that did not come to its end: a deadlock."""


@dataclass(frozen=True)
class Run:
    code: int
    out: bytes
    err: str

    @property
    def complaints(self) -> str:
        return "\n".join(line for line in self.err.splitlines() if line.startswith("storekeeper: "))


class Host:
    """Two stores that hold one word, and sets of them; the verbs are processes of the program in `source`."""

    def __init__(self, room: Path, source: Path = CHECKOUT) -> None:
        room.mkdir()
        self.program = Program(room)
        self._live = room / "live"
        self._live.mkdir()
        self._stream = room / "stream"  # a set, for `receive`
        self._source = source
        self._hook = room / "hook"
        self._hook.mkdir()
        (self._hook / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        self._numbers = itertools.count(1)
        self.program.declare(STACK.format(live=self._live, kept=KEPT))
        self.write()
        self.must("backup")

    @property
    def lock(self) -> Path:
        return self.program.state / "demo/lock"

    @property
    def sets(self) -> StackSets:
        return Repository.open(self.program.repository, self.program.state).stack("demo")

    def write(self) -> None:
        """Make another word live in both stores."""
        word = f"w{next(self._numbers)}"
        write_sqlite(self._live / "main.db", word)
        write_papers(self._live / "papers", word)

    def words(self) -> set[str]:
        """What is live. Two are a mix."""
        return {read_sqlite(self._live / "main.db"), read_papers(self._live / "papers")}

    def seen(self) -> tuple[set[str], list[str]]:
        """What a verb that was turned away must not have changed."""
        return self.words(), [f"{entry.id} {entry.state}" for entry in self.sets.entries()]

    def start(self, typed: str, stops_at: str = "") -> subprocess.Popen[bytes]:
        path = f"{self._hook}:{self._source}" if stops_at else str(self._source)
        stop = {"STOP_AT": stops_at} if stops_at else {}
        if typed.startswith("receive") and not self._stream.exists():
            self._stream.write_bytes(self.must("send").out)
        with open(self._stream if typed.startswith("receive") else os.devnull, "rb") as given:
            return subprocess.Popen(
                self.program.argv(*typed.split()),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8", "PYTHONPATH": path, **stop},
            )

    def type(self, typed: str) -> Run:
        return self._ended(self.start(typed))

    def run(self, verb: str) -> Run:
        return self.type(VERBS[verb].typed)

    def must(self, verb: str) -> Run:
        run = self.run(verb)
        assert run.code in ENDS[BESIDE], f"{verb} ended with {run.code}: {run.err}"
        return run

    @contextmanager
    def stopped(self, verb: str, at: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """A run of this verb that stands still at its moment; killed when the block has not let it go."""
        process = self.start(VERBS[verb].typed, at or VERBS[verb].stops_at)
        try:
            told = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if told is None or told.si_code != os.CLD_STOPPED:
                raise AssertionError(f"{verb} ended before its moment: {self._ended(process).err}")
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def let_go(self, process: subprocess.Popen[bytes]) -> Run:
        process.send_signal(signal.SIGCONT)
        return self._ended(process)

    def make_ready_for(self, verb: str) -> None:
        """Another word is live, and there is something for this verb to do."""
        self.write()
        if verb == "prune":
            for _ in range(KEPT + 1):
                self.must("receive")  # which applies no retention: the first of these is one too many
        if verb == "unpin":
            self.must("pin")
        if verb == "restore --back":
            self.must("restore")
        if verb == "resume":
            with self.stopped("restore"):
                pass

    def mixtures(self) -> list[str]:
        """Stores, and sets, that hold two words, and sets that are not good."""
        entries = self.sets.entries()
        found = [f"live is mixed: {self.words()}"] if len(self.words()) > 1 else []
        found += [f"set {entry.id} is {entry.state}" for entry in entries if not entry.usable]
        return found + [f"set {entry.id} is mixed" for entry in entries if len(words_of(entry.path)) > 1]

    def left(self) -> list[str]:
        """What no run may leave when none is at work."""
        found = ["the lock is held"] if locks.is_held(self.lock) else []
        found += ["a restore is open"] if unfinished(self.program.state / "demo") else []
        found += self.mixtures()
        found += [f"{path} is held" for path in self.program.state.glob("jobs/demo/*.lock") if locks.is_held(path)]
        return found + [f"{path} is left" for path in (*self.sets.path.glob(".*.partial"), *self.program.root.glob("storekeeper-*"))]

    def _ended(self, process: subprocess.Popen[bytes]) -> Run:
        """Raises Stuck for one that does not end."""
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Stuck(f"{process.args!r} did not end: {process.communicate()[1]!r}") from None
        return Run(process.returncode, out, err.decode())


def words_of(path: Path) -> set[str]:
    """What a set holds."""
    return {read_sqlite(path / "main/database.sqlite"), read_papers(path / "papers/content")}


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


def otherwise(host: Host, first: str, seconds: Sequence[str]) -> list[str]:
    """What was not as the page says of these pairs."""
    page, found = documented(), []
    host.make_ready_for(first)
    to_restore = words_of(host.sets.entries()[-1].path)
    with host.stopped(first) as process:
        is_mixed = len(host.words()) > 1
        assert is_mixed == (first in WALKS), f"the moment of {first} is another one"
        for second in seconds:
            outcome, before, run = page[first, second].partition(",")[0], host.seen(), host.run(second)
            wrong = [] if run.code in ENDS[outcome] else [f"ended with {run.code}"]
            if outcome != BESIDE:
                wrong += [] if host.seen() == before else [f"changed {before} to {host.seen()}"]
                known = {"VERB": first.split(maxsplit=1)[0], "PID": process.pid} if outcome == BUSY else {}
                wrong += [] if re.search(sentence_of(outcome, known), run.complaints) else ["did not say why"]
            if not is_mixed and len(host.words()) > 1:
                wrong.append(f"left a mix of {host.words()}")
            found += [f"{second} beside {first} {each}: {run.complaints}" for each in wrong]
        run = host.let_go(process)
    found += [] if run.code in ENDS[BESIDE] else [f"{first} ended with {run.code}: {run.complaints}"]
    found += [f"{first} left {host.words()} instead of {to_restore}"] if first == "restore" and host.words() != to_restore else []
    return found + [f"after {first}: {each}" for each in host.left()]


def test_the_page_tells_of_every_verb_in_both_places_and_knows_how_they_end() -> None:
    page = documented()
    assert set(page) == set(itertools.product(VERBS, VERBS))
    assert {verb.split()[0] for verb in VERBS} == set(BY_NAME) - {"completion"}
    assert set(page.values()) == {BESIDE, *(f"{outcome}, {ENDS[outcome][0]}" for outcome in (BUSY, REFUSED))}


@pytest.mark.fault("D5")
def test_any_two_verbs_at_once_do_what_the_page_says_and_leave_no_set_and_no_store_in_a_mixture(tmp_path: Path, campaign: Campaign) -> None:
    firsts, seconds = (list(VERBS), list(VERBS)) if campaign.full else (list(OFTEN), [*OFTEN, "restore --plan"])

    def lane(number: int) -> list[str]:
        host = Host(tmp_path / f"host-{number}")
        found = [each for first in firsts[number::LANES] for each in otherwise(host, first, seconds)]
        everything = host.type("verify demo --all")
        return found if everything.code == 0 else [*found, everything.err]

    with ThreadPoolExecutor(LANES) as lanes:
        wrong = [each for found in lanes.map(lane, range(LANES)) for each in found]
    campaign.found(len(firsts) * len(seconds), "pairs, the first held in the middle of its work", f"{len(wrong)} otherwise than documented")
    assert wrong == []


@pytest.mark.fault("D5")
def test_a_set_that_is_on_its_way_out_is_waited_for_and_then_named(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.make_ready_for("prune")
    with host.stopped("prune") as process:
        oldest = host.sets.entries()[0].id
        for verb in ("verify", "prove", "send"):
            run = host.type(f"{verb} demo {oldest}")
            assert run.code == ENDS[BUSY][0], run.err
            assert re.search(sentence_of(BUSY, {"SET": oldest, "STACK": "demo"}, 1), run.complaints)
        assert host.let_go(process).code in ENDS[BESIDE]
    assert oldest not in [entry.id for entry in host.sets.entries()]
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
    with host.stopped("prove", AS_ITS_PLACE_WAS_MADE) as process:
        second = host.run("prove")
        assert (second.code, "has been locked by another run" in second.complaints) == (3, True), second.err
        assert host.sets.entries()[-1].state == "verified"
        assert host.let_go(process).code == 0
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
        return time.monotonic() < self.until and not (self.stuck or self.wrong or self.mixed)

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
    left = [*soak.mixed, *host.left(), *([] if everything.code == 0 else [everything.err])]
    busy, runs = soak.ended[ENDS[BUSY][0]], sum(soak.ended.values())
    told = f"{len(soak.stuck)} deadlocks, {len(soak.wrong)} wrong ends, {len(left)} invalid sets or mixed states in {soak.looks:,} looks"
    campaign.found(runs, f"verbs at random in {seconds:,} s, {workers} at once ({busy:,} turned away)", told)
    assert (soak.stuck, soak.wrong, left) == ([], [], [])
    assert busy + soak.met > 0, "none met another: nothing was tested"
    assert soak.looks > 0

"""A host on which verbs of the program run beside each other: what is typed, where each is stopped, and what may be left."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host import locks
from storekeeper.restore.journal import unfinished
from storekeeper.sets.repository import Repository, StackSets
from tests.harness.program import CHECKOUT, Program
from tests.harness.stacks import read_papers, read_sqlite, write_papers, write_sqlite

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
consistency:
  things:
    authority: {{store: main, query: "select id from things"}}
    replicas: [{{store: papers, pattern: "raw/extra_{{id}}.txt"}}]
  notes:
    authority: {{store: main, rows: [{{table: notes, key: id}}]}}
    replicas: [{{store: papers, pattern: "raw/note_{{id}}.txt"}}]
    brake: {{percent: 100, documents: 100}}
    reingest: {{run: [ls, "{{main}}"]}}
queries: {{words: {{store: main, query: "select distinct word from things"}}}}
migration: {{upgrade: {{run: [ls, "{{main}}"]}}, test: {{run: [ls, "{{main}}"]}}, current: {{run: [ls, "{{main}}"]}}}}
"""
PLAN = "PLAN"  # stands in what is typed for the newest plan of a repair

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
BETWEEN_THE_PLACES = r"os.rename kept/000002\.jsonl"  # the row is exchanged, the file is not
MOVES_A_FILE = r"os.rename /extra_\w+\.txt'"  # out of its place, or back
IN_THE_COMMAND = r"subprocess.Popen live/main\.db"  # of the application, on what is live
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
    "repair apply": Verb(f"repair apply demo {PLAN} --yes", MOVES_A_FILE),
    "repair undo": Verb(f"repair undo demo {PLAN} --yes", MOVES_A_FILE),
    "repair reingest": Verb(f"repair reingest demo {PLAN} --yes", IN_THE_COMMAND),
    "restore": Verb("restore demo latest --yes --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "restore --document": Verb("restore demo latest --document one --yes", BETWEEN_THE_PLACES),
    "restore --back": Verb("restore demo --back --yes --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "reset": Verb("reset demo --yes --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "recover": Verb("recover demo --store main --yes --nobody-uses main", r"os.rename /live/main\.db'"),
    "resume": Verb("resume demo --nobody-uses papers", BETWEEN_THE_SWITCHES),
    "migrate": Verb("migrate demo --yes --nobody-uses papers", IN_THE_COMMAND),
    "migrate test": Verb("migrate demo test --nobody-uses papers", r"sqlite3.connect storekeeper-demo-"),
    "verify": Verb("verify demo", IN_A_SET),
    "prove": Verb("prove demo", r"sqlite3.connect storekeeper-demo-"),
    "send": Verb("send demo --quiet", IN_A_SET),
    "restore --plan": Verb("restore demo latest --plan --nobody-uses papers", r"sqlite3.connect main\.db"),
    "restore --document --plan": Verb("restore demo latest --document one --plan", r"sqlite3.connect main\.db"),
    "reset --plan": Verb("reset demo --plan --nobody-uses papers", r"sqlite3.connect main\.db"),
    "recover --plan": Verb("recover demo --store main --plan --nobody-uses main", r"open main\.db'"),
    "migrate --plan": Verb("migrate demo --plan --nobody-uses papers", r"sqlite3.connect main\.db"),
    "migrate current": Verb("migrate demo current", IN_THE_COMMAND),
    "check": Verb("check demo", r"sqlite3.connect main\.db"),
    "repair plan": Verb("repair plan demo --at-once", r"sqlite3.connect main\.db"),
    "prune --dry-run": Verb("prune demo --dry-run", r"open manifest\.json"),
    "due": Verb("due demo", r"open /due\.json"),
    "list": Verb("list demo", r"open /state/demo/listing"),
    "history": Verb("history demo 1", r"open manifest\.json"),
    "status": Verb("status demo", r"open /state/demo/listing"),
    "jobs": Verb("jobs demo", r"open /state/jobs/demo/"),
    "query": Verb("query demo words", r"sqlite3.connect main\.db"),
    "examine": Verb("examine demo", r"sqlite3.connect main\.db"),
    "doctor": Verb("doctor demo", r"sqlite3.connect main\.db"),
}
WALKS = ("restore", "restore --back", "reset", "recover", "resume")


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
        self.note()
        self.must("backup")
        self.must("prove")
        self.must("pin")  # what is migrated is tried on a proven set

    @property
    def lock(self) -> Path:
        return self.program.state / "demo/lock"

    @property
    def sets(self) -> StackSets:
        return Repository.open(self.program.repository, self.program.state).stack("demo")

    def going(self) -> str:
        """The set that `prune` removes first, once it has something to remove."""
        return next(entry.id for entry in self.sets.entries() if entry.pinned is None)

    def write(self) -> None:
        """Make another word live in both stores."""
        word = f"w{next(self._numbers)}"
        write_sqlite(self._live / "main.db", word)
        write_papers(self._live / "papers", word)

    def note(self) -> None:
        """A document of which both stores hold a part, and no word is."""
        with closing(sqlite3.connect(self._live / "main.db")) as rows, rows:
            rows.execute("create table if not exists notes (id text primary key, said text not null)")
            rows.execute("insert or replace into notes values ('one', 'as it was')")
        note = self._live / "papers/raw/note_one.txt"
        note.parent.mkdir(parents=True, exist_ok=True)  # a reset leaves none
        note.write_text("as it was", encoding="utf-8")

    def spoil_note(self) -> None:
        with closing(sqlite3.connect(self._live / "main.db")) as rows, rows:
            rows.execute("update notes set said = 'spoilt'")
        (self._live / "papers/raw/note_one.txt").unlink()

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
        words = [self.newest_plan if word == PLAN else word for word in typed.split()]
        with open(self._stream if typed.startswith("receive") else os.devnull, "rb") as given:
            return subprocess.Popen(
                self.program.argv(*words),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8", "PYTHONPATH": path, **stop},
            )

    @property
    def newest_plan(self) -> str:
        plans = sorted(path.name for path in self.program.state.glob("demo/repairs/2*"))
        return plans[-1] if plans else "20000101T000000Z-000000000000"

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
        """Another word is live than in the newest set, a document is in both, and there is something for this verb to do."""
        self.note()
        taken = self.type("backup demo --accept-shrink main --accept-shrink papers")  # a reset may have come before
        assert taken.code in ENDS[BESIDE], taken.err
        self.write()
        if verb == "prune":
            for _ in range(KEPT + 1):
                self.must("receive")  # which applies no retention: the first of these is one too many
        if verb == "unpin":
            self.must("pin")
        if verb == "restore --back":
            self.must("restore")
        if verb.startswith("repair"):
            (self._live / f"papers/raw/extra_x{next(self._numbers)}.txt").touch()
        if verb in ("repair reingest", "restore --document"):
            self.spoil_note()
        if verb in ("repair apply", "repair undo", "repair reingest"):
            self.must("repair plan")
        if verb == "repair undo":
            self.must("repair apply")
        if verb == "recover":
            damage_index(self._live / "main.db")
        if verb == "resume":
            with self.stopped("restore"):
                pass

    def mixtures(self) -> list[str]:
        """Stores, and sets, that hold two words, and sets that are not good."""
        entries = [entry for entry in self.sets.entries() if entry.state != "incomplete"]  # a recovery keeps the damaged file in one
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


def damage_index(path: Path) -> None:
    """Damage that costs no row: an index of which no query makes use."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("create index if not exists by_id on things (id, word)")
        (root,) = connection.execute("select rootpage from sqlite_master where name = 'by_id'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(size))


def words_of(path: Path) -> set[str]:
    """What a set holds."""
    return {read_sqlite(path / "main/database.sqlite"), read_papers(path / "papers/content")}

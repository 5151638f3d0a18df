"""repair reingest: the application is asked for what is missing by its own command, and what a look finds afterwards is what is said."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency.reingesting import Skipped, written
from tests.harness.program import Ended, Program, hold_to

DOCUMENTS = 20
HOSTILE = ["--help", "a b;$(id)", "quo\"te's", "sp\u00e4t \U0001f9ea", "tab\there"]
QUERY = "select id, null, state, '2026-01-01T00:00:00Z' from documents"
# The application: it makes the files of what it reads about on its standard input, ids or lines of JSON.
TAKES_IN = """
import json, sys
from pathlib import Path
for line in sys.stdin.buffer.read().decode().splitlines():
    document = json.loads(line)["document"] if line.startswith("{") else line
    Path(sys.argv[1], document + ".txt").write_text("text of " + document)
"""


@dataclass
class Application:
    """Documents in a database, a file each; `seen` is what its command read the last time."""

    program: Program
    root: Path

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def seen(self) -> Path:
        return self.root / "seen"

    def declare(self, script: str | None = TAKES_IN, **reingest: Any) -> None:
        rule: dict[str, Any] = {
            "authority": {"store": "main", "query": QUERY},
            "states": {"complete": ["done"], "failed": ["failed"], "in_flight": ["work"]},
            "replicas": [{"store": "papers", "pattern": "{id}.txt"}],
            "brake": {"percent": 100, "documents": 10},
        }
        if script is not None:
            reading = f'tee {self.seen} | exec "$0" -c "$1" "$2"'
            run = ["sh", "-c", reading, sys.executable, script, str(self.files)]
            rule["reingest"] = {"run": run, **reingest}
        stores = {"main": {"kind": "sqlite", "path": f"{self.root}/main.db"}, "papers": {"kind": "files", "path": str(self.files)}}
        self.program.declare(json.dumps({"stack": "demo", "stores": stores, "consistency": {"documents": rule}}))

    def run(self, statement: str, *words: str) -> None:
        with closing(sqlite3.connect(self.root / "main.db")) as database, database:
            database.execute(statement, words)

    def add(self, document: str) -> None:
        self.run("insert into documents values (?, 'done')", document)
        (self.files / f"{document}.txt").write_text(f"text of {document}")

    def lose(self, *documents: str) -> None:
        for each in documents:
            (self.files / f"{each}.txt").unlink()

    def plan(self) -> str:
        return str(self.program.answer("repair", "plan", "demo").document["result"]["plan"]["id"])

    def reingest(self, plan: str, *words: str) -> Ended:
        return self.program.answer("repair", "reingest", "demo", plan, "--yes", *words)

    def counts(self, ended: Ended) -> dict[str, int]:
        found: dict[str, int] = ended.document["result"]["rules"]["documents"]
        return {key: count for key, count in found.items() if count}


@pytest.fixture
def application(tmp_path: Path) -> Application:
    made = Application(Program(tmp_path / "host"), tmp_path / "live")
    made.files.mkdir(parents=True)
    made.run("create table documents (id text primary key, state text)")
    for number in range(DOCUMENTS):
        made.add(f"doc-{number:02}")
    made.declare()
    return made


@pytest.mark.parametrize("reads", ["lines", "ids"])
def test_what_is_missing_is_taken_in_again_and_proven_by_a_look(application: Application, reads: str) -> None:
    application.declare(input=reads)
    application.lose("doc-03", "doc-11")
    planned = application.program.answer("repair", "plan", "demo").document
    plan = planned["result"]["plan"]["id"]
    assert any(str(each["next"]).endswith(f" repair reingest demo {plan}") for each in planned["problems"])
    ended = application.reingest(plan)
    hold_to(ended, 0, "ok")
    assert application.counts(ended) == {"asked": 2, "whole": 2}
    lines = application.seen.read_text().splitlines()
    assert (lines if reads == "ids" else [json.loads(each)["document"] for each in lines]) == ["doc-03", "doc-11"]
    assert application.program.answer("check", "demo").code == 0
    assert "2 documents were asked for again, 2 of them are whole" in (application.program.state / "demo/findings.log").read_text()


@pytest.mark.fault("F7")
def test_what_has_come_back_since_the_plan_is_not_asked_for(application: Application) -> None:
    application.lose("doc-03", "doc-11")
    plan = application.plan()
    (application.files / "doc-03.txt").write_text("made anew by the application")
    ended = application.reingest(plan)
    assert application.counts(ended) == {"asked": 1, "whole": 1}
    assert ended.document["result"]["skipped"] == [{"document": "doc-03", "why": "it is not missing any more"}]
    assert (application.files / "doc-03.txt").read_text() == "made anew by the application"


def test_a_command_that_says_it_went_well_and_did_nothing_is_found_out(application: Application) -> None:
    application.declare("import sys; sys.stdin.read()")
    application.lose("doc-03")
    ended = application.reingest(application.plan())
    hold_to(ended, 4, "warning", "documents: 1 are missing still, or not whole")
    assert application.counts(ended) == {"asked": 1, "missing": 1}


def test_what_the_application_has_only_begun_with_is_told_apart(application: Application) -> None:
    """Many only put it into a queue; what failed, and what they have removed meanwhile, is no success either."""
    database = f"import sqlite3; database = sqlite3.connect({str(application.root / 'main.db')!r}, isolation_level=None)\n"
    states = "for number, state in (('03', 'work'), ('04', 'failed')): "
    update = "database.execute('update documents set state = ? where id = ?', (state, 'doc-' + number))\n"
    gone = "database.execute(\"delete from documents where id = 'doc-05'\")"
    application.declare(f"{database}{states}{update}{gone}")
    application.lose("doc-03", "doc-04", "doc-05")
    ended = application.reingest(application.plan())
    hold_to(ended, 4, "warning", "1 have failed")
    assert application.counts(ended) == {"asked": 3, "in_flight": 1, "failed": 1, "gone": 1}


def test_a_command_that_fails_is_told_with_its_last_words_and_what_it_did_stays(application: Application) -> None:
    half = TAKES_IN.replace("    Path", "    if document == 'doc-11': sys.exit('no space left')\n    Path")
    application.declare(half)
    application.lose("doc-03", "doc-11")
    plan = application.plan()
    hold_to(application.reingest(plan), 1, "failed", "ended with 1: no space left")
    application.declare()
    assert application.counts(application.reingest(plan)) == {"asked": 1, "whole": 1}  # the same plan: the command is no part of the rule


@pytest.mark.fault("F10")
def test_ids_of_any_kind_arrive_as_they_are_and_in_nobodys_list_of_processes(application: Application) -> None:
    for each in HOSTILE:
        application.add(each)
    application.lose(*HOSTILE)
    plan = application.plan()
    for reads in ("ids", "lines"):
        application.declare(input=reads)
        assert application.counts(application.reingest(plan)) == {"asked": 5, "whole": 5}
        application.lose(*HOSTILE)


@pytest.mark.fault("F10")
def test_an_id_that_is_no_line_is_not_sent_as_one_and_said(tmp_path: Path) -> None:
    lines = [{"document": each} for each in ("a\nb", "good", "nul\0")]
    skipped = Skipped()
    told, _, count = written(tmp_path / "ids", lines, ids=True, skipped=skipped)
    assert (told.read_bytes(), count) == (b"good\n", 1)
    assert [each["document"] for each in skipped.named] == ["a\nb", "nul\0"]
    told, _, count = written(tmp_path / "lines", lines, ids=False, skipped=skipped)
    assert ([json.loads(line)["document"] for line in told.read_bytes().splitlines()], count) == (["a\nb", "good", "nul\0"], 3)


@pytest.mark.fault("F8")
def test_more_than_the_brake_lets_through_are_not_asked_for_without_a_limit(application: Application) -> None:
    application.lose(*(f"doc-{number:02}" for number in range(11)))
    plan = application.plan()
    hold_to(application.reingest(plan), 2, "refused", "has 11 documents of documents taken in again, the brake lets 10 through")
    assert not application.seen.exists()
    assert application.counts(application.reingest(plan, "--limit", "11")) == {"asked": 11, "whole": 11}


@pytest.mark.fault("F1")
def test_while_a_store_cannot_be_read_nothing_is_asked_for(application: Application) -> None:
    application.lose("doc-03")
    plan = application.plan()
    (application.root / "main.db").write_bytes(b"no database at all" * 100)
    ended = application.reingest(plan)
    hold_to(ended, 3, "unknown", "whether anything is missing is not known")
    assert not application.seen.exists()


def test_a_plan_without_a_command_or_without_anything_missing_is_refused(application: Application) -> None:
    nothing = application.plan()
    hold_to(application.reingest(nothing), 2, "refused", "nothing of the plan", "has to be taken in again")
    application.lose("doc-03")
    plan = application.plan()
    application.declare(None)
    hold_to(application.reingest(plan), 2, "refused", "no rule of the plan declares a command that takes documents in again: documents")
    application.declare(run=["/nowhere/at/all"])
    hold_to(application.reingest(plan), 2, "refused", "there is no program /nowhere/at/all")


def test_a_run_that_is_killed_leaves_a_plan_that_can_be_asked_for_again(application: Application) -> None:
    application.declare("import time; time.sleep(60)", timeout="5m")
    application.lose("doc-03")
    plan = application.plan()
    running = application.program.start("repair", "reingest", "demo", plan, "--yes")
    wait_until(application.seen.exists)
    children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=True).stdout.split()
    running.send_signal(signal.SIGKILL)
    running.communicate()
    for each in children:
        os.kill(int(each), signal.SIGTERM)  # `timeout`, which ends what it has started
    application.declare()
    assert wait_for(lambda: application.reingest(plan), lambda ended: ended.code != 75).code == 0


def wait_until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for(attempt: Callable[[], Ended], is_good: Callable[[Ended], bool], tries: int = 20) -> Ended:
    for _ in range(tries):
        if is_good(ended := attempt()):
            return ended
        time.sleep(0.5)
    raise AssertionError("it was busy for ever")

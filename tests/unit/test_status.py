"""status: attention where it is due, unknown where nothing can be told, and no good news from silence."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import pytest

from storekeeper.cli.contract import RESULTS
from storekeeper.host import clock, jobs
from storekeeper.outcomes import Outcome, Severity
from storekeeper.restore.journal import Journal
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.stack.config import Places, load_places
from storekeeper.verbs import status as status_module
from storekeeper.verbs.report import Report
from storekeeper.verbs.status import status
from tests.harness.program import CHECKOUT
from tests.harness.sets import START, open_sets, publish, write_source

SCHEDULE = 'schedule: {backup: "0 3 * * *", prove: "0 4 * * *"}\n'


class Host:
    """A declared stack, its real sets, its records, and a clock that can be set."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._monkeypatch = monkeypatch
        (root / "etc/stacks").mkdir(parents=True)
        (root / "etc/storekeeper.yml").write_text(f"repository: {root}/repository\nstate: {root}/state\nscratch: {root}\n")
        self.declare(SCHEDULE)
        write_source(root / "papers")

    def declare(self, more: str) -> None:
        (self.root / "etc/stacks/demo.yml").write_text(f"stack: demo\nstores:\n  papers: {{kind: files, path: {self.root}/papers}}\n{more}")

    @property
    def places(self) -> Places:
        return load_places(self.root / "etc")

    @property
    def sets(self) -> StackSets:
        return open_sets(self.root)

    def publish(self, at: datetime = START) -> SetEntry:
        return publish(self.sets, self.root / "papers", at)

    def prove(self, entry: SetEntry, at: datetime = START, outcome: str = "ok") -> None:
        self.sets.records.add(entry.id, "prove", outcome, at, reason=None if outcome == "ok" else "the row counts differ")

    def ran(self, verb: str, outcome: str, message: str | None = None) -> None:
        folder = self.root / "state/jobs/demo"
        folder.mkdir(parents=True, exist_ok=True)
        with jobs.recorded(folder, verb, "demo", {}) as job:
            job.finish({"outcome": outcome, "seconds": 1.0, "problems": [{"message": message}] if message else []})

    def at(self, moment: datetime) -> Report:
        """The status as it is at that time, held to its contract."""
        with self._monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: moment)
            report = status(self.places, None)
        jsonschema.validate(json.loads(json.dumps(dict(report.result))), RESULTS["status"][0])
        return report


@pytest.fixture
def host(tmp_path, monkeypatch) -> Host:
    return Host(tmp_path, monkeypatch)


def messages(report: Report) -> list[str]:
    assert all(problem.stack == "demo" for problem in report.problems)
    return [problem.message for problem in report.problems]


def test_a_stack_that_was_never_backed_up_needs_attention(host):
    report = host.at(START)
    assert report.ended() is Outcome.WARNING
    assert messages(report) == ["there is no usable backup"]
    assert report.result["stacks"]["demo"]["last_backup"] is None


def test_a_backup_that_was_never_proven_needs_attention(host):
    host.publish()
    report = host.at(START + timedelta(hours=1))
    assert messages(report) == ["no backup has been proven to restore"]
    assert report.result["stacks"]["demo"]["last_proof"] is None


def test_a_young_proven_backup_is_well(host):
    host.prove(host.publish(), START + timedelta(hours=1))
    report = host.at(START + timedelta(hours=3))
    assert (report.ended(), messages(report)) == (Outcome.OK, [])
    found = report.result["stacks"]["demo"]
    assert (found["last_backup"]["age_s"], found["last_backup"]["limit_s"]) == (3 * 3600, 26 * 3600)
    assert (found["last_proof"]["age_s"], found["last_proof"]["limit_s"]) == (2 * 3600, 26 * 3600)
    assert found["stores"]["papers"]["last_proof"] == found["last_proof"]
    assert found["stores"]["papers"]["state"] is None, "nobody asked the store"
    assert (found["backups"]["usable"], found["backups"]["proven"]) == (1, 1)


@pytest.mark.parametrize(("hours", "is_late"), [(26, False), (27, True)])
def test_a_backup_that_did_not_come_is_missed_after_its_gap_and_two_hours(host, hours, is_late):
    host.prove(host.publish(), START + timedelta(hours=20))
    report = host.at(START + timedelta(hours=hours))
    assert any(message.startswith("the newest backup is") for message in messages(report)) is is_late
    assert report.ended() is (Outcome.WARNING if is_late else Outcome.OK)


def test_a_proof_that_did_not_come_is_missed_though_backups_go_on(host):
    host.prove(host.publish(START - timedelta(hours=48)), START - timedelta(hours=47))
    host.publish(START)
    assert messages(host.at(START + timedelta(hours=1))) == ["the newest proof is 48 h old, its schedule allows 26 h"]


def test_without_a_schedule_no_age_is_too_old(host):
    host.declare("")
    host.prove(host.publish())
    report = host.at(START + timedelta(days=400))
    assert report.ended() is Outcome.OK
    assert report.result["stacks"]["demo"]["next_run"] is None
    assert report.result["stacks"]["demo"]["last_backup"]["limit_s"] is None


def test_the_next_run_is_that_of_the_backup(host, monkeypatch):
    monkeypatch.setattr("storekeeper.stack.cron.local_zone", lambda: START.tzinfo)
    host.declare('schedule: {backup: "0 3 * * *", verify: "*/5 * * * *"}\n')
    assert host.at(START + timedelta(hours=1)).result["stacks"]["demo"]["next_run"] == "2025-01-10T03:00:00Z"


@pytest.mark.parametrize(("outcome", "state"), [("failed", "unprovable")])
def test_a_set_that_does_not_restore_needs_attention(host, outcome, state):
    host.prove(host.publish(START - timedelta(hours=5)), START - timedelta(hours=4))
    host.prove(host.publish(START), START, outcome)
    (message,) = messages(host.at(START + timedelta(hours=1)))
    assert state in message
    assert "the row counts differ" in message


def test_a_set_dated_after_now_needs_attention(host):
    host.prove(host.publish(START + timedelta(days=365)), START)
    assert any("dated after now" in message for message in messages(host.at(START)))


@pytest.mark.parametrize("outcome", ["failed", "unknown", "refused"])
def test_a_backup_that_did_not_go_well_needs_attention_until_one_does(host, outcome):
    host.prove(host.publish())
    host.ran("backup", outcome, "the disk is full")
    (message,) = messages(host.at(START))
    assert f"ended {outcome}: the disk is full" in message
    host.ran("backup", "warning")
    assert messages(host.at(START)) == []


def test_a_prune_that_was_refused_because_of_it_is_no_second_alarm(host):
    host.prove(host.publish())
    host.ran("backup", "failed", "the disk is full")
    host.ran("prune", "refused", "the newest backup failed")
    assert len(messages(host.at(START))) == 1


@pytest.mark.fault("D6")
def test_a_run_that_is_skipped_again_and_again_needs_attention(host):
    host.prove(host.publish())
    host.ran("backup", "busy", "verify has been running since yesterday")
    assert messages(host.at(START)) == []
    host.ran("backup", "busy", "verify has been running since yesterday")
    assert messages(host.at(START)) == ["the last 2 runs of backup were skipped, another run was at work"]


def test_a_restore_that_was_interrupted_needs_attention(host):
    host.prove(host.publish())
    Journal.create(host.root / "state/demo", {"purpose": "restore", "stack": "demo", "set": "x", "stores": ["papers"]})
    report = host.at(START)
    assert messages(report) == ["a restore was interrupted and is unfinished"]
    assert report.problems[0].next == "storekeeper resume demo"


def test_a_restore_under_way_is_no_interrupted_one(host):
    host.prove(host.publish())
    Journal.create(host.root / "state/demo", {"purpose": "restore", "stack": "demo", "set": "x", "stores": ["papers"]})
    (host.root / "state/jobs/demo").mkdir(parents=True)
    with jobs.recorded(host.root / "state/jobs/demo", "restore", "demo", {}):
        assert messages(host.at(START)) == []


@pytest.mark.fault("I4")
def test_an_unmounted_repository_is_unknown_and_not_an_empty_one(host):
    host.prove(host.publish())
    (host.root / "repository").rename(host.root / "gone")
    (host.root / "repository").mkdir(mode=0o700)
    report = host.at(START)
    assert report.ended() is Outcome.UNKNOWN
    assert report.problems[0].severity is Severity.ERROR
    found = report.result["stacks"]["demo"]
    assert (found["backups"], found["last_backup"]) == (None, None)
    assert not any("no usable backup" in message for message in messages(report)), "what could not be looked at is not said to be empty"


@pytest.mark.fault("I4")
def test_records_that_cannot_be_read_are_unknown(host):
    host.prove(host.publish())
    host.ran("backup", "ok")
    next((host.root / "state/jobs/demo").glob("*.json")).write_text("{")
    report = host.at(START)
    assert report.ended() is Outcome.UNKNOWN
    assert report.result["stacks"]["demo"]["last_backup"] is not None, "what could be read is still told"


def test_no_stack_at_all_is_no_good_news(host):
    (host.root / "etc/stacks/demo.yml").unlink()
    report = status(host.places, None)
    assert report.ended() is Outcome.WARNING
    assert report.result == {"stacks": {}}


@pytest.mark.fault("I4")
def test_a_live_look_asks_the_stores_and_does_not_take_silence_for_well(host):
    host.prove(host.publish())
    up = status(host.places, "demo", live=True).result["stacks"]["demo"]["stores"]["papers"]
    assert up["state"] == "up"
    assert up["counts"]["files"] == 4
    (host.root / "papers").rename(host.root / "elsewhere")
    report = status(host.places, "demo", live=True)
    assert report.ended() is Outcome.UNKNOWN
    assert report.result["stacks"]["demo"]["stores"]["papers"]["state"] == "unknown"
    assert any(problem.store == "papers" for problem in report.problems)


def test_a_frequent_look_loads_none_of_the_heavy_libraries(host):
    host.prove(host.publish())
    (host.root / "etc/storekeeper.yml").unlink()  # its reader is the one thing that needs YAML
    code = (
        "import sys, pathlib\n"
        "from storekeeper.stack.config import Places\n"
        "from storekeeper.verbs.status import status\n"
        f"root = pathlib.Path({str(host.root)!r})\n"
        "status(Places(root / 'etc', root / 'repository', root / 'state', root), None)\n"
        "print(sorted({'yaml', 'pydantic', 'psycopg', 'chromadb', 'rich'} & set(sys.modules)))\n"
    )

    def loaded() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout.strip()

    assert loaded() == "['pydantic', 'yaml']", "the control: the first look reads the stack file itself"
    assert loaded() == "[]"


@pytest.mark.control("I4")
def test_a_measurement_that_failed_taken_for_an_empty_one_would_be_a_number(host, monkeypatch):
    """The control: without the word for unknown the unmounted disk is told as no sets at all."""
    host.prove(host.publish())
    (host.root / "repository").rename(host.root / "gone")
    (host.root / "repository").mkdir(mode=0o700)
    assert host.at(START).result["stacks"]["demo"]["backups"] is None
    monkeypatch.setattr(status_module, "known_sets", lambda *_: None)
    found = host.at(START).result["stacks"]["demo"]["backups"]
    assert (found["usable"], found["bytes"]) == (0, 0)


@pytest.mark.fault("I4")
def test_a_store_that_does_not_answer_a_live_look_has_no_numbers_of_now(host):
    """What is shown then are the figures of the newest backup, with their age, and never a zero."""
    host.prove(host.publish())
    (host.root / "papers").rename(host.root / "elsewhere")
    found = status(host.places, "demo", live=True).result["stacks"]["demo"]["stores"]["papers"]
    assert (found["state"], found["counts"]["files"] > 0, found["as_of"]) == ("unknown", True, "2025-01-09T03:00:00Z")

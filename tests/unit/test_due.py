"""What a schedule asked for and did not get: owed once, whatever kept it, and never what was before anybody asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from storekeeper.host import clock, jobs
from storekeeper.host.formats import NewerFormat
from storekeeper.outcomes import Failed
from storekeeper.stack.cron import CronTime
from storekeeper.stack.outline import OutlineEntry
from storekeeper.verbs import due
from storekeeper.verbs.following import Wanted

NIGHTLY = due.Entry(OutlineEntry("backup", (), CronTime.parse("0 3 * * *")), Wanted("backup", {}))
MONTHLY = due.Entry(OutlineEntry("verify", ("--all",), CronTime.parse("0 5 1 * *")), Wanted("verify", {"all": True}))


class Host:
    """Its clock, its records, and what it finds owed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.folder = root / "state", root / "jobs"
        self.state.mkdir()
        self.folder.mkdir()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda: self.now)

    def at(self, text: str) -> Host:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return self

    def owed(self, *entries: due.Entry, spread: timedelta = timedelta(), zone: ZoneInfo | None = None) -> list[str]:
        found = due.missed(self.state, entries or (NIGHTLY,), jobs.records(self.folder), zone or ZoneInfo("UTC"), spread)
        return [f"{each.entry.declared.verb} {each.planned:%m-%d %H:%M}" for each in found]

    def ran(self, entry: due.Entry = NIGHTLY, outcome: str | None = "ok") -> None:
        with jobs.recorded(self.folder, entry.wanted.verb, "demo", entry.wanted.arguments) as job:
            if outcome is not None:
                job.finish({"outcome": outcome, "seconds": 1.0, "problems": []})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_nothing_is_owed_of_the_time_before_the_schedule_was_there(host: Host) -> None:
    assert host.owed() == []
    assert host.at("2026-03-02 02:59").owed() == []


def test_a_run_that_did_not_begin_is_owed_from_its_grace_on_until_it_ran(host: Host) -> None:
    host.owed()
    assert host.at("2026-03-02 03:04").owed() == []
    assert host.at("2026-03-02 03:06").owed() == ["backup 03-02 03:00"]
    assert host.at("2026-03-02 04:06").owed() == ["backup 03-02 03:00"]
    host.ran()
    assert host.owed() == []
    assert host.at("2026-03-03 02:00").owed() == []


def test_many_missed_times_are_one_run(host: Host) -> None:
    host.owed()
    assert host.at("2026-03-20 10:00").owed() == ["backup 03-20 03:00"]
    host.ran()
    assert host.at("2026-03-20 11:00").owed() == []


@pytest.mark.parametrize(("outcome", "owed"), [("ok", 0), ("warning", 0), ("failed", 0), ("refused", 0), ("busy", 1), (None, 1)])
def test_a_run_that_failed_is_not_repeated_but_one_that_was_turned_away_or_cut_off_is(host: Host, outcome: str | None, owed: int) -> None:
    host.owed()
    host.at("2026-03-02 03:00").ran(outcome=outcome)
    assert len(host.at("2026-03-02 03:17").owed()) == owed


def test_a_run_that_goes_on_is_no_missed_one(host: Host) -> None:
    host.owed()
    host.at("2026-03-02 03:00")
    with jobs.recorded(host.folder, "backup", "demo", {}):
        assert host.at("2026-03-02 03:17").owed() == []


def test_a_run_of_other_words_or_of_before_is_another(host: Host) -> None:
    host.owed(NIGHTLY, MONTHLY)
    host.at("2026-04-01 02:00").ran()
    host.ran(due.Entry(MONTHLY.declared, Wanted("verify", {})))
    assert host.at("2026-04-01 05:30").owed(NIGHTLY, MONTHLY) == ["backup 04-01 03:00", "verify 04-01 05:00"]


def test_what_has_run_is_remembered_when_its_record_is_gone(host: Host) -> None:
    host.owed(NIGHTLY, MONTHLY)
    host.at("2026-04-01 05:00").ran(MONTHLY)
    host.ran()
    assert host.at("2026-04-01 05:30").owed(NIGHTLY, MONTHLY) == []
    for record in host.folder.glob("*.json"):
        record.unlink()
    assert host.at("2026-04-02 02:00").owed(NIGHTLY, MONTHLY) == []


def test_an_entry_whose_time_was_changed_begins_anew(host: Host) -> None:
    host.owed()
    later = due.Entry(OutlineEntry("backup", (), CronTime.parse("0 4 * * *")), NIGHTLY.wanted)
    assert host.at("2026-03-02 12:00").owed(later) == []
    assert host.at("2026-03-03 04:06").owed(later) == ["backup 03-03 04:00"]


def test_the_spread_is_waited_for(host: Host) -> None:
    host.owed(spread=timedelta(hours=1))
    assert host.at("2026-03-02 04:00").owed(spread=timedelta(hours=1)) == []
    assert host.at("2026-03-02 04:06").owed(spread=timedelta(hours=1)) == ["backup 03-02 03:00"]


@pytest.mark.parametrize(
    ("before", "after", "planned"),
    [("2026-03-28 12:00", "2026-03-29 01:06", "03-29 03:00"), ("2026-10-24 12:00", "2026-10-25 00:36", "10-25 02:30")],
    ids=["the hour that is left out", "the hour that comes twice"],
)
def test_nights_when_the_clock_changes_owe_one_run(host: Host, before: str, after: str, planned: str) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    entry = due.Entry(OutlineEntry("backup", (), CronTime.parse("30 2 * * *")), NIGHTLY.wanted)
    host.at(before).owed(entry, zone=berlin)
    assert host.at(after).owed(entry, zone=berlin) == [f"backup {planned}"]
    host.ran()
    for hour in range(1, 8):
        host.now += timedelta(hours=1)
        assert host.owed(entry, zone=berlin) == [], hour


def test_nothing_is_written_where_nothing_has_changed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.owed()
    written: list[object] = []
    monkeypatch.setattr(due.durable, "write_json", lambda *given: written.append(given))
    host.at("2026-03-01 20:00").owed()
    assert written == []


def test_what_a_newer_version_wrote_is_refused(host: Host) -> None:
    host.owed()
    file = host.state / "due.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    with pytest.raises(NewerFormat):
        host.owed()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "settled": []}', '{"schema": 1, "settled": {"a": 7}}'])
def test_what_is_damaged_is_said_in_a_sentence_and_nothing_is_carried_out_or_written(host: Host, text: str) -> None:
    host.owed()
    file = host.state / "due.json"
    file.write_text(text)
    with pytest.raises(Failed, match=r"due\.json does not say what was carried out") as refused:
        host.at("2026-03-20 10:00").owed()
    assert refused.value.next == f"rm {file}"
    assert file.read_text() == text


def test_each_is_carried_out_once_and_told(host: Host) -> None:
    host.owed(NIGHTLY, MONTHLY)
    host.at("2026-04-01 12:00")
    asked: list[str] = []

    def run(outcome: str) -> Callable[[due.Entry], jobs.Record]:
        def carry_out(entry: due.Entry) -> jobs.Record:
            asked.append(entry.text)
            host.ran(entry, outcome)
            return jobs.records(host.folder)[-1]

        return carry_out

    entries = (NIGHTLY, MONTHLY)
    report = due.due(host.state, host.folder, entries, ZoneInfo("UTC"), timedelta(), run("failed"))
    assert asked == ["0 3 * * * backup", "0 5 1 * * verify --all"]
    assert [each["outcome"] for each in report.result["runs"]] == ["failed", "failed"]
    assert report.ended() == "warning"
    assert due.due(host.state, host.folder, entries, ZoneInfo("UTC"), timedelta(), run("ok")).result["runs"] == []

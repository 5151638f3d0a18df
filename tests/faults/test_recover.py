"""A damaged database is made anew and switched to, or nothing at all is changed: killed anywhere, without room, beside writers."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.restore.journal import Journal, journals, unfinished
from storekeeper.restore.walk import Walk
from storekeeper.stores.protocol import Rescued
from storekeeper.verbs.recover import recover
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness import damaged
from tests.harness import sqlite as sqlite_lab
from tests.harness.campaign import Campaign
from tests.harness.mounts import disk, fill
from tests.harness.restoring import lines_of, record_proof, running, said
from tests.harness.stacks import Lab, digest_of_tree, in_child, killing, make_lab

pytestmark = pytest.mark.lab(sqlites=2, services=2)
WORD = "w" * 180  # long enough for a table of many pages


def main_of(lab: Lab) -> Path:
    return lab.root / "live/main.db"


def damage(lab: Lab) -> bytes:
    """Make the middle of a table of `main` unreadable; returns the file."""
    lab.write(WORD)
    leaves = damaged.pages_of(main_of(lab), "things", "leaf")
    damaged.overwrite(main_of(lab), leaves[len(leaves) // 2])
    return main_of(lab).read_bytes()


def rows(lab: Lab) -> int:
    with closing(sqlite3.connect(main_of(lab))) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return int(connection.execute("select count(*) from things").fetchone()[0])


@pytest.mark.fault("E-28")
def test_what_can_be_read_is_live_the_others_are_untouched_and_the_damaged_file_comes_back_bit_by_bit(lab: Lab) -> None:
    proven = lab.take(WORD)
    record_proof(lab, proven)
    before = damage(lab)
    planned = recover(lab.context, "main", plan=True)
    told = planned.result["plan"]["rescued"]["tables"]["things"]
    assert (told["lost"], told["pages"], told["in_set"]) == (None, 1, len(WORD) + 300)
    assert main_of(lab).read_bytes() == before
    assert journals(lab.context.state) == []
    others = {name: lab.readers[name]() for name in ("meta", "papers")}

    report = recover(lab.context, "main", plan=False)
    assert report.ended() == "warning"
    assert rows(lab) == report.result["rescued"]["tables"]["things"]["rows"] == told["rows"]
    assert len(WORD) + 300 - 40 < told["rows"] < len(WORD) + 300
    assert {name: lab.readers[name]() for name in others} == others
    assert running(lab) == [True, True]
    assert f"the newest proven set, {proven.id}, holds more than can be rescued" in said(report)
    command = f"storekeeper restore demo {proven.id} --only main --accept-unreadable main --plan"
    assert command in [problem.next for problem in report.problems]
    safety = lab.context.sets.entry(report.result["safety_set"])
    assert (safety.state, safety.pinned is not None) == ("incomplete", True)
    assert (safety.path / "main/raw.sqlite").read_bytes() == before

    assert report.result["back"] == "storekeeper restore demo --back"
    restore(lab.context, RestoreRequest(back=True))
    assert main_of(lab).read_bytes() == before
    assert running(lab) == [True, True]


@pytest.mark.fault("E-28")
def test_a_database_that_is_whole_or_has_no_beginning_is_refused_and_no_service_is_stopped(lab: Lab) -> None:
    proven = lab.take(WORD)
    record_proof(lab, proven)
    pids = [service.pid for service in lab.services]
    for plan in (True, False):
        with pytest.raises(Refused, match="nothing is wrong with") as refused:
            recover(lab.context, "main", plan=plan)
        assert refused.value.next == "storekeeper examine demo --store main"
    with open(main_of(lab), "r+b") as file:
        file.write(bytes(100))
    before = digest_of_tree(lab.root / "live")
    with pytest.raises(Refused, match="cannot be made anew from what is left") as refused:
        recover(lab.context, "main", plan=False)
    assert refused.value.next == f"storekeeper restore demo {proven.id} --only main --accept-unreadable main --plan"
    with pytest.raises(Refused, match="only a SQLite database"):
        recover(lab.context, "papers", plan=False)
    assert digest_of_tree(lab.root / "live") == before
    assert [service.pid for service in lab.services] == pids
    assert journals(lab.context.state) == []


@pytest.mark.fault("E-28")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_its_journal_leaves_the_damaged_file_or_the_new_one(lab: Lab, after: bool, campaign: Campaign) -> None:
    before = damage(lab)
    recover(lab.context, "main", plan=False)
    anew, steps, ended, kills = rows(lab), len(lines_of(lab)), set(), 0
    for number in range(1, steps + 1, campaign.trials(3, 1)):
        main_of(lab).write_bytes(before)

        def walk(number: int = number) -> None:
            Journal.write = killing(number, after=after)  # type: ignore[method-assign]
            recover(lab.context, "main", plan=False)

        assert in_child(walk) == -signal.SIGKILL
        kills += 1
        how = resume(lab.context).result["ended"]
        assert main_of(lab).read_bytes() == before or rows(lab) == anew, f"killed at line {number}"
        assert not list(main_of(lab).parent.glob(".main.*.near*"))
        assert unfinished(lab.context.state) is None
        assert running(lab) == [True, True], f"services after line {number}"
        ended.add(how)
    campaign.found(kills, f"kills {'after' if after else 'before'} a line of a recovery's journal", "0 states that are neither")
    assert {"abandoned", "done"} <= ended


@pytest.mark.fault("E-28")
def test_without_room_for_the_new_file_nothing_is_changed_and_services_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(tmp_path / "live", "4m") as place:
        lab = make_lab(tmp_path)
        before = damage(lab)
        filler = fill(place, leave=20_000)
        with pytest.raises(Refused, match="a recovery needs"):
            recover(lab.context, "main", plan=False)
        assert journals(lab.context.state) == []
        monkeypatch.setattr("storekeeper.restore.recovering.space.check", lambda *_, **__: [])  # as if it had been full only later
        with pytest.raises(Failed, match=r"No space left on device.*the live data was not touched"):
            recover(lab.context, "main", plan=False)
        assert main_of(lab).read_bytes() == before
        assert running(lab) == [True, True]
        assert unfinished(lab.context.state) is None
        filler.unlink()
        monkeypatch.undo()
        recover(lab.context, "main", plan=False)
        assert rows(lab) > 300
        lab.close()


class Writer:
    """A service that writes a row after the other into a table that is whole, until it is stopped for the first time; `log` is what it was
    told is written."""

    label = "writer"

    def __init__(self, path: Path, log: Path) -> None:
        self._path = path
        self._held = ExitStack()
        self._process: sqlite_lab.Program | None = None
        self._runs = False
        self.log = log

    def is_running(self) -> bool:
        return self._runs

    def start(self) -> None:
        self._runs = True
        if not self.log.exists() and self._process is None:
            source = sqlite_lab.WRITER.replace("papers (title, body) values (?, '')", "log (line) values (?)")
            source = source.replace('    connection.execute("insert', '    time.sleep(0.3)\n        connection.execute("insert')
            source = source.replace("import itertools", "import time, itertools")
            self._process = self._held.enter_context(sqlite_lab.program(source, self._path))

    def stop(self) -> None:
        self._runs = False
        if self._process is not None:
            self._process.kill()
            lines = (self._process.first + self._process.stdout.read()).split("\n")[:-1]
            self.log.write_text("\n".join(lines), encoding="utf-8")
            self._held.close()
            self._process = None

    def wait_for_more(self) -> None:
        if self._process is not None:
            before = self._path.stat().st_mtime_ns
            sqlite_lab.wait_for(lambda: self._path.stat().st_mtime_ns > before)


def written_beside_a_recovery(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """What a writer was told is written before its service was stopped, and what is live after the recovery."""
    lab.write(WORD)
    sqlite_lab.tell(main_of(lab), "create table log (line)")
    leaves = damaged.pages_of(main_of(lab), "things", "leaf")
    damaged.overwrite(main_of(lab), leaves[len(leaves) // 2])
    writer, store = Writer(main_of(lab), lab.root / "acknowledged"), lab.context.stores["main"]
    lab.context = replace(lab.context, services=(writer,))
    real = store.rescue

    def rescue(*words: Any) -> Rescued:
        found = real(*words)
        writer.wait_for_more()
        return found

    monkeypatch.setattr(store, "rescue", rescue)
    writer.start()
    recover(lab.context, "main", plan=False)
    lines = {line for (line,) in sqlite_lab.ask(main_of(lab), "select line from log")}
    return set(writer.log.read_text(encoding="utf-8").splitlines()), lines


@pytest.mark.fault("E-28")
def test_every_row_that_was_acknowledged_while_it_was_prepared_is_live(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledged, live = written_beside_a_recovery(lab, monkeypatch)
    assert acknowledged
    assert acknowledged <= live


@pytest.mark.control("E-28")
def test_control_rescuing_while_services_run_loses_rows_that_were_acknowledged(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "stop_first", lambda walk: None)
    acknowledged, live = written_beside_a_recovery(lab, monkeypatch)
    assert acknowledged - live

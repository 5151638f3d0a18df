"""Who has files open that a restore replaces: named and refused, or stopped, before the first switch."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Outcome, Refused, Severity
from storekeeper.restore.journal import Step, journals
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.restoring import said, to
from tests.harness.stacks import Lab, make_lab, open_context

pytestmark = pytest.mark.lab(sqlites=1, services=1)


def held_by(path: Path) -> int:
    """The pid of a program that has the file open, and that no service is. It is not this program's child: those do not count."""
    started = subprocess.run(["sh", "-c", f"sleep 600 <{path} >/dev/null 2>&1 & echo $!"], capture_output=True, check=True)
    return int(started.stdout)


def test_a_process_that_has_files_open_and_that_nobody_declared_is_named_and_refused(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, sqlites=1, services=0)
    entry = lab.take("first")
    lab.write("second")
    unvouched = open_context(lab.root, lab.context.stack, vouched=False)
    holder = held_by(lab.root / "live" / "papers" / "notes" / "c.md")
    try:
        with pytest.raises(Refused, match=rf"c\.md is open in sleep \(pid {holder}\)") as refused:
            restore(unvouched, to(entry))
        assert refused.value.store == "papers"
        assert lab.all_hold("second")
        assert journals(lab.context.state) == []
    finally:
        os.kill(holder, signal.SIGKILL)
    restore(lab.context, to(entry))
    assert lab.all_hold("first")
    lab.close()


def test_a_service_that_has_files_open_is_a_warning_is_stopped_and_the_restore_goes_on(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    service = lab.services[0]
    service.stop()
    service.holds = lab.root / "live" / "papers" / "notes" / "c.md"
    service.start()
    plan = restore(lab.context, to(entry, plan=True))
    assert re.search(rf"c\.md is open in sleep \(pid {service.pid}\): the restore goes back unless it ends", said(plan, Severity.WARNING))
    assert lab.all_hold("second")
    report = restore(lab.context, to(entry))
    assert lab.all_hold("first")
    assert report.ended() is Outcome.WARNING
    assert service.is_running()


@pytest.mark.parametrize("back", [False, True], ids=["restore", "back"])
def test_a_process_that_no_service_stops_ends_the_restore_before_the_first_switch(lab: Lab, back: bool) -> None:
    entry = lab.take("first")
    lab.write("second")
    if back:
        restore(lab.context, to(entry))
    holder = held_by(lab.root / "live" / "papers" / "notes" / "c.md")
    try:
        with pytest.raises(Failed, match=rf"open in sleep \(pid {holder}\).*the live data was not touched") as failed:
            restore(lab.context, RestoreRequest(back=True) if back else to(entry))
        assert failed.value.store == "papers"
    finally:
        os.kill(holder, signal.SIGKILL)
    assert lab.all_hold("first" if back else "second")
    assert lab.services[0].is_running()
    assert journals(lab.context.state)[-1].stores(Step.SWITCHING) == []
    restore(lab.context, RestoreRequest(back=True) if back else to(entry))
    assert lab.all_hold("second" if back else "first")


def test_control_a_process_that_goes_on_after_the_switch_reads_the_old_file(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    path = lab.root / "live" / "papers" / "notes" / "c.md"
    for store in lab.context.stores.values():
        store.refuse_holders = lambda place: None  # type: ignore[method-assign]
    lab.context.stores["papers"]._refuse_holders = lambda found: None  # type: ignore[attr-defined]
    with open(path, "rb") as held:
        restore(lab.context, to(entry))
        assert held.read() != path.read_bytes()
    assert lab.all_hold("first")


@pytest.mark.parametrize("is_service", [True, False], ids=["a service", "nobody's"])
def test_a_sqlite_file_whose_page_size_changes_may_be_open_in_a_service_and_in_nothing_else(lab: Lab, is_service: bool) -> None:
    path, service = lab.root / "live" / "main.db", lab.services[0]
    lab.write("first")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma page_size=1024")
        connection.execute("vacuum")
    entry = lab.take("first")
    path.unlink()
    lab.write("second")
    service.stop()
    service.holds = path if is_service else None
    service.start()
    holder = service.pid if is_service else held_by(path)
    try:
        plan = restore(lab.context, to(entry, plan=True))
        assert re.search(rf"open in sleep \(pid {holder}\).*page_size 1024, not 4096", said(plan, Severity.WARNING))
        if is_service:
            restore(lab.context, to(entry))
        else:
            with pytest.raises(Failed, match=rf"pid {holder}.*the live data was not touched"):
                restore(lab.context, to(entry))
    finally:
        if not is_service:
            os.kill(holder, signal.SIGKILL)
    assert lab.all_hold("first" if is_service else "second")

"""Guards of a restore: what a journal can be relied on for, and what was done before anything is touched."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.outcomes import Refused, StorekeeperError
from storekeeper.restore.journal import FORMAT, Journal, Step, unfinished
from storekeeper.restore.plan import choose
from storekeeper.stores.protocol import Facts, SwitchLog
from storekeeper.verbs.backup import backup
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.mounts import disk, fill
from tests.harness.sets import tampered
from tests.harness.stacks import Lab, in_child, read_sqlite

pytestmark = pytest.mark.lab(sqlites=1, services=1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "small", "4m") as mounted:
        yield mounted


def begin(state: Path) -> Journal:
    return Journal.create(state, {"purpose": "restore", "stack": "demo"})


@pytest.mark.root
@pytest.mark.fault("E-4")
def test_a_journal_can_be_written_on_when_the_disk_is_full(small: Path) -> None:
    journal = begin(small)
    fill(small)
    with suppress(OSError):
        for _ in range(100):
            journal.write(Step.NOTE, "main", note="x" * 1000, facts={})
    assert len(list(Journal.open(journal.path).notes("main"))) == 100


@pytest.mark.root
@pytest.mark.fault("E-4")
def test_a_journal_whose_last_line_was_torn_keeps_its_room_once_it_is_written_on(small: Path) -> None:
    """Cutting off what was torn gives back every block behind it."""
    journal = begin(small)
    with open(journal.path, "ab") as file:
        file.write(b'{"step": "no')
    torn = Journal.open(journal.path)
    torn.write(Step.NOTE, "main", note="first", facts={})
    fill(small)
    with suppress(OSError):
        for _ in range(100):
            torn.write(Step.NOTE, "main", note="x" * 1000, facts={})
    assert len(list(Journal.open(journal.path).notes("main"))) == 101


@pytest.mark.root
@pytest.mark.control("E-4")
def test_control_a_file_without_its_reserve_cannot(small: Path) -> None:
    (small / "bare").touch()
    fill(small)
    with open(small / "bare", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.write(b"x" * 1000)


@pytest.mark.fault("U2")
def test_a_journal_whose_steps_all_look_familiar_but_whose_format_is_newer_is_refused(tmp_path: Path) -> None:
    """Its lines could be read, and would be believed."""
    journal = begin(tmp_path)
    journal.write(Step.STAGED, "main")
    first, *rest = journal.path.read_text().splitlines()
    document = json.loads(first)
    document["facts"]["format"] = FORMAT + 1
    journal.path.write_text("\n".join([json.dumps(document), *rest, ""]))
    with pytest.raises(Refused, match=f"has format {FORMAT + 1}"):
        Journal.open(journal.path)


# --- before anything is touched ---


@pytest.mark.fault("E-10")
def test_a_damaged_set_costs_neither_a_safety_set_nor_a_moment_of_downtime(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    artefact = tampered(entry.path / "main" / "database.sqlite")
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"\xff")
    (service,) = lab.services
    started = service.started_at()
    with pytest.raises(StorekeeperError):
        restore(lab.context, RestoreRequest(set=entry.id))
    assert [each.id for each in lab.context.sets.entries()] == [entry.id]
    assert service.started_at() == started
    assert lab.all_hold("second")


@pytest.mark.fault("E-22")
def test_what_was_live_is_in_a_set_before_it_is_replaced(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    store, sets = lab.context.stores["main"], []
    switch = store.switch

    def look_and_switch(place: Facts, log: SwitchLog) -> None:
        sets.extend(each for each in lab.context.sets.entries() if each.id != entry.id)
        switch(place, log)

    store.switch = look_and_switch  # type: ignore[method-assign]
    restore(lab.context, RestoreRequest(set=entry.id))
    assert len(sets) == 1
    assert read_sqlite(sets[0].path / "main" / "database.sqlite") == "second"


@pytest.mark.fault("E-6")
def test_no_backup_is_taken_of_a_mixture_that_an_interrupted_restore_left(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")

    def killed_in_the_second_switch() -> None:
        lab.context.stores["papers"].switch = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        restore(lab.context, RestoreRequest(set=entry.id))

    assert in_child(killed_in_the_second_switch) == -signal.SIGKILL
    assert lab.sides() == {"main": "first", "papers": "second"}, "the kill must leave a mixture"
    taken = backup(lab.context)
    assert unfinished(lab.context.state) is None
    assert read_sqlite(lab.context.sets.entry(taken.result["set"]["id"]).path / "main" / "database.sqlite") == lab.sides()["papers"]


@pytest.mark.fault("E-18")
def test_a_store_that_the_stack_file_lost_is_not_left_out_in_silence(lab: Lab) -> None:
    manifest = lab.take("first").manifest
    assert manifest is not None
    fewer = replace(lab.context, stores={"main": lab.context.stores["main"]})
    with pytest.raises(Refused, match="does not declare papers"):
        choose(fewer, manifest, ())
    assert list(choose(fewer, manifest, ("main",))) == ["main"], "the control: named, it may stand alone"

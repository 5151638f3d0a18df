"""What is learned of a set later stands beside it, in new files, and decides its state by order of writing."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest

from storekeeper.sets.records import PIN, Known, Records, state_of
from tests.harness.sets import START

ID = "20250109T030000Z-000001"


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / ".records")


def state(records: Records, published: str = "verified") -> str:
    return state_of(published, records.known(ID))


def note(records: Records, *looks: str) -> None:
    """`verify:ok`, `prove:failed`, `part:ok` and so on, in this order, while the clock runs backwards."""
    for number, look in enumerate(looks):
        kind, outcome = look.split(":")
        records.add(
            ID,
            "prove" if kind == "prove" else "verify",
            outcome,
            START - timedelta(days=number),
            reason=f"look {number}",
            part=kind == "part",
        )


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ((), "verified"),
        (("verify:ok",), "verified"),
        (("verify:failed",), "damaged"),
        (("verify:unknown",), "verified"),
        (("prove:ok",), "proven"),
        (("prove:failed",), "unprovable"),
        (("prove:unknown",), "verified"),
        (("prove:ok", "verify:failed"), "damaged"),
        (("prove:ok", "verify:ok"), "proven"),
        (("prove:ok", "prove:unknown"), "proven"),
        (("prove:ok", "prove:failed"), "unprovable"),
        (("prove:failed", "prove:ok"), "proven"),
        (("prove:failed", "verify:ok"), "unprovable"),
        (("verify:failed", "prove:ok"), "damaged"),
        (("verify:failed", "verify:unknown"), "damaged"),
        (("verify:failed", "verify:ok"), "verified"),
        (("verify:failed", "part:ok"), "damaged"),
        (("part:failed",), "damaged"),
        (("part:ok",), "verified"),
        (("prove:ok", "verify:failed", "verify:ok"), "proven"),
    ],
)
def test_the_newest_look_that_could_tell_decides(records: Records, looks: tuple[str, ...], expected: str):
    note(records, *looks)
    assert state(records) == expected


def test_an_incomplete_set_never_becomes_a_backup(tmp_path: Path):
    looks = ["verify:ok", "verify:failed", "prove:ok", "prove:failed", "part:ok", "prove:unknown"]
    for number, pair in enumerate(product(looks, repeat=2)):
        records = Records(tmp_path / str(number))
        note(records, *pair)
        assert state(records, "incomplete") in ("incomplete", "damaged"), pair


def test_times_are_those_of_the_last_good_looks(records: Records):
    note(records, "verify:ok", "prove:ok", "verify:failed", "prove:failed")
    known = records.known(ID)
    assert known == Known(True, "failed", START, START - timedelta(days=1), "look 2")


def test_each_look_is_a_new_file_and_none_is_changed(records: Records):
    note(records, "verify:ok", "prove:ok")
    before = {path: path.read_bytes() for path in (records.folder / ID).iterdir()}
    note(records, "verify:failed", "verify:failed")
    after = {path: path.read_bytes() for path in (records.folder / ID).iterdir()}
    assert len(after) == 4
    assert before.items() <= after.items()
    assert {path.stat().st_mode & 0o777 for path in after} == {0o400}


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b'{"outcome": "fine"}', b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_not_taken_for_a_good_one(records: Records, rubbish: bytes):
    note(records, "verify:ok", "verify:ok")
    newest = max((records.folder / ID).iterdir(), key=lambda path: path.name[-11:])
    newest.chmod(0o600)
    newest.write_bytes(rubbish)
    assert state(records) == "damaged"
    assert "cannot be read" in (records.known(ID).reason or "")
    note(records, "verify:ok")
    assert state(records) == "verified"


def test_foreign_files_among_the_records_change_nothing(records: Records):
    note(records, "prove:ok")
    (records.folder / ID / "notes.txt").write_text("mine")
    (records.folder / ID / "verify-later.json").write_text("{}")
    assert state(records) == "proven"


def test_a_pin_holds_until_its_time_or_for_ever(records: Records):
    assert records.pinned(ID) is None
    pin = records.pin(ID, "before a restore", START)
    assert records.pinned(ID) == pin
    assert pin.holds(START - timedelta(seconds=1))
    assert not pin.holds(START)
    assert records.pin(ID, "pinned by a person").holds(START + timedelta(days=36500))


def test_a_persons_pin_is_not_shortened_by_another(records: Records):
    mine = records.pin(ID, "pinned by a person")
    assert records.pin(ID, "before a restore", START) == mine == records.pinned(ID)


def test_a_pin_may_be_made_longer(records: Records):
    records.pin(ID, "before a restore", START)
    longer = records.pin(ID, "before a reset", START + timedelta(days=1))
    assert records.pinned(ID) == longer
    assert records.pin(ID, "before a restore", START) == longer


def test_unpinning_twice_is_harmless(records: Records):
    records.pin(ID, "x")
    assert records.unpin(ID)
    assert not records.unpin(ID)
    assert records.pinned(ID) is None


@pytest.mark.parametrize("rubbish", [b"", b"{}", b'{"reason": "x", "until": "soon"}'])
def test_a_pin_that_cannot_be_read_still_pins(records: Records, rubbish: bytes):
    records.pin(ID, "x", START)
    (records.folder / ID / PIN).write_bytes(rubbish)
    pin = records.pinned(ID)
    assert pin is not None
    assert pin.holds(START + timedelta(days=36500))


def test_records_go_with_their_set_and_only_with_it(records: Records):
    note(records, "verify:ok")
    other = "20250109T030000Z-000002"
    records.add(other, "prove", "ok", START)
    records.remove(ID)
    assert list(records.sets()) == [other]
    assert list(Records(records.folder / "none").sets()) == []

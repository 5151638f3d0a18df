"""A manifest is believed only whole, sealed and in its place."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from pathlib import Path

import pytest

from storekeeper.host.formats import NewerFormat
from storekeeper.outcomes import Problem, Severity
from storekeeper.sets import manifest as module
from storekeeper.sets.manifest import LARGEST, BadManifest, Manifest, read_manifest
from storekeeper.stores.record import Artefact, StoreRecord
from tests.harness.campaign import Campaign
from tests.harness.sets import START

ID = "20250109T030000Z-000007"


def record(tables: int = 3) -> StoreRecord:
    return StoreRecord(
        kind="postgresql",
        klass="snapshot",
        version="16.14",
        pinned=START,
        pause_ms=0.0,
        downtime_s=0.0,
        seconds=1.5,
        bytes=1000,
        counts={f"public.table_{number}": number for number in range(tables)},
        digests={f"public.table_{number}": "sha256:" + "ab" * 32 for number in range(tables)},
        artefacts=(Artefact("dump.pgdump", 900, "cd" * 32), Artefact("tree.jsonl", 100, "ef" * 32, lists="files")),
        details={"extensions": ["vector"]},
    )


def manifest(stores: int = 1, tables: int = 3) -> Manifest:
    return Manifest(
        stack="demo",
        id=ID,
        sequence=7,
        created=START,
        host="testhost",
        version="0.1.0",
        skew_ms=1.25,
        pause_ms=3.0,
        stores={f"store_{number}": record(tables) for number in range(stores)},
        previous="20250108T030000Z-000006",
        problems=(Problem("slow", Severity.WARNING, "store_0"),),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest().to_bytes())
    return path


def edited(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def resealed(path: Path, **changes: object) -> Path:
    """As somebody would who knows how the seal is made: what is refused then is refused for what it says."""
    document = {**json.loads(path.read_text()), **changes}
    document.pop("seal")
    path.write_text(json.dumps({**document, "seal": module._seal(document)}))
    return path


def test_a_manifest_is_read_back_as_it_was_written(written: Path):
    assert read_manifest(written, expect_id=ID, expect_stack="demo") == manifest()


def test_twenty_stores_stay_below_64_kb():
    assert len(manifest(stores=20, tables=10).to_bytes()) < 64 << 10


@pytest.mark.fault("B3")
def test_no_changed_byte_of_a_manifest_goes_unnoticed(written: Path, campaign: Campaign):
    """A byte outside the strings may still say the same (white space): then what is read is equal too."""
    rng, whole, refused, same, count = random.Random(7), written.read_bytes(), 0, 0, campaign.trials(500, 5000)
    for _ in range(count):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        written.write_bytes(data)
        try:
            same += read_manifest(written) == manifest()
        except (BadManifest, NewerFormat):  # the number of the format itself may be hit
            refused += 1
    campaign.found(count, "flipped bits in a manifest", f"{refused} refused, {same} in white space that says the same")
    assert refused + same == count
    assert refused > count * 4 // 5


@pytest.mark.control("B3")
def test_without_the_seal_an_edit_would_go_unnoticed(written: Path, monkeypatch: pytest.MonkeyPatch):
    edited(written, skew_ms=0.0)
    with pytest.raises(BadManifest, match="altered after it was sealed"):
        read_manifest(written)
    monkeypatch.setattr(module, "_seal", lambda document: json.loads(written.read_text())["seal"])
    assert read_manifest(written).skew_ms == 0.0


@pytest.mark.fault("B3")
def test_a_manifest_of_another_set_or_stack_is_refused(written: Path):
    with pytest.raises(BadManifest, match="another set's: its id is"):
        read_manifest(written, expect_id="20250109T030000Z-000008")
    with pytest.raises(BadManifest, match="another set's: its stack is"):
        read_manifest(written, expect_stack="other")


@pytest.mark.fault("B3")
def test_a_missing_manifest_is_named(tmp_path: Path):
    with pytest.raises(BadManifest, match="is missing"):
        read_manifest(tmp_path / "manifest.json")


@pytest.mark.fault("B3")
@pytest.mark.control("B3")
def test_a_key_that_stands_twice_is_refused(written: Path):
    text = written.read_text().replace('"host":', '"host": "first", "host":', 1)
    assert json.loads(text)["host"] == "testhost"  # the control: the standard reader takes the last one silently
    written.write_text(text)
    with pytest.raises(BadManifest, match="the key 'host' stands there twice"):
        read_manifest(written)


@pytest.mark.fault("B3")
def test_a_newer_schema_is_refused_with_both_numbers(written: Path):
    with pytest.raises(NewerFormat, match=r"has schema 2, .* reads up to 1"):
        read_manifest(resealed(written, schema=2, anything="new"))


def test_an_older_schema_stays_readable(written: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SCHEMA", 2)
    assert read_manifest(written).schema == 1


@pytest.mark.parametrize("schema", [0, -1, "1", True, None, 1.0])
def test_a_schema_that_is_no_number_is_refused(written: Path, schema: object):
    with pytest.raises(BadManifest, match="says no schema"):
        read_manifest(resealed(written, schema=schema))


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "green"},
        {"sequence": 8},
        {"stores": []},
        {"stores": {"a": {}}},
        {"stores": {"../etc": record().to_json()}},
        {"stores": {"a": dataclasses.replace(record(), artefacts=(Artefact("../../x", 1, "ab" * 32),)).to_json()}},
        {"stores": {"a": dataclasses.replace(record(), artefacts=(Artefact("x", 1, "ab" * 32, lists=".."),)).to_json()}},
        {"created": "2025-01-09T03:00:00"},
        {"id": "../../x"},
        {"problems": [{"message": "x"}]},
    ],
)
@pytest.mark.fault("B3")
def test_a_sealed_manifest_that_says_the_impossible_is_refused(written: Path, changes: dict[str, object]):
    with pytest.raises(BadManifest, match="cannot be understood"):
        read_manifest(resealed(written, **changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 200_000, b'{"schema": NaN}', b"{}"])
def test_rubbish_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(BadManifest):
        read_manifest(path)


def test_a_manifest_larger_than_the_limit_is_neither_read_nor_written(written: Path):
    with open(written, "ab") as file:
        file.write(b" " * LARGEST)
    with pytest.raises(BadManifest, match="more than"):
        read_manifest(written)
    with pytest.raises(Exception, match="more than the"):
        dataclasses.replace(manifest(), host="x" * LARGEST).to_bytes()


def test_a_link_a_pipe_and_a_directory_are_no_manifest(written: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(written)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(BadManifest):
            read_manifest(tmp_path / name)

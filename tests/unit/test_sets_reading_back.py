"""How a set is read back: in parts, ahead in threads, in the order of its listing, in little memory."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Outcome
from storekeeper.sets import artefacts
from storekeeper.sets.artefacts import belongs, check_artefacts, examine
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.sets.strangers import extra_files
from storekeeper.stores.record import Artefact
from tests.harness.damage import flip
from tests.harness.sets import START, publish, tampered, write_source
from tests.harness.verifying import Decoder, files_of, verify


def test_a_missing_right_to_read_is_unknown_and_not_damage(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    entry, real = publish(sets, source), os.open

    def forbidden(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("notes.bin"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("storekeeper.sets.artefacts.os.open", forbidden)
    verdict = verify(sets, entry)
    assert (verdict.outcome, verdict.state) == (Outcome.UNKNOWN, "verified")


def test_threads_that_hash_ahead_find_the_same_faults_in_the_same_order(sets: StackSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = random.Random(7)
    tree = write_source(tmp_path / "many", {f"{number:03}.bin": sizes.randbytes(sizes.randrange(1, 9000)) for number in range(60)})
    entry = publish(sets, tree)
    manifest = entry.manifest
    assert manifest is not None
    for number, path in enumerate(sorted((entry.path / "papers" / "files").iterdir())):
        if number % 7 == 1:
            flip(path, chance=sizes)
        elif number % 7 == 3:
            path.unlink()
        elif number % 7 == 5:
            os.truncate(tampered(path), path.stat().st_size - 1)
        elif number % 14 == 6:
            path.unlink()
            os.mkfifo(path)
    found = {}
    for large in (1 << 30, 4000, 0):
        monkeypatch.setattr(artefacts, "_LARGE", large)
        found[large] = examine(entry.path, manifest, Progress())
    assert found[0] == found[4000] == found[1 << 30]
    assert {fault.kind for fault in found[0].faults} == {"altered", "missing", "truncated", "irregular"}
    assert [fault.path for fault in found[0].faults] == sorted(fault.path for fault in found[0].faults)


@pytest.mark.parametrize(
    ("large", "call"),
    [(1 << 30, "storekeeper.sets.artefacts.os.read"), (0, "storekeeper.host.hashing.os.readv")],
    ids=["at once", "ahead, in a thread"],
)
def test_a_file_that_a_disk_cannot_read_is_damage(sets: StackSets, source: Path, large: int, call: str, monkeypatch: pytest.MonkeyPatch):
    entry = publish(sets, source)
    manifest = entry.manifest
    assert manifest is not None

    def broken(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(artefacts, "_LARGE", large)
    with monkeypatch.context() as patched:
        patched.setattr(call, broken)
        faults = check_artefacts(entry.path, manifest, Progress())
    assert {fault.kind for fault in faults} == {"unreadable"}
    assert "cannot be read: Input/output error" in faults[0].message
    assert check_artefacts(entry.path, manifest, Progress()) == []


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.fault("B8")
def test_the_parts_of_a_set_cover_every_file_exactly_once(sets: StackSets, source: Path, parts: int):
    entry = publish(sets, source)
    names = [str(path.relative_to(entry.path)) for path in files_of(entry)] + ["papers/files/sub/empty"]
    assert all(sum(belongs(name, (number, parts)) for number in range(1, parts + 1)) == 1 for name in names)
    victim = entry.path / "papers" / "files" / "paper.pdf"
    flip(victim)
    found = [verify(sets, entry, subset=(number, parts)).outcome for number in range(1, parts + 1)]
    assert found.count(Outcome.FAILED) == 1


@pytest.mark.fault("B8")
def test_a_part_that_is_good_does_not_vouch_for_the_set(sets: StackSets, source: Path):
    entry, store = publish(sets, source), Decoder()
    sets.records.add(entry.id, "verify", "failed", START)
    assert verify(sets, entry, store, subset=(1, 2)).state == "damaged"
    assert store.decoded == []
    assert verify(sets, entry).state == "verified"


@pytest.mark.fault("B8")
def test_a_part_also_finds_what_is_missing_or_too_short_in_the_others(sets: StackSets, source: Path):
    entry = publish(sets, source)
    (entry.path / "papers" / "files" / "a.txt").unlink()
    for number in (1, 2):
        assert verify(sets, entry, subset=(number, 2)).outcome is Outcome.FAILED


def test_faults_beyond_the_first_hundred_are_counted(sets: StackSets, tmp_path: Path):
    source = write_source(tmp_path / "many", {f"f{number:04d}": b"x" for number in range(300)})
    entry = publish(sets, source)
    durable.remove_tree(entry.path / "papers" / "files")
    manifest = entry.manifest
    assert manifest is not None
    findings = examine(entry.path, manifest, Progress())
    assert (len(findings.faults), findings.total) == (100, 300)
    assert verify(sets, entry).problems[-1].message == "200 more faults"


def test_extra_files_are_found_in_the_order_of_whole_paths(tmp_path: Path):
    """`a.txt` sorts before `a/b` as a path, but after the directory `a` by name."""
    names = ["a.txt", "a/b", "a/c/d", "a0", "b", "ä", "a-b/x"]
    content = write_source(tmp_path / "content", dict.fromkeys(names, b""))
    listing = tmp_path / "tree.jsonl"
    listed = sorted(names, key=os.fsencode)
    listing.write_text("".join(json.dumps({"path": name, "sha256": "00"}) + "\n" for name in listed))
    assert list(extra_files(content, listing)) == []
    for name in ("a!", "a/a", "a/c/e", "zz", "0", os.fsdecode(b"\xff")):
        (content / name).write_bytes(b"")
        assert list(extra_files(content, listing)) == [name]
        (content / name).unlink()


READ_BACK = """
import sys
from pathlib import Path
from storekeeper.host.progress import Progress
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import read_manifest

folder = Path(sys.argv[1])
faults = check_artefacts(folder, read_manifest(folder / "manifest.json"), Progress())
status = Path("/proc/self/status").read_text()
print(len(faults), status.split("VmHWM:")[1].split()[0])
"""


def test_memory_is_flat_however_many_files_a_set_has(sets: StackSets, source: Path):
    few, many = (_peak_memory_of_reading_back(publish(sets, source), count) for count in (200, 20_000))
    assert many - few < 3000, f"{few} KiB for 200 files, {many} KiB for 20,000"


def _peak_memory_of_reading_back(entry: SetEntry, count: int) -> int:
    """KiB that a process of its own needs at most, after the set was given this many files (without the fsyncs of a real one)."""
    papers, manifest = entry.path / "papers", entry.manifest
    assert manifest is not None
    durable.remove_tree(papers / "files")
    names = [f"{number // 1000:03d}/{number:06d}" for number in range(count)]
    write_source(papers / "files", dict.fromkeys(names, b"x"))
    digest = hashlib.sha256(b"x").hexdigest()
    listing = "".join(json.dumps({"path": name, "size": 1, "sha256": digest}) + "\n" for name in names).encode()
    tampered(papers / "tree.jsonl").write_bytes(listing)
    record = manifest.stores["papers"]
    tree = Artefact("tree.jsonl", len(listing), hashlib.sha256(listing).hexdigest(), lists="files")
    forged = replace(manifest, stores={"papers": replace(record, artefacts=(record.artefacts[0], tree))})
    tampered(entry.path / "manifest.json").write_bytes(forged.to_bytes())
    done = subprocess.run([sys.executable, "-c", READ_BACK, str(entry.path)], capture_output=True, text=True, check=True)
    faults, peak = done.stdout.split()
    assert faults == "0"
    return int(peak)

"""Sets made to harm whoever restores them: nothing is written outside of the stage, and no more than the set says it holds."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.outcomes import StorekeeperError
from storekeeper.stores.record import StoreRecord
from tests.harness.campaign import Campaign
from tests.harness.trees import snapshot, store_at
from tests.stores.walk import Journal, take

FILE = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 0, "size": 4, "sha256": "0" * 64}
DIRECTORY = {"type": "directory", "mode": 0o755, "uid": 0, "gid": 0, "mtime_ns": 0}
LINK = {"type": "link", "mode": 0o777, "uid": 0, "gid": 0, "mtime_ns": 0}
BOUND = 1 << 20

ARCHIVES: dict[str, Callable[[str], list[dict[str, object]]]] = {
    "absolute": lambda out: [{**FILE, "path": f"{out}/escaped"}],
    "climbing": lambda out: [{**FILE, "path": "../outside/escaped"}],
    "climbing from inside": lambda out: [{**DIRECTORY, "path": "a"}, {**FILE, "path": "a/../../outside/escaped"}],
    "below a link": lambda out: [{**LINK, "path": "a", "target": out}, {**FILE, "path": "a/escaped"}],
    "a hard link to outside": lambda out: [{"path": "a", "type": "file", "hardlink": f"{out}/precious"}],
    "a hard link through a link": lambda out: [
        {**LINK, "path": "a", "target": f"{out}/precious"},
        {"path": "b", "type": "file", "hardlink": "a"},
    ],
    "a device without its numbers": lambda out: [{**FILE, "path": "null", "type": "device"}],
    "a mode that is none": lambda out: [{**FILE, "path": "a", "mode": 0o104755 | 0o170000}],
    "a bomb: a file much larger than its contents": lambda out: [{**FILE, "path": "a", "size": 1 << 50}],
    "a bomb: a path a megabyte deep": lambda out: [{**FILE, "path": "/".join(["d"] * 500_000)}],
}


def forged(folder: Path, record: StoreRecord, lines: list[dict[str, object]]) -> StoreRecord:
    listing = folder / "tree.jsonl"
    listing.chmod(0o600)
    listing.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    (folder / "content").mkdir(exist_ok=True)
    (folder / "content" / "a").write_bytes(b"evil")
    return replace(record, counts={"files": 1, "bytes": 4})


def bytes_below(root: Path) -> int:
    return sum(each.lstat().st_blocks * 512 for each in root.rglob("*") if stat.S_ISREG(each.lstat().st_mode))


@pytest.mark.fault("E-15")
def test_ten_hostile_archives_write_nothing_outside_and_no_more_than_they_hold(tmp_path: Path, campaign: Campaign) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    before, escaped, largest, taken_in = snapshot(outside), [], 0, []
    for number, (name, archive) in enumerate(ARCHIVES.items()):
        room = tmp_path / str(number)
        (room / "live").mkdir(parents=True)
        store = store_at(room / "live", room)
        folder, record = take(store, room / "sets")
        record = forged(folder, record, archive(str(outside)))
        place = store.place("0123abcd", None)
        try:
            store.stage(folder, record, place)
            store.switch(place, Journal())
            taken_in.append(name)
        except StorekeeperError:
            largest = max(largest, bytes_below(room) - bytes_below(room / "sets"))
        escaped += [name] if snapshot(outside) != before or (room / "live" / "null").exists() else []
    said = f"{len(escaped)} wrote outside, at most {largest} bytes written"
    campaign.found(len(ARCHIVES), "hostile archives of a tree", said)
    assert (escaped, taken_in) == ([], [])
    assert largest < BOUND


def test_the_watch_over_escapes_sees_one(tmp_path: Path) -> None:
    """One link outside of where it should be is seen."""
    before = snapshot(tmp_path)
    os.symlink("/etc", tmp_path / "escaped")
    assert snapshot(tmp_path) != before

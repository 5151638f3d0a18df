"""Making a set while it is killed, out of room, or its bytes rot: nothing invalid ever has a name."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import space
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Refused
from storekeeper.sets import publishing
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import MANIFEST, read_manifest
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import StackSets
from tests.harness.campaign import Campaign
from tests.harness.damage import flip
from tests.harness.mounts import disk
from tests.harness.stacks import Lab, in_child, killed_at_random, make_lab


def _faults(sets: StackSets) -> list[str]:
    """What is wrong with any listed set, read back in full."""
    found = []
    for entry in sets.entries():
        manifest = entry.manifest
        if manifest is None:
            found.append(f"{entry.id}: {entry.reason}")
        else:
            found += [fault.message for fault in check_artefacts(entry.path, manifest, Progress())]
    return found


def _partials(lab: Lab) -> list[Path]:
    return sorted(lab.context.sets.path.glob(".*.partial"))


@pytest.mark.fault("A2")
def test_a_backup_killed_at_any_moment_never_leaves_an_invalid_set_and_the_next_run_sweeps_what_is_left(
    lab: Lab, campaign: Campaign
) -> None:
    kills = campaign.trials(10, 100)
    started = time.monotonic()
    assert in_child(lambda: take_set(lab.context, purpose="backup")) == 0
    usual = time.monotonic() - started
    chance, invalid = random.Random(5), list[str]()
    tries = in_the_middle = 0
    while in_the_middle < kills and tries < 10 * kills:
        killed_at_random(lambda: take_set(lab.context, purpose="backup"), chance.uniform(0, usual * 1.1))
        tries += 1
        invalid += _faults(lab.context.sets)
        in_the_middle += bool(_partials(lab))
    campaign.found(
        tries, f"kills of a backup after any time, {in_the_middle} while it was being written", f"{len(invalid)} invalid sets listed"
    )
    assert invalid == []
    assert in_the_middle == kills, "the kills must hit backups that were under way"
    newest = take_set(lab.context, purpose="backup")
    assert newest.state == "verified"
    assert not _partials(lab)


@pytest.mark.control("A2", "A1")
def test_control_what_a_kill_leaves_would_be_an_invalid_set_had_it_a_name(lab: Lab) -> None:
    def killed_before_the_manifest(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def take() -> None:
        publishing.read_back = killed_before_the_manifest
        take_set(lab.context, purpose="backup")

    assert in_child(take) == -signal.SIGKILL
    (left,) = _partials(lab)
    left.rename(left.with_name(left.name[1 : -len(".partial")]))
    assert _faults(lab.context.sets)


def test_a_backup_never_counts_what_it_is_about_to_read_in_full_anyway(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*_: object) -> None:
        raise Failed("every row was counted")

    monkeypatch.setattr(lab.context.stores["main"], "inspect", count)
    assert take_set(lab.context, purpose="backup").state == "verified"


@pytest.mark.parametrize("name", ["main", "papers"])
def test_a_backup_of_a_store_that_is_absent_fails_since_a_missing_file_is_no_empty_store(lab: Lab, name: str) -> None:
    path = lab.root / "live" / ("main.db" if name == "main" else name)
    path.rename(lab.root / "elsewhere")
    with pytest.raises(Failed) as failed:
        take_set(lab.context, purpose="backup")
    assert failed.value.store == name
    assert lab.context.sets.entries() == []
    assert not path.exists(), "and looking at it has not made it"
    (lab.root / "elsewhere").rename(path)
    assert take_set(lab.context, purpose="backup").state == "verified"


def test_control_sqlite_makes_an_empty_database_of_a_missing_file_and_calls_it_whole(lab: Lab) -> None:
    path = lab.root / "live" / "main.db"
    path.unlink()
    with closing(sqlite3.connect(path)) as naive, closing(sqlite3.connect(lab.root / "copy.db")) as copy:
        naive.backup(copy)
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
    assert path.exists()


def test_a_living_run_is_not_swept_by_another(lab: Lab) -> None:
    with lab.context.sets.begin(publishing.clock.now()) as partial:
        assert lab.context.sets.sweep() == []
        assert partial.path.is_dir()


@pytest.mark.fault("A8")
def test_bytes_that_rot_between_write_and_read_back_are_found_and_nothing_is_published(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
) -> None:
    count, read_back, found = campaign.trials(10, 200), publishing.read_back, 0
    for seed in range(count):
        monkeypatch.setattr(publishing, "read_back", _after_rot(read_back, seed))
        with contextlib.suppress(Failed):
            take_set(lab.context, purpose="backup")
        found += not lab.context.sets.entries() and not _partials(lab)
    campaign.found(count, "bits that flipped between write and read-back", f"{found} found, and nothing published")
    assert found == count
    monkeypatch.setattr(publishing, "read_back", _after_rot(read_back, 0))
    with pytest.raises(Failed, match="could not be read back"):
        take_set(lab.context, purpose="backup")


@pytest.mark.control("A8")
def test_control_without_the_read_back_the_rotten_set_is_published(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "read_back", _after_rot(lambda *_: None, 1))
    take_set(lab.context, purpose="backup")
    assert _faults(lab.context.sets)


def _after_rot(then: Callable[..., None], seed: int) -> Callable[..., None]:
    def rot(folder: Path, *rest: Any) -> None:
        chance = random.Random(seed)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        flip(chance.choice(files), chance=chance)
        then(folder, *rest)

    return rot


@pytest.mark.fault("A7")
def test_without_foreseeable_room_a_backup_is_refused_before_any_store_is_held(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    for name, store in lab.context.stores.items():
        monkeypatch.setattr(store, "hold", lambda work, name=name: held.append(name))
    monkeypatch.setattr(space, "free_bytes", lambda path: 10)
    with pytest.raises(Refused, match=r"a backup needs .* has 10 bytes"):
        take_set(lab.context, purpose="backup")
    assert held == []
    assert not _partials(lab)


@pytest.fixture
def full_lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose repository is a file system of 2 MiB."""
    with disk(tmp_path / "repository", "2m", "0700"):
        made = make_lab(tmp_path, sqlites=1, services=0)
        made.write("one")
        yield made
        made.close()


@pytest.mark.fault("A4")
@pytest.mark.control("A7")
def test_a_disk_that_fills_in_the_middle_fails_the_backup_frees_its_room_and_leaves_earlier_sets(
    full_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_set(full_lab.context, purpose="backup")
    before = space.free_bytes(full_lab.context.sets.path)
    (full_lab.root / "live/papers/raw/big").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(space, "check", lambda *_, **__: [])
    with pytest.raises(Failed, match="No space left on device"):
        take_set(full_lab.context, purpose="backup")
    assert [entry.id for entry in full_lab.context.sets.entries()] == [first.id]
    assert not _faults(full_lab.context.sets)
    assert not _partials(full_lab)
    assert space.free_bytes(full_lab.context.sets.path) >= before - 65536


@pytest.mark.fault("A16")
def test_a_store_that_lost_nine_tenths_fails_the_backup_unless_a_person_accepts_it(lab: Lab) -> None:
    take_set(lab.context, purpose="backup")
    _keep_rows(lab, 10)
    with pytest.raises(Failed, match=r"holds 10 objects, the set .* held 303; nothing was published") as failure:
        take_set(lab.context, purpose="backup")
    assert failure.value.next == "storekeeper backup demo --accept-shrink main"
    accepted = take_set(lab.context, purpose="backup", accept_shrink=frozenset({"main"}))
    assert accepted.state == "verified"


@pytest.mark.fault("A16")
def test_a_store_that_lost_half_is_a_warning_and_a_safety_set_takes_what_is_there(lab: Lab) -> None:
    take_set(lab.context, purpose="backup")
    _keep_rows(lab, 100)
    entry = take_set(lab.context, purpose="backup")
    assert entry.manifest is not None
    assert [problem.store for problem in entry.manifest.problems if "objects" in problem.message] == ["main"]
    _keep_rows(lab, 1)
    assert take_set(lab.context, purpose="restore").state == "verified"


def _keep_rows(lab: Lab, count: int) -> None:
    with closing(sqlite3.connect(lab.root / "live/main.db")) as connection, connection:
        connection.execute("delete from things where id not in (select id from things limit ?)", (count,))


def test_unchanged_files_are_hard_links_to_the_set_before_and_changed_ones_are_not(lab: Lab) -> None:
    first = take_set(lab.context, purpose="backup")
    (lab.root / "live/papers/notes/c.md").write_text("changed")
    second = take_set(lab.context, purpose="backup")
    same = [(entry.path / "papers/content/raw/a.pdf").stat().st_ino for entry in (first, second)]
    other = [(entry.path / "papers/content/notes/c.md").stat().st_ino for entry in (first, second)]
    assert same[0] == same[1]
    assert other[0] != other[1]


def test_a_published_set_can_be_read_by_its_owner_only(lab: Lab) -> None:
    entry = take_set(lab.context, purpose="backup")
    for path in (entry.path, *entry.path.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o400), path
    assert read_manifest(entry.path / MANIFEST).id == entry.id

"""The repository's directory, the numbers and names of sets, and how one is published."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.host import durable, locks
from storekeeper.outcomes import Busy, Refused
from storekeeper.sets import entry as entry_module
from storekeeper.sets import stacksets
from storekeeper.sets.manifest import read_manifest
from storekeeper.sets.names import parse_id
from storekeeper.sets.repository import Repository, SetGone, StackSets
from tests.harness.campaign import Campaign
from tests.harness.sets import START, fill, open_sets, publish, publish_daily, tampered


def modes(folder: Path) -> set[str]:
    return {f"{'d' if path.is_dir() else 'f'}{path.stat().st_mode & 0o7777:04o}" for path in [folder, *folder.rglob("*")]}


def test_a_repository_that_was_made_is_opened_by_the_same_id(tmp_path: Path):
    made = Repository.open_or_create(tmp_path / "r", tmp_path / "s")
    assert Repository.open(tmp_path / "r", tmp_path / "s").id == made.id
    assert Repository.open_or_create(tmp_path / "r", tmp_path / "s").id == made.id
    assert (tmp_path / "s" / "repository-id").read_text().strip() == made.id


def test_a_repository_is_not_made_twice(tmp_path: Path):
    Repository.create(tmp_path / "r", tmp_path / "s")
    with pytest.raises(Refused, match="already keeps its sets in"):
        Repository.create(tmp_path / "r", tmp_path / "s")
    with pytest.raises(Refused, match="is a repository already"):
        Repository.create(tmp_path / "r", tmp_path / "other")


def test_a_repository_is_only_opened_where_there_is_one(tmp_path: Path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(Refused, match="no repository: no set has been taken"):
            Repository.open(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_host_that_was_installed_anew_takes_its_old_repository_over(tmp_path: Path):
    made = Repository.create(tmp_path / "r", tmp_path / "s")
    assert Repository.open(tmp_path / "r", tmp_path / "new").id == made.id
    assert (tmp_path / "new" / "repository-id").read_text().strip() == made.id


def test_a_crash_between_the_marker_and_the_state_leaves_a_repository_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr("storekeeper.sets.repository._remember", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Repository.create(tmp_path / "r", tmp_path / "s")
    assert Repository.open_or_create(tmp_path / "r", tmp_path / "s").id


def test_a_published_set_is_whole_private_and_sealed(sets: StackSets, source: Path):
    entry = publish(sets, source)
    assert entry.id == "20250109T030000Z-000001"
    assert (entry.state, entry.sequence, entry.time, entry.verified_at, entry.proven_at) == ("verified", 1, START, START, None)
    assert modes(entry.path) == {"d0700", "f0400"}
    assert entry.manifest == read_manifest(entry.path / "manifest.json", expect_id=entry.id, expect_stack="demo")
    assert entry.bytes == entry.manifest.size > 3000


def test_whatever_the_umask_a_set_is_private(tmp_path: Path, source: Path):
    for mask in (0o000, 0o027, 0o077):
        with durable.umask(mask):
            entry = publish(open_sets(tmp_path / f"{mask:o}"), source)
            assert modes(entry.path) == {"d0700", "f0400"}, f"{mask:o}"


def test_the_next_number_is_above_everything_there_ever_was(sets: StackSets, source: Path):
    publish(sets, source)
    assert parse_id(publish(sets, source).id).sequence == 2
    durable.ensure_directory(sets.trash / "20250101T000000Z-000007")
    assert publish(sets, source).sequence == 8
    durable.make_directory(sets.path / ".20250101T000000Z-000011.partial")
    assert publish(sets, source).sequence == 12
    (sets.state / "sequence").write_text("40\n")
    assert publish(sets, source).sequence == 41
    for entry in sets.entries():
        durable.remove_tree(entry.path)
    assert publish(sets, source).sequence == 42, "a removed set's number comes again"


def test_a_lost_state_directory_does_not_make_numbers_come_again(sets: StackSets, source: Path):
    publish_daily(sets, source, 3)
    durable.remove_tree(sets.state)
    assert publish(sets, source).sequence == 4


def test_a_sequence_that_cannot_be_read_is_refused_and_not_taken_for_none(sets: StackSets, source: Path):
    publish(sets, source)
    (sets.state / "sequence").write_text("many\n")
    with pytest.raises(Refused, match="holds no sequence number"):
        publish(sets, source)
    assert os.listdir(sets.path) == ["20250109T030000Z-000001"]


def test_ten_threads_that_begin_at_once_get_ten_numbers(sets: StackSets):
    found: list[int] = []
    meet = threading.Barrier(10)

    def begin() -> None:
        meet.wait()
        with sets.begin(START) as partial:
            found.append(partial.sequence)

    threads = [threading.Thread(target=begin) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 11))


def test_sets_are_ordered_by_number_and_not_by_the_clock(sets: StackSets, source: Path):
    publish(sets, source, START)
    publish(sets, source, START - timedelta(days=400))
    assert [entry.sequence for entry in sets.entries()] == [1, 2]
    assert sets.resolve("latest").entry.sequence == 2


def test_a_run_that_fails_leaves_nothing_behind(sets: StackSets, source: Path):
    def fail() -> None:
        with sets.begin(START) as partial:
            (partial.path / "papers").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(sets.path) == []
    with sets.begin(START):
        pass
    assert os.listdir(sets.path) == []


def test_a_manifest_of_something_else_is_not_published(sets: StackSets, source: Path):
    with sets.begin(START) as first, sets.begin(START) as second:
        manifest = fill(sets, first, source, START)
        with pytest.raises(ValueError, match="is not that of"):
            second.publish(manifest)
    assert sets.entries() == []


def test_a_set_in_use_is_not_free_and_a_free_one_is(sets: StackSets, source: Path):
    entry = publish(sets, source)
    with sets.using(entry), locks.hold_directory(entry.path) as free:
        assert not free
    with locks.hold_directory(entry.path) as free:
        assert free


def test_two_may_use_a_set_at_once(sets: StackSets, source: Path):
    entry = publish(sets, source)
    with sets.using(entry), sets.using(entry):
        pass


def test_a_set_that_is_being_removed_cannot_be_used(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stacksets, "_SETTLE", 0.05)
    entry = publish(sets, source)
    with locks.hold_directory(entry.path), pytest.raises(Busy, match="is being removed"), sets.using(entry):
        pass
    durable.remove_tree(entry.path)
    with pytest.raises(SetGone, match="has been removed"), sets.using(entry):
        pass
    with pytest.raises(SetGone):
        sets.entry(entry.id)


def test_a_name_means_one_set_or_is_refused_with_the_matches(sets: StackSets, source: Path):
    first, second, third = publish_daily(sets, source, 3)
    assert sets.resolve(first.id).entry == first
    assert sets.resolve("20250110_030000").entry == second
    assert sets.resolve("20250111").entry == third
    with pytest.raises(Refused, match=f"3 sets of demo are named 2025: {first.id}, {second.id}, {third.id}"):
        sets.resolve("2025")
    with pytest.raises(Refused, match="no set of demo is named 2024"):
        sets.resolve("2024")


def test_an_ambiguous_name_shows_only_the_newest_matches(sets: StackSets, source: Path):
    publish_daily(sets, source, 8)
    with pytest.raises(Refused, match=r"8 sets of demo are named 2025: 20250112T.* and 3 older"):
        sets.resolve("2025")


def test_the_latest_passes_over_what_is_no_backup_and_says_so(sets: StackSets, source: Path):
    good, incomplete, damaged = publish(sets, source), publish(sets, source, state="incomplete"), publish(sets, source)
    tampered(damaged.path / "manifest.json").write_bytes(b"{}")
    found = sets.resolve("latest")
    assert found.entry == good
    assert [(entry.id, entry.state) for entry in found.skipped] == [(damaged.id, "damaged"), (incomplete.id, "incomplete")]
    assert sets.resolve("latest", usable=False).entry.id == damaged.id
    assert sets.newest_usable() == good


@pytest.mark.parametrize("state", ["damaged", "incomplete", "unprovable"])
def test_a_set_that_is_no_backup_is_refused_as_a_target_by_any_name(sets: StackSets, source: Path, state: str):
    entry = publish(sets, source, state="incomplete" if state == "incomplete" else "verified")
    if state != "incomplete":
        sets.records.add(entry.id, "verify" if state == "damaged" else "prove", "failed", START, reason="papers: it is altered")
    for name in (entry.id, "20250109_030000", "2025"):
        with pytest.raises(Refused, match=f"is {state}"):
            sets.resolve(name)
        assert sets.resolve(name, usable=False).entry.state == state
    with pytest.raises(Refused, match="none of its 1 sets is usable"):
        sets.resolve("latest")
    assert sets.newest_usable() is None


def test_nothing_to_resolve_says_how_to_begin(sets: StackSets):
    assert sets.entries() == []
    with pytest.raises(Refused, match="there is no set of demo") as refusal:
        sets.resolve("latest")
    assert refusal.value.next == "storekeeper backup demo"


@pytest.mark.fault("B11", "B3")
def test_a_set_of_a_newer_version_is_listed_with_both_schemas_and_not_used(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    publish(sets, source)
    monkeypatch.setattr("storekeeper.sets.manifest.SCHEMA", 0)
    (entry,) = sets.entries()
    assert (entry.state, entry.manifest) == ("unprovable", None)
    assert entry.reason == "manifest.json has schema 1, this version reads up to 0"


def test_a_set_that_vanishes_while_sets_are_listed_is_left_out(sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = publish_daily(sets, source, 2)
    real = entry_module.read_manifest

    def remove_first(path: Path, **expect: str):
        if path.parent == first.path:
            durable.remove_tree(first.path)
        return real(path, **expect)

    monkeypatch.setattr(entry_module, "read_manifest", remove_first)
    assert [entry.id for entry in sets.entries()] == [second.id]


def point(link: Path, target: str) -> None:
    """Put a link in the place of another in one step, as scripts do that keep a pointer to the newest."""
    new = link.with_name("latest.new")
    new.symlink_to(target)
    new.rename(link)


@pytest.mark.fault("J29")
@pytest.mark.control("J29")
def test_a_pointer_that_is_raced_dangling_or_leads_outside_is_never_followed(
    sets: StackSets, source: Path, tmp_path: Path, campaign: Campaign
):
    """The control is a reader of the pointer, which finds an old set, nothing, and a directory that is none of ours."""
    outside = tmp_path / "20990101T000000Z-999999"
    outside.mkdir()
    entries = publish_daily(sets, source, 3)
    link, targets = sets.path / "latest", [entries[0].id, "gone", str(outside), entries[2].id]
    trials = campaign.trials(reduced=200, full=5_000)
    point(link, targets[0])
    racer = os.fork()
    while racer == 0:
        for target in targets:
            point(link, target)
            time.sleep(0.001)
    try:
        found = [(sets.resolve("latest").entry.id, os.path.realpath(link)) for _ in range(trials)]
    finally:
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)
    wrong = sum(ours != entries[2].id for ours, _ in found)
    misled = {os.path.basename(theirs) for _, theirs in found} - {entries[2].id}
    campaign.found(trials, "looks for the newest set beside a raced pointer", f"{wrong} wrong")
    assert wrong == 0
    assert misled == {entries[0].id, "gone", outside.name}
    assert [each.id for each in sets.entries()] == [each.id for each in entries]
    with pytest.raises(Refused):
        sets.entry("latest")

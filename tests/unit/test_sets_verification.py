"""Reading sets back: every kind of damage is found and told apart, and what shares a bad file is damaged with it."""

from __future__ import annotations

import hashlib
import json
import os
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Outcome, Refused, Unknown
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.sets.strangers import stranger
from storekeeper.sets.verification import verify_set
from storekeeper.stores.record import Artefact
from tests.harness.campaign import Campaign
from tests.harness.damage import flip
from tests.harness.sets import START, publish, publish_daily, tampered
from tests.harness.verifying import Decoder, files_of, verify


def kinds(sets: StackSets, entry: SetEntry) -> list[tuple[str, str]]:
    return [(fault.kind, fault.path) for each in verify(sets, entry).stores.values() for fault in each.faults]


def test_a_whole_set_is_verified_and_it_is_written_down(sets: StackSets, source: Path):
    entry, store = publish(sets, source), Decoder()
    verdict = verify(sets, entry, store)
    assert (verdict.outcome, verdict.state, verdict.problems) == (Outcome.OK, "verified", ())
    assert store.decoded == [entry.path / "papers"]
    (record,) = (sets.records.folder / entry.id).iterdir()
    assert json.loads(record.read_text())["facts"]["stores"]["papers"]["outcome"] == "ok"


@pytest.mark.fault("B1")
@pytest.mark.control("B1")
def test_one_flipped_bit_anywhere_is_found(sets: StackSets, source: Path, campaign: Campaign):
    """The control: what a listing can show, the sizes, is the same for every one of them."""
    entry, rng, found, count = publish(sets, source), random.Random(5), 0, campaign.trials(20, 500)
    manifest = entry.manifest
    assert manifest is not None
    for _ in range(count):
        victim = rng.choice(files_of(entry))
        whole, size = victim.read_bytes(), victim.stat().st_size
        flip(victim, chance=rng)
        assert victim.stat().st_size == size
        found += any(fault.kind == "altered" for fault in check_artefacts(entry.path, manifest, Progress()))
        tampered(victim).write_bytes(whole)
    campaign.found(count, "flipped bits anywhere in a set", f"{found} found")
    assert found == count
    assert check_artefacts(entry.path, manifest, Progress()) == []


@pytest.mark.fault("B2")
def test_each_way_to_damage_a_file_has_its_own_name(sets: StackSets, source: Path):
    other = publish(sets, source, notes=b"other set's")
    entry = publish(sets, source)
    target, name = entry.path / "papers" / "notes.bin", "papers/notes.bin"

    def replaced_by(content: bytes | None) -> list[tuple[str, str]]:
        if content is not None:
            tampered(target).write_bytes(content)
        found = kinds(sets, entry)
        target.unlink(missing_ok=True)
        target.write_bytes(b"notes")
        return found

    assert replaced_by(b"not") == [("truncated", name)]
    assert replaced_by(b"notes and more") == [("extended", name)]
    assert replaced_by(b"nodes") == [("altered", name)]
    assert replaced_by((other.path / name).read_bytes()) == [("replaced", name)]
    target.unlink()
    assert replaced_by(None) == [("missing", name)]
    target.unlink()
    target.symlink_to(other.path / name)
    assert replaced_by(None) == [("irregular", name)]
    os.unlink(target)
    os.mkfifo(target)
    assert replaced_by(None) == [("irregular", name)]
    (entry.path / "papers" / "more.bin").write_bytes(b"x")
    assert replaced_by(None) == [("extra", "papers/more.bin")]


@pytest.mark.parametrize("name", ["a.txt", "sub/b.txt", "sub/empty", "paper.pdf"])
@pytest.mark.fault("B2")
def test_each_way_to_damage_a_listed_file_has_its_own_name(sets: StackSets, source: Path, name: str):
    entry = publish(sets, source)
    path, inside = entry.path / "papers" / "files" / name, f"papers/files/{name}"
    whole = path.read_bytes()
    tampered(path).write_bytes(whole + b"x")
    assert kinds(sets, entry) == [("extended", inside)]
    if whole:
        path.write_bytes(whole[:-1])
        assert kinds(sets, entry) == [("truncated", inside)]
        path.write_bytes(b"\0" * len(whole))
        assert kinds(sets, entry) == [("altered", inside)]
    path.unlink()
    assert kinds(sets, entry) == [("missing", inside)]
    path.symlink_to("/etc/passwd")
    assert kinds(sets, entry) == [("irregular", inside)]


@pytest.mark.fault("B2")
def test_an_artefact_of_another_set_is_named_with_its_origin(sets: StackSets, source: Path):
    other, entry = publish(sets, source, notes=b"older"), publish(sets, source, notes=b"newer")
    tampered(entry.path / "papers" / "notes.bin").write_bytes((other.path / "papers" / "notes.bin").read_bytes())
    (problem,) = verify(sets, entry).problems
    assert problem.message == f"papers/notes.bin was replaced: it holds papers/notes.bin of set {other.id}"


@pytest.mark.fault("B2")
def test_an_extra_file_among_the_listed_ones_is_found_also_when_another_is_missing(sets: StackSets, source: Path):
    entry = publish(sets, source)
    os.rename(entry.path / "papers" / "files" / "a.txt", entry.path / "papers" / "files" / "a.old")
    assert sorted(kinds(sets, entry)) == [("extra", "papers/files/a.old"), ("missing", "papers/files/a.txt")]


@pytest.mark.fault("B2")
def test_a_file_beside_the_stores_is_found(sets: StackSets, source: Path):
    entry = publish(sets, source)
    (entry.path / "notes.txt").write_text("mine")
    verdict = verify(sets, entry)
    assert [problem.message for problem in verdict.problems] == ["notes.txt does not belong to the set"]
    assert (verdict.outcome, verdict.state) == (Outcome.FAILED, "damaged")


@pytest.mark.fault("B2")
def test_a_store_whose_folder_is_gone_or_a_link_is_named(sets: StackSets, source: Path, tmp_path: Path):
    entry = publish(sets, source)
    os.rename(entry.path / "papers", tmp_path / "elsewhere")
    assert kinds(sets, entry) == [("missing", "papers")]
    (entry.path / "papers").symlink_to(tmp_path / "elsewhere")
    assert kinds(sets, entry) == [("missing", "papers")]


@pytest.mark.fault("B2")
@pytest.mark.control("B2")
def test_a_link_in_the_way_leads_nowhere(sets: StackSets, source: Path, tmp_path: Path):
    """The control: through the link the files read the same, so comparing alone would find nothing."""
    entry = publish(sets, source)
    inside, outside = entry.path / "papers" / "files" / "sub", tmp_path / "outside"
    os.rename(inside, outside)
    inside.symlink_to(outside)
    assert (inside / "b.txt").read_bytes() == (outside / "b.txt").read_bytes()
    assert ("missing", "papers/files/sub/b.txt") in kinds(sets, entry)


def test_a_damaged_listing_says_that_its_files_could_not_be_checked(sets: StackSets, source: Path):
    entry = publish(sets, source)
    flip(entry.path / "papers" / "tree.jsonl")
    assert kinds(sets, entry) == [("altered", "papers/tree.jsonl"), ("unreadable", "papers/files")]


@pytest.mark.parametrize(
    "line", ['{"path": "../../../x", "size": 1, "sha256": "00"}', '{"path": "/etc/passwd", "size": 1, "sha256": "00"}', "[]", "{"]
)
def test_a_listing_that_leads_outside_is_not_followed(sets: StackSets, source: Path, line: str):
    """As if somebody had also written the listing's sha256 anew."""
    entry = publish(sets, source)
    listing = tampered(entry.path / "papers" / "tree.jsonl")
    listing.write_text(line + "\n")
    manifest = entry.manifest
    assert manifest is not None
    record = manifest.stores["papers"]
    forged = Artefact("tree.jsonl", listing.stat().st_size, hashlib.sha256(listing.read_bytes()).hexdigest(), lists="files")
    forged_manifest = replace(manifest, stores={"papers": replace(record, artefacts=(record.artefacts[0], forged))})
    faults = check_artefacts(entry.path, forged_manifest, Progress())
    assert [fault.kind for fault in faults] == ["altered"]
    assert "cannot be read as a listing" in faults[0].message


def test_what_a_store_cannot_decode_is_damaged_and_what_cannot_be_tried_is_unknown(sets: StackSets, source: Path):
    entry = publish(sets, source)
    assert verify(sets, entry, Decoder(Unknown("pg_restore is not there"))).outcome is Outcome.UNKNOWN
    assert sets.entry(entry.id).state == "verified"
    assert verify(sets, entry, Decoder(Refused("too new"))).outcome is Outcome.UNKNOWN
    verdict = verify(sets, entry, Decoder(Failed("it does not decode")))
    assert (verdict.outcome, verdict.state, verdict.problems[0].store) == (Outcome.FAILED, "damaged", "papers")
    assert sets.entry(entry.id).reason == "papers: it does not decode"
    assert verify(sets, entry).state == "verified"


def test_a_store_that_is_not_declared_any_more_is_read_back_and_named(sets: StackSets, source: Path):
    entry = publish(sets, source)
    verdict = verify_set(sets, entry, {}, Progress())
    assert verdict.outcome is Outcome.OK
    assert "is not declared any more" in verdict.problems[0].message
    flip(entry.path / "papers" / "notes.bin")
    assert verify_set(sets, entry, {}, Progress()).outcome is Outcome.FAILED


def test_files_that_others_can_reach_are_a_warning(sets: StackSets, source: Path):
    entry = publish(sets, source)
    (entry.path / "papers" / "notes.bin").chmod(0o444)
    verdict = verify(sets, entry)
    assert verdict.outcome is Outcome.OK
    assert "1 of its files belong to another user or can be reached by others, the first is papers/notes.bin" in verdict.problems[0].message


def test_a_shared_file_that_rots_marks_every_set_that_shares_it(sets: StackSets, source: Path):
    sharing = [publish(sets, source, START + timedelta(days=day), share=True) for day in range(3)]
    alone = publish(sets, source, START + timedelta(days=3))
    flip(sharing[1].path / "papers" / "files" / "paper.pdf")
    # The control: they are one file, so the others hold the same damage though nobody looked at them.
    assert (sharing[0].path / "papers/files/paper.pdf").samefile(sharing[2].path / "papers/files/paper.pdf")
    verdict = verify(sets, sharing[1])
    assert verdict.shared == (sharing[0].id, sharing[2].id)
    assert [entry.state for entry in sets.entries()] == ["damaged", "damaged", "damaged", "verified"]
    assert sets.newest_usable() == sets.entry(alone.id)
    assert verify(sets, sharing[1]).shared == (), "they are marked once"


def test_a_file_of_its_own_that_rots_marks_no_other_set(sets: StackSets, source: Path):
    first, second = (publish(sets, source, START + timedelta(days=day), share=True) for day in range(2))
    flip(second.path / "papers" / "notes.bin")
    assert verify(sets, second).shared == ()
    assert sets.entry(first.id).state == "verified"


def test_a_damaged_set_is_not_linked_to(sets: StackSets, source: Path):
    first = publish(sets, source)
    flip(first.path / "papers" / "files" / "paper.pdf")
    verify(sets, first)
    second = publish(sets, source, START + timedelta(days=1), share=True)
    assert verify(sets, second).outcome is Outcome.OK


def test_a_stranger_in_a_set_is_named(sets: StackSets, source: Path):
    entry = publish(sets, source)
    manifest = entry.manifest
    assert manifest is not None
    assert stranger(entry.path, manifest) is None
    for name in ("notes.txt", "papers/notes.txt", "papers/files/notes.txt", "papers/files/sub/notes.txt"):
        (entry.path / name).write_text("mine")
        assert stranger(entry.path, manifest) == name
        (entry.path / name).unlink()


def test_the_verdict_of_an_unreadable_manifest_is_damage(sets: StackSets, source: Path):
    (entry,) = publish_daily(sets, source, 1)
    tampered(entry.path / "manifest.json").write_bytes(b"{}")
    verdict = verify(sets, entry)
    assert (verdict.outcome, verdict.state, verdict.stores) == (Outcome.FAILED, "damaged", {})
    assert verify(sets, sets.entry(entry.id)).outcome is Outcome.FAILED

"""Sets whose checksums all agree and whose content is another: only a restore that is compared with what was recorded finds them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Outcome
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import MANIFEST, Manifest
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.postgresql.archive import ARCHIVE
from storekeeper.verbs import prove as verb
from storekeeper.verbs.prove import prove
from tests.harness.campaign import Campaign
from tests.harness.mutations import CHANGES_OF_SHAPE, SHAPE, Mutable, mutable
from tests.harness.sets import tampered

KINDS = ("postgresql", "sqlite", "chroma", "files")


def taken(held: Mutable) -> tuple[SetEntry, Manifest]:
    entry = take_set(held.context, purpose="backup")
    assert entry.manifest is not None
    return entry, entry.manifest


def forged(held: Mutable, before: Manifest, chance: random.Random, number: int) -> tuple[SetEntry, Manifest]:
    """A set of changed content that says it is of the content before: sizes, checksums and seal are those of what is in it.

    Returns it with the manifest that would have been the truth, of which the next one is judged.
    """
    held.mutations[number % len(held.mutations)](chance)
    entry, truth = taken(held)
    was, now = before.stores["held"], truth.stores["held"]
    said = replace(now, counts=was.counts, digests=was.digests)
    tampered(entry.path / MANIFEST).write_bytes(replace(truth, stores={"held": said}).to_bytes())
    (entry.path / MANIFEST).chmod(0o400)
    return held.context.sets.entry(entry.id), truth


def sums_agree(entry: SetEntry) -> bool:
    """Whether everything in the set has the size and the checksum that its sealed manifest says."""
    assert entry.manifest is not None
    return check_artefacts(entry.path, entry.manifest, Progress()) == []


@pytest.mark.fault("B5")
@pytest.mark.parametrize("kind", KINDS)
def test_every_change_of_content_behind_agreeing_checksums_is_found_by_a_proof(kind: str, tmp_path: Path, campaign: Campaign) -> None:
    count, chance, found, unnoticed = campaign.trials(3, 50), random.Random(kind), 0, 0
    with mutable(kind, tmp_path) as held:
        entry, truth = taken(held)
        for number in range(count):
            durable.remove_tree(entry.path)
            entry, truth = forged(held, truth, chance, number)
            unnoticed += sums_agree(entry)
            report = prove(held.context, entry.id)
            [problem] = report.problems or [None]
            found += (
                report.outcome is Outcome.FAILED
                and held.context.sets.entry(entry.id).state == "unprovable"
                and problem is not None
                and "differs from the set: the digest of" in problem.message
            )
        campaign.found(count, f"changes of content with all checksums made to agree ({kind})", f"{found} found by prove")
    assert found == count
    assert unnoticed == count, "each must be a change that no checksum tells"


@pytest.mark.fault("B5")
def test_an_archive_of_the_same_rows_in_another_shape_is_found_by_a_proof(tmp_path: Path, campaign: Campaign) -> None:
    """The archive alone is that of a changed database: sequences, code, rules and rights, of which no row and no count tells."""
    chosen, found = CHANGES_OF_SHAPE[: campaign.trials(2, len(CHANGES_OF_SHAPE))], 0
    with mutable("postgresql", tmp_path) as held:
        assert held.server is not None
        held.server.run(SHAPE)
        entry, truth = taken(held)
        for change in chosen:
            held.server.run(change)
            after, after_truth = taken(held)
            own = exchange_archive(after, entry, truth)
            assert sums_agree(held.context.sets.entry(after.id))
            found += prove(held.context, after.id).outcome is Outcome.FAILED
            put_back(after, own, after_truth)
            durable.remove_tree(entry.path)
            entry, truth = after, after_truth
        campaign.found(
            len(chosen), "archives of the same rows in another shape, with all checksums made to agree", f"{found} found by prove"
        )
    assert found == len(chosen)


def exchange_archive(after: SetEntry, before: SetEntry, said: Manifest) -> dict[str, bytes]:
    """Make a set say everything of the moment before, but for its archive. Returns what was there."""
    assert after.manifest is not None
    was, now = said.stores["held"], after.manifest.stores["held"]
    own = {}
    for artefact in was.artefacts:
        if not artefact.path.startswith(ARCHIVE):
            path = tampered(after.path / "held" / artefact.path)
            own[artefact.path] = path.read_bytes()
            path.write_bytes((before.path / "held" / artefact.path).read_bytes())
    archive = [each for each in now.artefacts if each.path.startswith(ARCHIVE)]
    others = [each for each in was.artefacts if not each.path.startswith(ARCHIVE)]
    forged = replace(after.manifest, stores={"held": replace(was, artefacts=(*archive, *others))})
    tampered(after.path / MANIFEST).write_bytes(forged.to_bytes())
    return own


def put_back(entry: SetEntry, own: dict[str, bytes], truth: Manifest) -> None:
    for name, content in own.items():
        (entry.path / "held" / name).write_bytes(content)
    (entry.path / MANIFEST).write_bytes(truth.to_bytes())


@pytest.mark.fault("B5")
@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_set_is_proven_each_time(kind: str, tmp_path: Path, campaign: Campaign) -> None:
    count, chance, proven = campaign.trials(1, 5), random.Random(kind), 0
    with mutable(kind, tmp_path) as held:
        for number in range(count):
            held.mutations[number % len(held.mutations)](chance)
            entry, _ = taken(held)
            proven += prove(held.context, entry.id).result["sets"][0]["state"] == "proven"
        campaign.found(count, f"clean sets ({kind})", f"{proven} proven")
    assert proven == count


@pytest.mark.control("B5")
def test_control_a_proof_that_compares_nothing_proves_the_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "refuse_difference", lambda *_: None)
    with mutable("sqlite", tmp_path) as held:
        _, truth = taken(held)
        entry, _ = forged(held, truth, random.Random(1), 0)
        assert prove(held.context, entry.id).result["sets"][0]["state"] == "proven"

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
from storekeeper.verbs import prove as verb
from storekeeper.verbs.prove import prove
from tests.harness.campaign import Campaign
from tests.harness.mutations import Mutable, mutable
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

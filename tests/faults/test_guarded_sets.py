"""Guards of publishing, proving and pruning: what is made durable, what is decoded, what is compared, what is let go of."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.outcomes import Failed, Outcome
from storekeeper.sets import pruning
from storekeeper.sets.manifest import MANIFEST
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import Keep
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.record import Artefact
from storekeeper.verbs.prove import prove
from tests.harness.durability import Synced
from tests.harness.sets import START, open_sets, publish_daily, tampered, write_source
from tests.harness.stacks import Lab


@pytest.mark.fault("J1", "J2")
def test_everything_in_a_set_is_durable_before_the_set_has_its_name(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, lacking = Synced(monkeypatch), {}
    rename = durable.rename

    def look_and_rename(source: Path, destination: Path) -> None:
        lacking[destination] = synced.lacking(source)
        rename(source, destination)

    monkeypatch.setattr(durable, "rename", look_and_rename)
    entry = take_set(lab.context, purpose="backup")
    assert lacking[entry.path] == []
    assert synced.has(entry.path.parent), "its name"
    assert len(list(entry.path.rglob("*"))) > 10, "a set of nothing proves nothing"


@pytest.mark.fault("A16", "B5")
def test_what_does_not_decode_is_not_published(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sum is right: it was cut before it was hashed."""
    adopt = StoreFolder.adopt

    def adopt_half(folder: StoreFolder, source: Path, name: str) -> Artefact:
        os.truncate(source, source.stat().st_size // 2)
        return adopt(folder, source, name)

    monkeypatch.setattr(StoreFolder, "adopt", adopt_half)
    with pytest.raises(Failed) as failed:
        take_set(lab.context, purpose="backup")
    assert failed.value.store == "main"
    assert lab.context.sets.entries() == []


@pytest.mark.fault("B5", "B10")
def test_a_set_that_restores_to_other_contents_than_it_says_is_not_proven(lab: Lab) -> None:
    """Every sum is right, every file decodes, and the rows are not those of the moment that was held."""
    entry = take_set(lab.context, purpose="backup")
    manifest = entry.manifest
    assert manifest is not None
    main = manifest.stores["main"]
    other = replace(main, digests=dict.fromkeys(main.digests, "sha256:" + "0" * 64))
    sealed = replace(manifest, stores={**manifest.stores, "main": other}).to_bytes()
    tampered(entry.path / MANIFEST).write_bytes(sealed)
    report = prove(lab.context)
    assert (report.outcome, report.result["sets"][0]["state"]) == (Outcome.FAILED, "unprovable")
    assert {name: each["outcome"] for name, each in report.result["sets"][0]["stores"].items()} == {
        "main": Outcome.FAILED,
        "papers": Outcome.OK,
    }


@pytest.mark.fault("C10")
def test_a_set_that_is_held_at_the_last_moment_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody had it when the decision was made."""
    sets = open_sets(tmp_path)
    first, *_ = publish_daily(sets, write_source(tmp_path / "source"), 3)
    monkeypatch.setattr(pruning, "_is_free", lambda _: True)
    with sets.using(first):
        pruning.prune(sets, Keep(days=0, daily=0, weekly=0, monthly=0, at_least=1), START + timedelta(days=60), confirmed=True)
        assert first.path.is_dir()
        assert [entry.sequence for entry in sets.entries()] == [1, 3]


@pytest.mark.fault("A17")
def test_a_file_that_is_written_to_while_it_is_stored_is_listed_as_one_that_changed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    (tmp_path / "set").mkdir()
    folder = StoreFolder(tmp_path / "set", None, lambda _: source.write_bytes(b"after!") and None)
    with folder.tree("tree.jsonl", "files") as tree, open(source, "rb") as opened:
        entry = tree.add_file({"path": "a", "type": "file"}, opened)
    assert entry.get("changed") is True
    assert "source" not in entry, "nor may the next set trust it to be unchanged"

"""prove on a real application: its restored copies are compared with each other, and what they disagree about is told."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency import checking
from storekeeper.host import clock, space
from storekeeper.sets import agreeing
from tests.consistency.test_repair import plant
from tests.harness.maestro import Document, Maestro
from tests.harness.program import Program, hold_to


def proved(program: Program, *said: str) -> dict[str, Any]:
    """A proof that warns; returns what it says of the rule."""
    document = hold_to(program.answer("prove", "maestro"), 4, "warning", *said)
    (found,) = document["result"]["sets"]
    assert found["state"] == "proven"
    agreement: dict[str, Any] = found["agreements"]["documents"]
    return agreement


def test_the_copies_of_a_set_are_compared_and_a_disagreement_leaves_the_set_proven(program: Program, application: Maestro) -> None:
    plant(application)
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    live = program.answer("check", "maestro").document["result"]["rules"]["documents"]
    for folder in ("raw_pdfs", "processed/markdown", "processed/metadata"):
        application.delete_file("doc-00020", folder)  # what is live by now is not asked
    agreement = proved(program, "its stores disagreed when it was taken, 7 orphan, 1 missing, 1 partial, 6 leftover, 1 foreign, such as")
    assert agreement["outcome"] == "warning"
    assert agreement == {key: live[key] for key in ("outcome", "documents", "counts")}
    (record,) = program.repository.glob("maestro/.records/*/prove-*.json")
    assert json.loads(record.read_text())["facts"]["agreements"] == {"documents": agreement}
    assert list(program.root.glob("storekeeper-*")) == []


def test_copies_that_agree_are_proven_without_a_warning_and_what_is_in_flight_is_said(program: Program) -> None:
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    document = hold_to(program.answer("prove", "maestro"), 0, "ok")
    agreement = document["result"]["sets"][0]["agreements"]["documents"]
    assert (agreement["outcome"], agreement["documents"], agreement["counts"]["in_flight"]) == ("ok", 32, 2)
    assert any("2 documents were being worked on" in problem["message"] for problem in document["problems"])


def test_a_failure_is_as_old_as_it_was_when_the_set_was_taken_however_late_it_is_proven(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.add([Document("broken", state="failed", age=timedelta(hours=1))])
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    later = clock.now() + timedelta(days=3)
    found = in_process(program, monkeypatch, lambda: monkeypatch.setattr(checking.clock, "now", lambda: later))
    assert found["agreements"]["documents"]["counts"]["leftover"] == 0
    assert found["agreements"]["documents"]["outcome"] == "ok"


def test_a_rule_that_asks_for_what_the_set_does_not_hold_is_unknown_and_the_set_proven(
    program: Program, application: Maestro, declare: Any
) -> None:
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    declare(replicas=[{"store": "vectors", "collections": ["made_later"], "key": "doc_id"}])
    assert proved(program, "vectors/made_later cannot be read, so nothing is known of it")["outcome"] == "unknown"


def test_copies_that_have_no_room_beside_each_other_are_proven_one_by_one(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    found = in_process(program, monkeypatch, lambda: monkeypatch.setattr(space, "free_bytes", lambda _: 1000))
    assert found["agreements"]["documents"]["outcome"] == "unknown"
    assert (found["state"], {each["outcome"] for each in found["stores"].values()}) == ("proven", {"ok"})


def test_a_disk_that_fills_while_copies_are_kept_makes_them_give_way(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    found = in_process(program, monkeypatch, lambda: fill_while_kept(monkeypatch))
    assert found["agreements"]["documents"]["outcome"] == "unknown"
    assert (found["state"], {each["outcome"] for each in found["stores"].values()}) == ("proven", {"ok"})


@pytest.mark.control("B10")
def test_control_without_giving_way_a_good_set_would_be_unknown(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_to(program.answer("backup", "maestro"), 0, "ok")

    def arrange() -> None:
        fill_while_kept(monkeypatch)
        monkeypatch.setattr(agreeing.Agreeing, "gave_way", lambda _: False)

    found = in_process(program, monkeypatch, arrange)
    assert found["state"] == "verified"


def fill_while_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which the last store has no room as long as the others' copies are there."""
    from storekeeper.verbs import prove  # noqa: PLC0415 - after its patches

    whole = prove.opened_copy

    def full(context: Any, entry: Any, manifest: Any, name: str) -> Any:
        if name == "papers" and list(Path(context.scratch).glob("storekeeper-maestro-*")):
            raise OSError(28, "No space left on device")
        return whole(context, entry, manifest, name)

    monkeypatch.setattr(prove, "opened_copy", full)


def in_process(program: Program, monkeypatch: pytest.MonkeyPatch, arrange: Any) -> dict[str, Any]:
    """A proof in this process, where a piece of the program can be replaced."""
    from storekeeper.host.progress import Progress  # noqa: PLC0415
    from storekeeper.stack.config import load_places  # noqa: PLC0415
    from storekeeper.verbs import opening, prove  # noqa: PLC0415

    arrange()
    places = load_places(program.config)
    with opening.open_context(places, opening.declared(places, "maestro"), Progress()) as context:
        report = prove.prove(context)
    found: dict[str, Any] = report.result["sets"][0]
    return found

"""When what repairs and restored documents have kept is removed, and when it never is."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency import forgetting
from storekeeper.outcomes import Failed
from tests.consistency.test_automatic import KEEP, age, prune, repaired, taken
from tests.consistency.test_restore_document import RESTORE, change
from tests.harness.equal import digests
from tests.harness.maestro import Document, Maestro
from tests.harness.program import Program, hold_to
from tests.harness.trees import store_at

TOKEN = "0123abcd"
LONG = KEEP + timedelta(days=90)


@pytest.fixture
def restored(program: Program, application: Maestro) -> tuple[Path, dict[str, Any]]:
    """A document is brought back long ago, and a newer set is proven: the repair's directory, and the digests before."""
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    change(application)
    before = digests(application)
    repair = program.state / "maestro/repairs" / hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")["result"]["repair"]
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    hold_to(program.answer("prove", "maestro"), 0, "ok")
    age(repair, LONG)
    return repair, before


def halved(repair: Path) -> None:
    """As if it had been killed between two places."""
    journal = repair / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == ["applying", "laid", "applied"]
    journal.write_text("".join(lines[:2]))


def test_what_a_restored_document_kept_goes_with_its_time(
    program: Program, application: Maestro, restored: tuple[Path, dict[str, Any]]
) -> None:
    repair, _ = restored
    assert len(taken(application)) == 1
    prune(program)
    assert not repair.exists()
    assert list(application.papers.glob(".storekeeper-*")) == []


def test_a_document_half_brought_back_keeps_all_that_leads_back(
    program: Program, application: Maestro, restored: tuple[Path, dict[str, Any]]
) -> None:
    repair, before = restored
    halved(repair)
    prune(program)
    hold_to(program.answer("repair", "undo", "maestro", repair.name, "--yes"), 0, "ok")
    assert digests(application) == before


def test_control_were_it_taken_for_over_nothing_would_lead_back(
    program: Program, restored: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from storekeeper.host.progress import Progress  # noqa: PLC0415
    from storekeeper.stack.config import load_places  # noqa: PLC0415
    from storekeeper.verbs import opening  # noqa: PLC0415
    from storekeeper.verbs.prune import forget_repairs  # noqa: PLC0415

    repair, _ = restored
    halved(repair)
    monkeypatch.setattr(forgetting, "_OVER", (None, "laid", "applied", "undone"))
    places = load_places(Path(program.config))
    with opening.open_context(places, opening.declared(places, "maestro"), Progress(), lock="prune") as context:
        forget_repairs(context)
    hold_to(program.answer("repair", "undo", "maestro", repair.name, "--yes"), 2, "refused", "there is no plan")


def test_a_journal_that_rotted_is_left_to_a_person(program: Program, restored: tuple[Path, dict[str, Any]]) -> None:
    repair, _ = restored
    (repair / "journal.jsonl").write_bytes(b"\0 rot\n")
    said = hold_to(program.answer("prune", "maestro"), 4, "warning", "is not removed: the journal of the plan", "cannot be read")
    assert [each["severity"] for each in said["problems"]] == ["warning"]
    assert repair.exists()


def test_while_the_files_are_not_there_what_was_taken_of_them_is_not_forgotten(program: Program, application: Maestro) -> None:
    application.add([Document("broken", state="failed", age=timedelta(days=2))])
    repair = repaired(program)
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    hold_to(program.answer("prove", "maestro"), 0, "ok")
    age(repair, LONG)
    away = application.papers.with_name("unmounted")
    application.papers.rename(away)
    hold_to(program.answer("prune", "maestro"), 4, "warning", f"the repair {repair.name} is not removed", "does not exist")
    assert repair.exists()
    away.rename(application.papers)
    prune(program)
    assert not repair.exists()
    assert taken(application) == []


def test_only_what_a_repair_has_taken_is_removed_and_no_side_of_a_restore(tmp_path: Path) -> None:
    root = tmp_path / "live"
    others = [f".storekeeper-{TOKEN}-papers-0", f".storekeeper-{TOKEN}-taken-0", ".storekeeper-ffffffff-taken", "paper.pdf"]
    for name in (*others, f".storekeeper-{TOKEN}-taken", f".storekeeper-{TOKEN}-brought-89abcdef"):
        (root / name / "below").mkdir(parents=True)
    store = store_at(root, tmp_path)
    store.forget_taken(TOKEN)
    assert sorted(path.name for path in root.iterdir()) == sorted(others)
    store.forget_taken(TOKEN)
    root.rename(tmp_path / "away")
    with pytest.raises(Failed, match="does not exist"):
        store.forget_taken(TOKEN)

"""What a schedule may remove by itself, and when repairs are forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness.maestro import Document, Maestro
from tests.harness.program import Program, hold_to

Declare = Callable[..., None]
CHECK = ("check", "maestro", "--repair-declared")
KEEP = timedelta(days=7)  # `restore: keep_old`


@pytest.fixture
def broken(application: Maestro) -> Maestro:
    """A document that failed two days ago and left something everywhere, and an orphan that nobody has seen yet."""
    application.add([Document("broken", state="failed", age=timedelta(days=2))])
    application.delete_row("doc-00003")
    return application


def held(application: Maestro, document: str) -> int:
    """In how many folders there is a file of it."""
    return sum(application.file(document, folder).exists() for folder in ("raw_pdfs", "processed/markdown", "processed/metadata"))


def test_only_what_a_rule_declares_is_removed_by_itself(program: Program, broken: Maestro, declare: Declare) -> None:
    declare(automatic=["leftover"])
    document = hold_to(program.answer(*CHECK), 4, "warning", "removed by itself", "repair undo")
    repaired = document["result"]["repaired"]
    assert repaired["removed"] == {"metadata": 1, "vectors": 2, "papers": 3}
    assert (held(broken, "broken"), held(broken, "doc-00003")) == (0, 3)
    hold_to(program.answer("repair", "undo", "maestro", repaired["plan"], "--yes"), 0, "ok")
    assert held(broken, "broken") == 3


def test_an_orphan_waits_for_its_grace_whatever_is_declared(program: Program, broken: Maestro, declare: Declare) -> None:
    declare(automatic=["orphan"])
    document = hold_to(program.answer(*CHECK), 4, "warning")
    assert document["result"]["repaired"] is None
    assert (held(broken, "broken"), held(broken, "doc-00003")) == (3, 3)
    assert not list((program.state / "maestro/repairs").glob("2*")), "a plan of nothing is not kept"


def test_where_nothing_is_declared_nothing_is_removed_by_itself(program: Program, broken: Maestro) -> None:
    hold_to(program.answer(*CHECK), 2, "refused", "declares `automatic`")
    assert held(broken, "broken") == 3


def test_beyond_the_brake_nothing_is_removed_by_itself(program: Program, broken: Maestro, declare: Declare) -> None:
    declare(automatic=["leftover"], brake={"percent": 1, "documents": 100})
    document = hold_to(program.answer(*CHECK), 4, "warning", "nothing was repaired", "the brake lets 0 through", "--limit 1")
    assert (document["result"]["repaired"], held(broken, "broken")) == (None, 3)


def test_a_store_that_cannot_be_read_repairs_nothing_by_itself(program: Program, broken: Maestro, declare: Declare) -> None:
    declare(automatic=["leftover"])
    broken.metadata.rename(broken.metadata.with_suffix(".away"))
    ended = program.answer(*CHECK)
    assert (ended.code, ended.document["outcome"]) == (3, "unknown")
    assert held(broken, "broken") == 3


def test_a_schedule_can_carry_it_out(program: Program, broken: Maestro) -> None:
    declared = json.loads(broken.stack_file(automatic=["leftover"], brake={"percent": 100, "documents": 100}))
    declared["schedule"] = [{"verb": "check", "arguments": ["--repair-declared"], "at": "0 * * * *"}]
    program.declare(json.dumps(declared), "maestro")
    assert program.answer("status", "maestro").code in (3, 4)
    hold_to(program.answer(*CHECK), 4, "warning", "removed by itself")


# --- forgetting ---


def repaired(program: Program) -> Path:
    """What was left of the document is removed; the repair's directory."""
    plan = hold_to(program.answer("repair", "plan", "maestro"), 0, "ok")["result"]["plan"]
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    return Path(plan["path"])


def age(repair: Path, by: timedelta) -> None:
    """Make the steps of a repair that much older."""
    journal = repair / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        moment = datetime.fromisoformat(line["at"]) - by
        line["at"] = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def taken(application: Maestro) -> list[Path]:
    return list(application.papers.glob(".storekeeper-*-taken"))


def prune(program: Program) -> dict[str, Any]:
    return hold_to(program.answer("prune", "maestro"), 0, "ok")


def prove(program: Program) -> None:
    """With the warning that the stores disagreed when it was taken: the orphan is still there."""
    hold_to(program.answer("prove", "maestro"), 4, "warning", "its stores disagreed")


def test_a_repair_is_forgotten_when_its_time_is_over_and_a_newer_set_is_proven(program: Program, broken: Maestro) -> None:
    repair = repaired(program)
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    age(repair, KEEP + timedelta(hours=1))
    prune(program)
    assert repair.exists(), "no set is proven: what was removed may be nowhere else"
    assert len(taken(broken)) == 1
    prove(program)
    said = [each["message"] for each in prune(program)["problems"]]
    assert f"removed the repair {repair.name} and what it kept" in said
    assert not repair.exists()
    assert taken(broken) == []
    hold_to(program.answer("repair", "undo", "maestro", repair.name, "--yes"), 2, "refused", "there is no plan")


def test_a_young_repair_and_one_that_was_interrupted_stay(program: Program, broken: Maestro) -> None:
    repair = repaired(program)
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    prove(program)
    prune(program)
    assert repair.exists()
    journal = repair / "journal.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    age(repair, timedelta(days=90))
    prune(program)
    assert repair.exists()
    assert len(taken(broken)) == 1


def test_a_plan_that_was_never_applied_goes_with_its_time(program: Program, broken: Maestro) -> None:
    plan = Path(hold_to(program.answer("repair", "plan", "maestro"), 0, "ok")["result"]["plan"]["path"])
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    prune(program)
    assert plan.exists()
    gone = plan.with_name(".gone-of-a-run-that-was-killed")
    gone.mkdir()
    prune(program)
    assert not gone.exists()
    assert taken(broken) == []

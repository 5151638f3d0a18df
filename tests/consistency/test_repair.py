"""repair on a real application: what is planned is removed and nothing else, all of it is kept, and undo brings it back."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.stores.chroma.mending import OF_A_DOCUMENT
from tests.consistency.conftest import WIDE
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.equal import digests
from tests.harness.maestro import DENSE, SPARSE, Document, Maestro, database
from tests.harness.program import Program, hold_to


def planned(program: Program, *words: str) -> dict[str, Any]:
    document = hold_to(program.answer("repair", "plan", "maestro", *words), 0, "ok")
    found: dict[str, Any] = document["result"]["plan"]
    return found


def plant(application: Maestro) -> None:
    """Orphans in every store, a leftover in every store, and what no repair removes."""
    application.delete_row("doc-00003")
    application.add([Document("broken", state="failed", age=timedelta(days=3))])
    application.add_chunks([Document("stranger")], [DENSE])
    application.delete_file("doc-00004", "processed/markdown")
    application.delete_chunks("doc-00008", [SPARSE], [1])
    application.give_chunks_to("3", "doc-00009", [DENSE])


def test_what_is_planned_is_removed_and_nothing_else_and_undo_brings_all_of_it_back(program: Program, application: Maestro) -> None:
    plant(application)
    before = digests(application)
    plan = planned(program, "--at-once")
    assert plan["removals"] == {"metadata": 2, "papers": 6, "vectors": 5}
    assert plan["documents"] == {"documents": 3}
    assert (plan["reingest"], plan["by_hand"], plan["waiting"]) == (2, 1, 0)
    assert digests(application) == before  # a plan changes nothing

    done = hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")["result"]
    assert done["removed"] == {"metadata": 2, "papers": 6, "vectors": 5}
    assert done["skipped"] == []
    counts = program.answer("check", "maestro").document["result"]["rules"]["documents"]["counts"]
    assert {kind: count for kind, count in counts.items() if count} == {"missing": 1, "partial": 1, "foreign": 1, "in_flight": 2}
    with database(application.main) as main:
        assert main.execute("select count(*) from documents").fetchone() == (32,)  # the authority is never touched

    undone = hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")["result"]
    assert undone["undone"] == {"metadata": 2, "papers": 6, "vectors": 5}
    assert digests(application) == before
    assert list(application.papers.glob(".storekeeper-*")) == []


def test_what_must_be_taken_in_again_is_a_list(program: Program, application: Maestro) -> None:
    plant(application)
    plan = planned(program)
    lines = [json.loads(line) for line in Path(plan["reingest_file"]).read_text().splitlines()]
    assert [(each["document"], each["owner"], [place["class"] for place in each["places"]]) for each in lines] == [
        ("doc-00004", "2", ["missing"]),
        ("doc-00008", "3", ["partial"]),
    ]


@pytest.mark.fault("F5")
def test_an_orphan_waits_for_a_second_look_a_grace_later(program: Program, application: Maestro, declare: Callable[..., None]) -> None:
    application.delete_row("doc-00003")
    assert planned(program)["waiting"] == 6
    declare(grace="1m")
    planned(program)
    look = program.state / "maestro/looks/documents.jsonl"
    long_ago = "2020-01-01T00:00:00"
    lines = [json.loads(line) for line in look.read_text().splitlines()]
    for line in lines[1:]:
        line["since"] = f"{long_ago}.000000Z"
    look.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = planned(program)
    assert (plan["waiting"], plan["documents"]) == (0, {"documents": 1})


def test_one_document_or_one_owner_is_cleaned_up_alone(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")  # of user 1
    application.delete_row("doc-00004")  # of user 2
    assert planned(program, "--document", "doc-00003", "--at-once")["documents"] == {"documents": 1}
    plan = planned(program, "--owner", "2", "--at-once")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    left = program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"]
    assert {each["document"] for each in left if each["owner"] is not None} == {"doc-00003"}


def test_the_chunks_of_a_document_are_found_by_an_index_and_not_by_reading_all(application: Maestro) -> None:
    words = {"segment": "s", "key": "doc_id", "text": "doc-00003", "number": 3}
    with database(application.vectors / "chroma.sqlite3") as chunks:
        steps = [step for *_, step in chunks.execute(f"explain query plan {OF_A_DOCUMENT}", words)]
    looks = [step for step in steps if step.startswith(("SCAN", "SEARCH"))]
    assert looks == [
        "SEARCH m USING INDEX embedding_metadata_string_value (key=? AND string_value=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH m USING INDEX embedding_metadata_int_value (key=? AND int_value=?)",
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
    ]


_SHARED = """
for user in (1, 2):
    names = [f"same-{user}-{number}" for number in range(2)]
    collection("research_papers_dense").add(
        ids=names, embeddings=vectors(2, 8, user), documents=names, metadatas=[{"doc_id": "same", "user_id": user}] * 2
    )
"""
_LEFT = "say(sorted(collection('research_papers_dense').get(where={'doc_id': 'same'})['ids']))"


@pytest.mark.fault("F4")
def test_what_another_owner_has_under_the_same_id_stays(program: Program, application: Maestro) -> None:
    chroma.execute(application.vectors, _SHARED)
    before = digests(application)
    plan = planned(program, "--owner", "1", "--at-once")
    assert plan["removals"] == {"vectors": 1}
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    assert chroma.execute(application.vectors, _LEFT) == [["same-2-0", "same-2-1"]]
    hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    assert digests(application) == before


@pytest.mark.fault("F4")
def test_what_two_owners_have_under_one_id_goes_and_comes_back(program: Program, application: Maestro) -> None:
    chroma.execute(application.vectors, _SHARED)
    before = digests(application)
    plan = planned(program, "--at-once")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    assert chroma.execute(application.vectors, _LEFT) == [[]]
    hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    assert digests(application) == before


@pytest.mark.fault("F4")
def test_rows_of_which_nobody_says_whose_they_are_stay_while_another_owner_has_some(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    declare(
        replicas=[
            {
                "store": "metadata",
                "query": "select doc_id, owner from shared",
                "columns": ["id", "owner"],
                "rows": [{"table": "shared", "key": "doc_id"}],
            }
        ]
    )
    with database(application.metadata) as metadata:
        metadata.executescript("create table shared (doc_id text, owner text)")
        metadata.execute("insert into shared select doc_id, null from processed_documents")
        metadata.executemany("insert into shared values (?, ?)", [("same", "1"), ("same", "2"), ("lone", "1")])
    plan = planned(program, "--owner", "1", "--at-once")
    ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes")
    result = hold_to(ended, 4, "warning", "1 were skipped")["result"]
    assert [(each["document"], each["why"]) for each in result["skipped"]] == [
        ("same", "another owner has it there too, and which rows are whose nobody says")
    ]
    with database(application.metadata) as metadata:
        assert metadata.execute("select * from shared where doc_id in ('same', 'lone') order by 2").fetchall() == [
            ("same", "1"),
            ("same", "2"),
        ]


@pytest.mark.fault("F7")
def test_what_changed_since_the_plan_is_skipped_and_said(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    application.add([Document("broken", state="failed", age=timedelta(days=3))])
    application.delete_row("doc-00005")
    plan = planned(program, "--at-once")
    application.insert_rows([Document("doc-00003", state="processing")])  # the application has begun it again
    with database(application.main) as main:
        main.execute("update documents set processing_status = 'queued' where id = 'broken'")
    application.delete_metadata("doc-00005")
    ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes")
    result = hold_to(ended, 4, "warning", "13 were skipped")["result"]
    assert result["removed"] == {"papers": 3, "vectors": 2}
    whys = {(each["document"], each["why"]) for each in result["skipped"]}
    assert whys == {
        ("doc-00003", "the authority has it now"),
        ("broken", "its state is queued now"),
        ("doc-00005", "it is not there any more"),
    }


@pytest.mark.control("F7")
def test_control_without_the_second_look_what_came_back_would_be_removed(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    application.insert_rows([Document("doc-00003", state="processing")])
    in_process(program, monkeypatch, plan["id"], lambda repairing: monkeypatch.setattr(repairing, "_why_not", lambda *_: None))
    assert not application.file("doc-00003", "raw_pdfs").exists()


@pytest.mark.fault("F8")
def test_a_plan_beyond_the_brake_is_refused_without_a_limit(program: Program, application: Maestro, declare: Callable[..., None]) -> None:
    declare(brake={"percent": 5, "documents": 100})
    for number in (3, 4):
        application.delete_row(f"doc-{number:05}")
    plan = planned(program, "--at-once")
    before = digests(application)
    ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes")
    hold_to(ended, 2, "refused", "removes 2 documents of documents, the brake lets 1 through", "--limit 2")
    assert digests(application) == before
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes", "--limit", "2"), 0, "ok")


@pytest.mark.control("F8")
def test_control_a_brake_that_lets_all_through_removes_all(program: Program, application: Maestro, declare: Callable[..., None]) -> None:
    declare(brake={"percent": 100, "documents": 100})
    for number in range(10):
        application.delete_row(f"doc-{number:05}")
    plan = planned(program, "--at-once")
    done = hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")["result"]
    assert done["removed"]["metadata"] == 10


@pytest.mark.fault("F2")
def test_an_empty_authority_repairs_nothing(program: Program, application: Maestro) -> None:
    with database(application.main) as main:
        main.executescript("delete from document_group_association; delete from documents")
    plan = planned(program, "--at-once")
    before = digests(application)
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 2, "refused", "the brake lets 0 through")
    ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes", "--limit", "1000")
    hold_to(ended, 2, "refused", "holds no document at all")
    assert digests(application) == before


@pytest.mark.control("F2")
def test_control_without_that_an_empty_authority_empties_the_others(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database(application.main) as main:
        main.executescript("delete from document_group_association; delete from documents")
    plan = planned(program, "--at-once")
    in_process(
        program, monkeypatch, plan["id"], lambda repairing: monkeypatch.setattr(repairing.Repairing, "_known", lambda *_: {}), limit=1000
    )
    assert list((application.papers / "raw_pdfs").iterdir()) == []


@pytest.mark.fault("F1")
def test_nothing_is_planned_while_a_store_cannot_be_read(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    application.metadata.write_bytes(b"no database" * 100)
    hold_to(program.answer("repair", "plan", "maestro", "--at-once"), 3, "unknown", "nothing is planned")


@pytest.mark.fault("F9")
def test_a_repair_that_is_killed_can_be_undone_or_finished(program: Program, application: Maestro, campaign: Campaign) -> None:
    plant(application)
    before = digests(application)
    count, cut = campaign.trials(3, 50), 0
    seed = random.Random(9)
    longest = 3.0
    for trial in range(count):
        plan = planned(program, "--at-once")
        process = program.start("repair", "apply", "maestro", plan["id"], "--yes", "--limit", "1000", "--json")
        time.sleep(seed.uniform(0.2, longest))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cut += process.returncode == -signal.SIGKILL
        wait_for_children(program)
        if trial % 2:
            again = program.answer("repair", "apply", "maestro", plan["id"], "--yes", "--limit", "1000")
            assert again.code in (0, 4) or "is applied" in again.err, again.err
            counts = program.answer("check", "maestro").document["result"]["rules"]["documents"]["counts"]
            assert (counts["orphan"], counts["leftover"]) == (0, 0)
        ended = program.answer("repair", "undo", "maestro", plan["id"], "--yes")
        assert ended.code == 0 or "never applied" in ended.err, ended.err
        assert digests(application) == before, f"trial {trial}"
    campaign.found(count, f"repairs killed ({cut} in the middle)", "all undone, digests of all stores equal")
    assert cut, "none was killed: nothing was tested"


@pytest.mark.control("F9")
def test_control_what_was_not_kept_does_not_come_back(program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    in_process(program, monkeypatch, plan["id"], lambda repairing: monkeypatch.setattr(repairing.Repairing, "_keep", lambda *_: None))
    hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    assert not application.file("doc-00003", "raw_pdfs").exists()


def wait_for_children(program: Program) -> None:
    """A client of Chroma that the killed run left behind ends by itself, and has the lock until then."""
    deadline = time.monotonic() + 20
    while program.answer("prune", "maestro").code == 75 and time.monotonic() < deadline:
        time.sleep(0.1)


def test_what_the_application_made_anew_is_left_as_it_is_by_undo(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    application.file("doc-00003", "raw_pdfs").write_text("another upload")
    with database(application.metadata) as metadata:
        metadata.execute("insert into processed_documents values ('doc-00003', 'another title', '[]')")
    ended = program.answer("repair", "undo", "maestro", plan["id"], "--yes")
    hold_to(ended, 4, "warning", "is there again", "cannot be put back")
    assert application.file("doc-00003", "raw_pdfs").read_text() == "another upload"
    assert application.file("doc-00003", "processed/markdown").exists()


def test_a_plan_that_was_altered_applied_or_made_under_other_rules_is_refused(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    entries = Path(plan["path"]) / "entries.jsonl"
    whole = entries.read_text()
    entries.write_text(whole.replace("doc-00003", "doc-00004"))
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 2, "refused", "was altered")
    entries.write_text(whole)
    declare(grace="2h")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 2, "refused", "is not what it was")
    declare()
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 2, "refused", "is applied")
    for name in ("../../etc", "20260101T000000Z-000000000000", "-rf"):
        assert program.answer("repair", "apply", "maestro", "--yes", "--", name).code == 2


def test_a_repair_needs_a_person(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    before = digests(application)
    hold_to(program.answer("repair", "apply", "maestro", plan["id"]), 2, "refused", "nobody is there to be asked")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--confirm", "maestro@elsewhere"), 2, "refused")
    assert digests(application) == before
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--confirm", f"maestro@{os.uname().nodename}"), 0, "ok")


def test_an_embedded_directory_in_use_is_refused_before_anything_is_removed(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    with chroma.running(application.vectors, 'collection("research_papers_dense"); say(1); time.sleep(600)') as process:
        assert process.stdout is not None
        process.stdout.readline()
        ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes")
    hold_to(ended, 2, "refused", "chunks can only be removed by who uses the directory")
    assert application.file("doc-00003", "raw_pdfs").exists()


def test_chunks_are_removed_through_the_running_server(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    before = digests(application)
    server = chroma.ServerRuntime(application.vectors)
    declared = json.loads(application.stack_file(brake=WIDE))
    declared["stores"]["vectors"]["url"] = server.url
    program.declare(json.dumps(declared), "maestro")
    server.start()
    try:
        plan = planned(program, "--at-once")
        hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
        assert program.answer("check", "maestro").code == 0
        hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    finally:
        server.stop()
    assert digests(application) == before


def test_rows_that_undeclared_rows_refer_to_are_not_removed(program: Program, application: Maestro, declare: Callable[..., None]) -> None:
    with database(application.metadata) as metadata:
        metadata.executescript(
            "create table cited (doc_id text references processed_documents (doc_id)); insert into cited values ('doc-00003')"
        )
    application.delete_row("doc-00003")
    plan = planned(program, "--at-once")
    ended = program.answer("repair", "apply", "maestro", plan["id"], "--yes")
    hold_to(ended, 2, "refused", "rows of cited refer to what would be removed")
    with database(application.metadata) as metadata:
        assert metadata.execute("select count(*) from processed_documents where doc_id = 'doc-00003'").fetchone() == (1,)
    declare(
        replicas=[
            {
                "store": "metadata",
                "rows": [
                    {"table": "processed_documents", "key": "doc_id"},
                    {"table": "cited", "key": "doc_id", "of": "processed_documents", "to": "doc_id"},
                ],
            }
        ]
    )
    before = digests(application)
    plan = planned(program, "--at-once")
    hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes"), 0, "ok")
    with database(application.metadata) as metadata:
        assert metadata.execute("select count(*) from cited").fetchone() == (0,)
    hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    assert digests(application) == before


def in_process(
    program: Program, monkeypatch: pytest.MonkeyPatch, plan: str, change: Callable[[Any], None], limit: int | None = None
) -> None:
    """Apply a plan in this process, with something of the program changed."""
    from storekeeper.consistency import repairing  # noqa: PLC0415
    from storekeeper.host.progress import Progress  # noqa: PLC0415
    from storekeeper.stack.config import load_places  # noqa: PLC0415
    from storekeeper.verbs import opening, repair  # noqa: PLC0415

    places = load_places(program.config)
    with monkeypatch.context(), opening.opened(places, opening.declared(places, "maestro"), Progress()) as context:
        change(repairing)
        repair.apply(context, plan, limit)

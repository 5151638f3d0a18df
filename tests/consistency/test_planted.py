"""Many planted faults of every class in every store, looked for while the application works, removed, and brought back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.consistency.test_check import ALL_PLACES, MARKDOWN, METADATA, RAW
from tests.consistency.test_ingestion import at_work
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.equal import digests
from tests.harness.maestro import CHUNKS, COLLECTIONS, DENSE, FOLDERS, SPARSE, Document, Maestro, database, documents
from tests.harness.program import Program, hold_to

Told = tuple[str, str, str]  # class, place, document
_ROWS = "metadata/processed_documents"
_FILES = dict(zip(FOLDERS, (RAW, MARKDOWN, METADATA), strict=True))
_DELETE = "for name in arguments['collections']: collection(name).delete(ids=arguments['ids'])"
_GIVE = """
for name in arguments["collections"]:
    collection(name).update(ids=arguments["ids"], metadatas=[{"user_id": 9}] * len(arguments["ids"]))
"""


def _chunks(ids: Sequence[str], numbers: Sequence[int] = range(CHUNKS)) -> list[str]:
    return [f"{document}_{number}" for document in ids for number in numbers]


def _everywhere(kind: str, ids: Sequence[str], places: Sequence[str] = ALL_PLACES) -> set[Told]:
    return {(kind, place, document) for place in places for document in ids}


def _no_rows(app: Maestro, ids: Sequence[str]) -> set[Told]:
    with database(app.main) as main:
        for table, column in (("document_group_association", "document_id"), ("documents", "id")):
            main.executemany(f"delete from {table} where {column} = ?", [(each,) for each in ids])
    return _everywhere("orphan", ids)


def _strangers(app: Maestro, ids: Sequence[str]) -> set[Told]:
    """A chunk, a row and a file that no document has."""
    found = set()
    app.add_chunks([Document(f"chunk-{each}") for each in ids], [DENSE])
    app.add_metadata([f"row-{each}" for each in ids])
    for each in ids:
        app.add_files(f"file-{each}", ["processed/markdown"])
        found |= {("orphan", f"vectors/{DENSE}", f"chunk-{each}"), ("orphan", _ROWS, f"row-{each}"), ("orphan", MARKDOWN, f"file-{each}")}
    return found


def _no_files(app: Maestro, ids: Sequence[str]) -> set[Told]:
    found = set()
    for number, each in enumerate(ids):
        folder = list(FOLDERS)[number % len(FOLDERS)]
        app.delete_file(each, folder)
        found.add(("missing", _FILES[folder], each))
    return found


def _no_metadata(app: Maestro, ids: Sequence[str]) -> set[Told]:
    with database(app.metadata) as metadata:
        metadata.executemany("delete from processed_documents where doc_id = ?", [(each,) for each in ids])
    return _everywhere("missing", ids, [_ROWS])


def _no_chunks(app: Maestro, ids: Sequence[str]) -> set[Told]:
    chroma.execute(app.vectors, _DELETE, collections=COLLECTIONS, ids=_chunks(ids))
    return _everywhere("missing", ids, [f"vectors/{each}" for each in COLLECTIONS])


def _half(app: Maestro, ids: Sequence[str]) -> set[Told]:
    chroma.execute(app.vectors, _DELETE, collections=[SPARSE], ids=_chunks(ids))
    return _everywhere("partial", ids, [f"vectors/{SPARSE}"])


def _one_chunk_less(app: Maestro, ids: Sequence[str]) -> set[Told]:
    chroma.execute(app.vectors, _DELETE, collections=[DENSE], ids=_chunks(ids, [1]))
    return _everywhere("partial", ids, [f"vectors/{DENSE}"])


def _given_away(app: Maestro, ids: Sequence[str]) -> set[Told]:
    chroma.execute(app.vectors, _GIVE, collections=[SPARSE], ids=_chunks(ids))
    return _everywhere("foreign", ids, [f"vectors/{SPARSE}"])


def _failed(app: Maestro, ids: Sequence[str]) -> set[Told]:
    with database(app.main) as main:
        main.executemany(
            "update documents set processing_status = 'failed', updated_at = '2026-01-01 00:00:00' where id = ?", [(each,) for each in ids]
        )
    return _everywhere("leftover", ids)


FAULTS: tuple[Callable[[Maestro, Sequence[str]], set[Told]], ...] = (
    _no_rows,
    _strangers,
    _no_files,
    _no_metadata,
    _no_chunks,
    _half,
    _one_chunk_less,
    _given_away,
    _failed,
)
_REMOVED = ("orphan", "leftover")


def planted(app: Maestro, count: int) -> set[Told]:
    """So many documents with a fault each, and what must be found of them: nothing else."""
    made = documents(count, "planted")
    app.add([Document(each.id, each.user, age=timedelta(days=2)) for each in made])
    found = set()
    for number, plant in enumerate(FAULTS):
        found |= plant(app, [each.id for each in made[number :: len(FAULTS)]])
    return found


def told(program: Program) -> set[Told]:
    ended = program.answer("check", "maestro")
    assert ended.code == 4, ended.err
    findings: list[dict[str, Any]] = ended.document["result"]["rules"]["documents"]["findings"]
    return {(each["class"], each["place"], each["document"]) for each in findings}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.fault("F5", "F9")
def test_all_that_is_planted_is_found_and_no_more_while_the_application_works_and_a_repair_is_undone_to_the_byte(
    program: Program, application: Maestro, campaign: Campaign
) -> None:
    count = campaign.trials(reduced=45, full=1000)
    expected = planted(application, count)
    with at_work(application) as writer:
        for _ in range(3):
            assert told(program) == expected
            writer.wait_for(1)
    plan = hold_to(program.answer("repair", "plan", "maestro", "--at-once"), 0, "ok")["result"]["plan"]
    before = digests(application)
    done = hold_to(program.answer("repair", "apply", "maestro", plan["id"], "--yes", "--limit", "100000"), 0, "ok")["result"]
    assert done["skipped"] == []
    # Nothing that was whole has lost anything: what is left to find is what no repair removes, and none of it is new.
    assert told(program) == {each for each in expected if each[0] not in _REMOVED}
    hold_to(program.answer("repair", "undo", "maestro", plan["id"], "--yes"), 0, "ok")
    assert digests(application) == before
    assert told(program) == expected
    campaign.found(
        count, "planted faults of every class and store", f"{len(expected):,} findings, all of them and no other; 0 wrong deletions"
    )

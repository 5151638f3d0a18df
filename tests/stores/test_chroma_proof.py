"""A proof asks Chroma for every document and compares: whatever Chroma answers otherwise than the set holds is found and named."""

from __future__ import annotations

import base64
import copy as copying
import shutil
import sqlite3
import sys
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores.chroma import catalogue, checking, comparison, index, layout, proof
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.dumping import CONTENT
from storekeeper.stores.chroma.rows import CollectionRows
from tests.harness.chroma import Keeper, execute
from tests.harness.chroma_files import TWO, enqueue, made_once, migrate_ahead, segment_of, writable
from tests.harness.damage import flip

Kept = tuple[Path, dict[str, int]]
Answers = dict[str, list[dict[str, Any]]]
IN_FILES, IN_QUEUE = "chunk-0000007", "late"  # two documents of `notes`, of which there are 701


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A set of a directory in whose queue one document waits."""
    room = tmp_path_factory.mktemp("kept")
    live = Path(shutil.copytree(made_once(tmp_path_factory, "two", TWO), room / "live"))
    enqueue(live, "notes", [(0, IN_QUEUE, {"n": 1})])
    keeper = Keeper(live, room / "room")
    folder, record, _ = keeper.backup()
    keeper.verify(folder, record)
    return folder, dict(record.counts)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "proof").mkdir()
    return tmp_path / "proof"


# --- Document by document --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What Chroma really answered to the questions of a proof, by collection."""
    recorded: Answers = {}
    compare = comparison.compare

    def recording(collection: catalogue.Collection, rows: CollectionRows, counted: int, ask: comparison.Ask) -> None:
        def asking(question: dict[str, Any]) -> dict[str, Any]:
            answer = ask(question)
            recorded.setdefault(collection.key, []).append(copying.deepcopy(answer))
            return answer

        compare(collection, rows, counted, asking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "compare", recording)
        proof.prove(kept[0] / CONTENT, tmp_path_factory.mktemp("answers"), None)
    return recorded


def _compare(kept: Kept, answers: Answers, change: Callable[[dict[str, list[Any]]], object], more: int = 0) -> None:
    """Compare `notes` with recorded answers, after `change` has been at them; it is given them by id."""

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        found = {row[0]: list(row) for row in copying.deepcopy(answers["notes"][0]["rows"]) if row[0] in question["ids"]}
        change(found)
        return {"rows": list(found.values())}

    with catalogue.open_catalogue(kept[0] / CONTENT, sealed=True) as found:
        notes = next(each for each in found.collections() if each.key == "notes")
        with CollectionRows(found, notes) as rows:
            comparison.compare(notes, rows, kept[1]["notes"] + more, ask)


def _scale(row: list[Any], factor: float) -> None:
    """The first number of a row's vector, a little larger."""
    vector = array("f", base64.b64decode(row[4]))
    vector[0] *= factor
    row[4] = base64.b64encode(vector.tobytes()).decode()


def test_the_answers_that_chroma_gave_are_those_of_the_set(kept: Kept, answers: Answers) -> None:
    _compare(kept, answers, lambda _: None)  # the control of all that follows
    with catalogue.open_catalogue(kept[0] / CONTENT, sealed=True) as found:
        notes = next(each for each in found.collections() if each.key == "notes")
        with CollectionRows(found, notes) as rows:
            assert {row.id: row.pending for row in rows if row.id in (IN_FILES, IN_QUEUE)} == {IN_FILES: False, IN_QUEUE: True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[IN_FILES].__setitem__(1, "another"), "another text"),
        (lambda rows: rows[IN_FILES].__setitem__(1, None), "another text"),
        (lambda rows: rows[IN_FILES].__setitem__(2, "file:///elsewhere"), "another URI"),
        (lambda rows: rows[IN_FILES][3].update(page=float(rows[IN_FILES][3]["page"])), "another metadata"),
        (lambda rows: rows[IN_FILES][3].update(page=str(rows[IN_FILES][3]["page"])), "another metadata"),
        (lambda rows: rows[IN_FILES][3].update(more=1), "another metadata"),
        (lambda rows: rows[IN_FILES][3].pop("page"), "another metadata"),
        (lambda rows: rows[IN_FILES].__setitem__(3, None), "another metadata"),
        (lambda rows: _scale(rows[IN_FILES], 1 + 2e-7), "another vector"),
        (lambda rows: _scale(rows[IN_QUEUE], 1.01), "another vector"),
        (lambda rows: _scale(rows[IN_QUEUE], float("nan")), "not finite"),
        (lambda rows: _scale(rows[IN_FILES], float("inf")), "not finite"),
        (lambda rows: rows[IN_FILES].__setitem__(4, rows[IN_FILES][4][:16]), "another vector"),
        (lambda rows: rows[IN_QUEUE].__setitem__(4, rows[IN_QUEUE][4][:16]), "another vector"),
        (lambda rows: rows[IN_FILES].__setitem__(4, rows[IN_QUEUE][4]), "another vector"),
        (lambda rows: rows.pop(IN_FILES), "Chroma does not answer document"),
    ],
)
def test_each_thing_that_chroma_may_answer_otherwise_is_found_and_its_document_named(
    change: Callable[[dict[str, list[Any]]], object], said: str, kept: Kept, answers: Answers
) -> None:
    with pytest.raises(Failed, match=f"collection notes: .*{said}") as raised:
        _compare(kept, answers, change)
    assert IN_FILES in raised.value.message or IN_QUEUE in raised.value.message


def test_a_document_more_in_chroma_is_found_by_its_count(kept: Kept, answers: Answers) -> None:
    for more in (-1, 1):
        with pytest.raises(Failed, match=f"collection notes: Chroma counts {701 + more} documents, the set holds 701"):
            _compare(kept, answers, lambda _: None, more)


def test_a_vector_of_the_queue_may_come_back_rounded_by_its_way_through_a_cosine_index(kept: Kept, answers: Answers) -> None:
    _compare(kept, answers, lambda rows: _scale(rows[IN_QUEUE], 1 + 1e-6))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "update embedding_metadata set string_value = 'another' where key = 'chroma:document' and string_value = 'text of chunk 77'",
            r"document 'chunk-0000077' has another text",
        ),
        ("update collections set name = 'renamed' where name = 'empty'", r"collection .*(renamed is not in the set|empty is in the set)"),
    ],
)
def test_a_chroma_that_reads_something_else_than_the_set_holds_fails_the_proof(
    statement: str, said: str, kept: Kept, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_directory = proof.copy_directory

    def tampering(source: Path, target: Path) -> None:
        copy_directory(source, target)
        with closing(sqlite3.connect(target / layout.DATABASE)) as database, database:
            assert database.execute(statement).rowcount >= 1

    monkeypatch.setattr(proof, "copy_directory", tampering)
    with pytest.raises(Failed, match=said):
        proof.prove(kept[0] / CONTENT, scratch, None)


def test_a_vector_of_another_dimension_in_the_queue_fails_the_proof(kept: Kept, tmp_path: Path, scratch: Path) -> None:
    copy = writable(kept[0], tmp_path / "set") / CONTENT
    enqueue(copy, "papers", [(0, "short", {})])
    with closing(sqlite3.connect(copy / layout.DATABASE)) as database, database:
        database.execute("update embeddings_queue set vector = substr(vector, 1, 60) where id = 'short'")
    with pytest.raises(Failed, match=r"'short' has a vector of 15 numbers, 16 are declared|Chroma cannot read"):
        proof.prove(copy, scratch, None)


def test_the_digest_is_that_of_the_copy_before_chroma_opened_it(kept: Kept, scratch: Path) -> None:
    found = proof.prove(kept[0] / CONTENT, scratch, None)
    assert found == content_of(kept[0] / CONTENT)
    assert found.counts == kept[1]
    assert content_of(scratch / "directory").digests != found.digests  # control: opening it changes it


def test_prove_finds_a_bit_flipped_in_a_vector_that_chroma_does_not_notice(kept: Kept, tmp_path: Path, scratch: Path) -> None:
    copy = writable(kept[0], tmp_path / "set")
    segment = segment_of(copy / CONTENT, "papers")
    header = index.read_header(segment)
    flip(segment / layout.VECTORS, 100 * header.element_bytes + header.data_offset)
    expected = checking.check(copy / CONTENT)  # sizes are right: sha256 or a proof finds it
    found = proof.prove(copy / CONTENT, scratch, None)
    assert found.counts == expected
    assert found.digests != content_of(kept[0] / CONTENT).digests


# --- What cannot be proven -------------------------------------------------------------------------------------------


def test_an_interpreter_without_chromadb_is_unknown_and_says_what_to_declare(kept: Kept, scratch: Path) -> None:
    with pytest.raises(Unknown) as raised:
        proof.prove(kept[0] / CONTENT, scratch, Path("/usr/bin/python3"))
    assert raised.value.next is not None
    assert "python:" in raised.value.next


def test_a_missing_interpreter_is_unknown(kept: Kept, scratch: Path) -> None:
    with pytest.raises(Unknown, match="could not be started"):
        proof.prove(kept[0] / CONTENT, scratch, scratch / "nosuch")


@pytest.mark.parametrize(
    ("words", "said"), [("exit 7", "ended with 7"), ("kill -SEGV $$", "killed by signal 11"), ("exec sleep 600", "did not answer")]
)
def test_a_reader_that_crashes_or_hangs_is_a_failure(words: str, said: str, kept: Kept, scratch: Path) -> None:
    program = scratch / "python"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)
    with pytest.raises(Failed, match=said):
        proof.prove(kept[0] / CONTENT, scratch, program, patience_s=0.5)


def test_a_set_from_a_newer_chroma_is_not_proven_by_an_older_one(kept: Kept, tmp_path: Path, scratch: Path) -> None:
    copy = writable(kept[0], tmp_path / "set") / CONTENT
    migrate_ahead(copy)
    with pytest.raises(Unknown, match=r"sysdb 11.*knows.*sysdb 10"):
        proof.prove(copy, scratch, Path(sys.executable))
    assert execute(copy, "say(len(client.list_collections()))") == [3]  # control: it opens silently

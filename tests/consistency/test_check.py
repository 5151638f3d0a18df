"""check on a real application: each kind of disagreement is planted, found, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness.maestro import COLLECTIONS, DENSE, SPARSE, Document, Maestro, database
from tests.harness.program import Ended, Program, hold_to

RAW, MARKDOWN, METADATA = ("papers/raw_pdfs/{id}_*", "papers/processed/markdown/{id}.md", "papers/processed/metadata/{id}.json")
ALL_PLACES = ("metadata/processed_documents", *(f"vectors/{each}" for each in COLLECTIONS), RAW, MARKDOWN, METADATA)


def found(ended: Ended) -> list[tuple[str, str, str]]:
    """Class, place and document of every finding."""
    rule = ended.document["result"]["rules"]["documents"]
    return sorted((each["class"], each["place"], each["document"]) for each in rule["findings"])


def everywhere(kind: str, document: str) -> list[tuple[str, str, str]]:
    return sorted((kind, place, document) for place in ALL_PLACES)


def test_an_application_whose_stores_agree_has_no_finding_and_documents_in_flight_are_none(program: Program) -> None:
    ended = program.answer("check", "maestro")
    document = hold_to(ended, 0, "ok")
    rule = document["result"]["rules"]["documents"]
    assert (rule["documents"], rule["counts"]["in_flight"], rule["findings"]) == (32, 2, [])


PLANTED: dict[str, tuple[Callable[[Maestro], None], list[tuple[str, str, str]]]] = {
    "a row is gone": (lambda app: app.delete_row("doc-00003"), everywhere("orphan", "doc-00003")),
    "chunks that nobody has a row for": (
        lambda app: app.add_chunks([Document("stranger")], [DENSE]),
        [("orphan", f"vectors/{DENSE}", "stranger")],
    ),
    "a file is gone": (lambda app: app.delete_file("doc-00004", "processed/markdown"), [("missing", MARKDOWN, "doc-00004")]),
    "a row of a replica is gone": (
        lambda app: app.delete_metadata("doc-00005"),
        [("missing", "metadata/processed_documents", "doc-00005")],
    ),
    "all chunks are gone": (
        lambda app: app.delete_chunks("doc-00006"),
        [("missing", f"vectors/{each}", "doc-00006") for each in COLLECTIONS],
    ),
    "one collection of two has nothing": (
        lambda app: app.delete_chunks("doc-00007", [SPARSE]),
        [("partial", f"vectors/{SPARSE}", "doc-00007")],
    ),
    "a chunk is gone": (
        lambda app: app.delete_chunks("doc-00008", [DENSE], [1]),
        [("partial", f"vectors/{DENSE}", "doc-00008")],
    ),
    "chunks stand under another owner": (
        lambda app: app.give_chunks_to("3", "doc-00009", [DENSE]),
        [("foreign", f"vectors/{DENSE}", "doc-00009")],
    ),
    "a document that failed long ago left things": (
        lambda app: app.add([Document("broken", state="failed", age=timedelta(days=3))]),
        everywhere("leftover", "broken"),
    ),
    "one that failed an hour ago may still be looked into": (
        lambda app: app.add([Document("young", state="failed", age=timedelta(hours=1))]),
        [],
    ),
    "one in flight that has nothing yet": (lambda app: app.insert_rows([Document("begun", state="pending")]), []),
    "one in flight that has a part": (
        lambda app: (app.insert_rows([Document("half", state="processing")]), app.add_metadata(["half"]))[0],
        [],
    ),
}


HELD = {
    "one collection of two has nothing": pytest.mark.fault("F11"),
    "a chunk is gone": pytest.mark.fault("F12"),
    "a document that failed long ago left things": pytest.mark.fault("F6"),
    "one that failed an hour ago may still be looked into": pytest.mark.fault("F6"),
    "one in flight that has nothing yet": pytest.mark.fault("F5"),
    "one in flight that has a part": pytest.mark.fault("F5"),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=[HELD[case]] if case in HELD else []) for case in PLANTED])
def test_what_is_planted_is_found_and_nothing_else(program: Program, application: Maestro, case: str) -> None:
    plant, expected = PLANTED[case]
    plant(application)
    ended = program.answer("check", "maestro")
    assert found(ended) == sorted(expected)
    assert ended.code == (4 if expected else 0), ended.err


@pytest.mark.control("F5", "F6")
@pytest.mark.parametrize("case", ["one in flight that has a part", "one that failed an hour ago may still be looked into"])
def test_control_without_states_and_grace_they_would_be_found(
    program: Program, application: Maestro, declare: Callable[..., None], case: str
) -> None:
    PLANTED[case][0](application)
    declare(states={"complete": ["completed", "processing", "queued"], "failed": ["failed"]}, grace="1m")
    assert len(found(program.answer("check", "maestro"))) >= 5  # one for each place


@pytest.mark.control("F11")
def test_control_with_one_collection_declared_the_other_is_not_missed(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    application.delete_chunks("doc-00007", [SPARSE])
    declare(replicas=[{"store": "vectors", "collections": [DENSE], "key": "doc_id"}])
    assert program.answer("check", "maestro").code == 0


@pytest.mark.control("F12")
def test_control_without_the_number_in_the_record_a_chunk_is_not_missed(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    application.delete_chunks("doc-00008", [DENSE], [1])
    declare(authority={"store": "main", "query": "select id, user_id, processing_status, updated_at from documents"})
    assert program.answer("check", "maestro").code == 0


@pytest.mark.control("F4")
def test_control_an_authority_of_one_owner_only_makes_orphans_of_the_others(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    declare(authority={"store": "main", "query": "select id, user_id, processing_status, updated_at from documents where user_id = 2"})
    assert len(found(program.answer("check", "maestro"))) == 21 * len(ALL_PLACES)


@pytest.mark.fault("F4")
def test_one_owner_is_told_of_while_all_are_read(program: Program, application: Maestro) -> None:
    application.delete_file("doc-00001", "processed/markdown")  # of user 2
    application.delete_file("doc-00002", "processed/markdown")  # of user 3
    document = hold_to(program.answer("check", "maestro", "--owner", "2"), 4, "warning")
    told = document["result"]["rules"]["documents"]
    assert [(each["document"], each["owner"]) for each in told["findings"]] == [("doc-00001", "2")]
    assert told["counts"]["orphan"] == 0  # the others' documents are read, and are no orphans
    assert found(program.answer("check", "maestro", "--document", "doc-00002")) == [("missing", MARKDOWN, "doc-00002")]
    assert program.answer("check", "maestro", "--document", "doc-00000").code == 0


def test_what_a_rule_looks_at_is_counted(program: Program) -> None:
    document = hold_to(program.answer("check", "maestro", "--stats"), 0, "ok")
    stats = document["result"]["rules"]["documents"]["stats"]
    assert stats["owners"] == 3
    assert stats["states"] == {"completed": 30, "processing": 1, "queued": 1}
    assert stats["places"][f"vectors/{DENSE}"] == {"documents": 32, "chunks": 96}
    assert stats["places"][MARKDOWN] == {"documents": 32, "chunks": None}
    assert document["result"]["stores"]["main"]["counts"]["users"] == 3
    assert document["result"]["stores"]["papers"]["counts"]["files"] == 96


def test_findings_come_as_lines_on_request(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    ended = program.run("check", "maestro", "--lines")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 4
    assert sorted((each["class"], each["place"], each["document"]) for each in lines) == everywhere("orphan", "doc-00003")
    assert {each["rule"] for each in lines} == {"documents"}
    assert program.run("check", "maestro", "--lines", "--json").code == 2


def test_the_text_says_what_disagrees_and_since_when(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    ended = program.run("check", "maestro", "--stats")
    assert "6 orphan" in ended.out
    assert "doc-00003" in ended.out
    assert "3 owners" in ended.out


class Broken:
    """Ways in which a store cannot be read. Each returns the store's name."""

    @staticmethod
    def authority_is_gone(app: Maestro) -> str:
        app.main.unlink()
        return "main"

    @staticmethod
    def authority_has_no_table(app: Maestro) -> str:
        with database(app.main) as main:
            main.execute("drop table documents")
        return "main"

    @staticmethod
    def replica_is_no_database(app: Maestro) -> str:
        app.metadata.write_bytes(b"no database" * 100)
        return "metadata"

    @staticmethod
    def chroma_is_gone(app: Maestro) -> str:
        shutil.rmtree(app.vectors)
        return "vectors"

    @staticmethod
    def a_collection_is_gone(app: Maestro) -> str:
        from tests.harness import chroma  # noqa: PLC0415

        chroma.execute(app.vectors, "client.delete_collection(arguments['name'])", name=SPARSE)
        return "vectors"

    @staticmethod
    def files_are_gone(app: Maestro) -> str:
        app.papers.rename(app.papers.with_name("elsewhere"))
        (app.papers / "processed").mkdir(parents=True)
        shutil.copytree(app.papers.with_name("elsewhere") / "vector_store", app.vectors)
        shutil.copy(app.papers.with_name("elsewhere") / "processed/metadata.db", app.metadata)
        (app.papers / "raw_pdfs").symlink_to("/nonexistent")
        return "papers"


def broken() -> Iterator[Any]:
    for name in vars(Broken):
        if not name.startswith("_"):
            yield pytest.param(getattr(Broken, name), id=name.replace("_", " "))


@pytest.mark.fault("F1")
@pytest.mark.parametrize("break_it", list(broken()))
def test_a_store_that_cannot_be_read_is_unknown_and_never_empty(
    program: Program, application: Maestro, break_it: Callable[[Maestro], str]
) -> None:
    store = break_it(application)
    ended = program.answer("check", "maestro")
    document = hold_to(ended, 3, "unknown", "nothing is known of it")
    rule = document["result"]["rules"]["documents"]
    assert rule["unread"]
    assert all(place.startswith(f"{store}/") for place in rule["unread"])
    assert all(each["place"] not in rule["unread"] for each in rule["findings"])
    assert "orphan" not in {each["class"] for each in rule["findings"]}
    if store == "main":
        assert rule["findings"] == []


@pytest.mark.control("F1")
def test_control_an_authority_read_as_empty_would_make_orphans_of_everything(program: Program, application: Maestro) -> None:
    with database(application.main) as main:
        main.executescript("delete from document_group_association; delete from documents")
    assert len(found(program.answer("check", "maestro"))) == 32 * len(ALL_PLACES)


def test_a_finding_keeps_the_time_at_which_it_was_first_seen_until_a_look_misses_it(program: Program, application: Maestro) -> None:
    application.delete_file("doc-00004", "processed/markdown")

    def since() -> str:
        (finding,) = program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"]
        return str(finding["since"])

    first = since()
    assert since() == first
    application.add_files("doc-00004", ["processed/markdown"])
    assert program.answer("check", "maestro").code == 0
    application.delete_file("doc-00004", "processed/markdown")
    assert since() > first


def test_a_look_at_one_document_forgets_nothing_of_the_others(program: Program, application: Maestro) -> None:
    application.delete_file("doc-00004", "processed/markdown")
    first = program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"]
    program.answer("check", "maestro", "--document", "doc-00001")
    assert program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"] == first


def test_what_was_found_in_a_place_stands_while_it_cannot_be_read(program: Program, application: Maestro) -> None:
    application.delete_metadata("doc-00005")
    (first,) = program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"]
    aside = application.metadata.with_suffix(".aside")
    application.metadata.rename(aside)
    assert program.answer("check", "maestro").code == 3
    aside.rename(application.metadata)
    assert program.answer("check", "maestro").document["result"]["rules"]["documents"]["findings"] == [first]


def test_the_log_has_a_line_for_what_is_new_and_what_is_gone_and_one_for_each_look(program: Program, application: Maestro) -> None:
    log = program.state / "maestro/findings.log"
    application.delete_file("doc-00004", "processed/markdown")
    program.answer("check", "maestro")
    program.answer("check", "maestro")
    application.add_files("doc-00004", ["processed/markdown"])
    program.answer("check", "maestro")
    lines = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert lines == [
        f'new missing "{MARKDOWN}" document="doc-00004" owner="2": nothing there',
        "look warning: 32 documents, 2 in flight; 1 missing",
        "look warning: 32 documents, 2 in flight; 1 missing",
        f'gone missing "{MARKDOWN}" document="doc-00004" owner="2": nothing there',
        "look ok: 32 documents, 2 in flight; agreement",
    ]
    assert log.stat().st_mode & 0o777 == 0o600


def test_status_tells_of_the_last_look(program: Program, application: Maestro) -> None:
    def told() -> Any:
        return program.answer("status", "maestro").document["result"]["stacks"]["maestro"]

    never = told()
    assert never["agreement"] == {"documents": None}
    assert never["findings"] is None
    assert any("never looked at" in alert["message"] for alert in never["alerts"])
    application.delete_row("doc-00003")
    program.answer("check", "maestro")
    after = told()
    assert after["findings"] == {"orphan": 6}
    assert after["agreement"]["documents"]["counts"] == {"orphan": {"metadata": 1, "vectors": 2, "papers": 3}}
    assert any("6 orphan in metadata, papers, vectors" in alert["message"] for alert in after["alerts"])
    shutil.rmtree(application.vectors)
    program.answer("check", "maestro")
    assert told()["findings"] is None  # unknown is not none
    assert program.answer("status", "maestro").code == 3


def test_a_stack_without_rules_and_a_rule_that_there_is_not_are_refused(program: Program) -> None:
    program.declare_small()
    hold_to(program.answer("check", "demo"), 2, "refused", "declares no rule")
    hold_to(program.answer("check", "maestro", "--rule", "document"), 2, "refused", "there is no rule 'document'", "documents")


def test_a_state_that_the_rule_does_not_name_counts_as_in_flight_and_is_said(program: Program, application: Maestro) -> None:
    application.add([Document("odd", state="archived")])
    document = hold_to(program.answer("check", "maestro"), 4, "warning", "states that the rule does not name ('archived')")
    assert document["result"]["rules"]["documents"]["counts"]["in_flight"] == 3


@pytest.mark.fault("F10")
def test_an_id_that_a_pattern_would_cut_short_is_unknown_and_no_orphan(program: Program, application: Maestro) -> None:
    """`raw_pdfs/{id}_*` cannot say whose `two_words_paper.pdf` is: of the document `two`, or of `two_words`."""
    application.add([Document("two_words")])
    document = hold_to(program.answer("check", "maestro"), 3, "unknown", "which ends an id in papers/raw_pdfs/{id}_*")
    assert document["result"]["rules"]["documents"]["findings"] == []


@pytest.mark.control("F10")
def test_control_without_that_the_file_would_be_taken_for_another_documents(program: Program, application: Maestro) -> None:
    """What the pattern makes of it by itself, for a document of whose kind the authority has none."""
    application.add_files("two_words", ["raw_pdfs"])
    assert found(program.answer("check", "maestro")) == [("orphan", RAW, "two")]


@pytest.mark.fault("F10")
def test_ids_are_compared_as_they_are_written(program: Program, application: Maestro, declare: Callable[..., None]) -> None:
    declare(replicas=[{"store": "metadata", "rows": [{"table": "processed_documents", "key": "doc_id"}]}])
    names = ["o'brien", 'say "hi"', "\U0001f9ea emoji", "ABC", "abc", "1", "01", " 1", "a\nb", "%s", "x" * 10_000, "é", "e\u0301"]
    application.insert_rows([Document(name) for name in names])
    application.add_metadata(names[1:])
    ended = program.answer("check", "maestro")
    assert found(ended) == [("missing", "metadata/processed_documents", "o'brien")]


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    "query",
    [
        "with gone as (select 1) delete from documents returning id",
        "select id, writefile('/tmp/x', 'y') from documents",
        "select load_extension('x')",
        "select id, user_id, processing_status, updated_at, title, chunk_count from documents",
        "select nothing from documents",
    ],
)
def test_a_query_that_does_more_than_read_or_does_not_run_is_said_and_changes_nothing(
    program: Program, application: Maestro, declare: Callable[..., None], query: str
) -> None:
    declare(authority={"store": "main", "query": query}, states={"complete": ["completed"]})
    document = hold_to(program.answer("check", "maestro"), 3, "unknown", "the query")
    assert document["result"]["rules"]["documents"]["findings"] == []
    with database(application.main) as main:
        assert main.execute("select count(*) from documents").fetchone() == (32,)


def test_an_authority_that_is_named_by_its_rows_says_nothing_of_chunks(program: Program, application: Maestro) -> None:
    application.delete_row("at-work")
    application.delete_row("waits")
    declared = json.loads(application.stack_file())
    rule = declared["consistency"]["documents"]
    del rule["states"]
    rule["authority"] = {"store": "main", "rows": [{"table": "documents", "key": "id"}]}
    program.declare(json.dumps(declared), "maestro")
    found = program.answer("check", "maestro").document["result"]["rules"]["documents"]
    assert {kind: count for kind, count in found["counts"].items() if count} == {"orphan": 12}


@pytest.mark.fault("F1")
def test_a_column_that_is_gone_is_unknown_and_no_document_of_that_name(program: Program, application: Maestro) -> None:
    with database(application.metadata) as metadata:
        metadata.execute("alter table processed_documents rename column doc_id to other")
    document = hold_to(program.answer("check", "maestro"), 3, "unknown", "no such column")
    found = document["result"]["rules"]["documents"]["findings"]
    assert [each for each in found if each["store"] == "metadata"] == []
    hold_to(program.answer("repair", "plan", "maestro", "--document", "doc_id", "--at-once"), 3, "unknown", "no such column")


@pytest.mark.control("F1")
def test_control_to_sqlite_a_quoted_name_that_is_no_column_is_a_text(application: Maestro) -> None:
    with database(application.metadata) as metadata:
        metadata.execute("alter table processed_documents rename column doc_id to other")
        assert metadata.execute('select distinct "doc_id" from processed_documents').fetchall() == [("doc_id",)]


@pytest.mark.control("H10")
def test_control_on_an_ordinary_connection_that_query_does_delete(application: Maestro) -> None:
    with database(application.main) as main:
        main.execute("delete from document_group_association")
        main.execute("delete from documents returning id").fetchall()
    with database(application.main) as main:
        assert main.execute("select count(*) from documents").fetchone() == (0,)


def test_a_damaged_record_of_looks_is_a_sentence(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    program.answer("check", "maestro")
    look = program.state / "maestro/looks/documents.jsonl"
    look.write_text(look.read_text()[:-20])
    hold_to(program.answer("check", "maestro"), 1, "failed", "since when anything disagrees is not known", "rm ")


def test_chunks_that_are_still_in_the_queue_count(program: Program, application: Maestro) -> None:
    """The newest documents are in Chroma's queue only: read without it, they would look missing."""
    application.add([Document("newest")])
    assert program.answer("check", "maestro").code == 0


def test_a_check_leaves_nothing_in_the_scratch_directory(program: Program) -> None:
    before = sorted(path.name for path in Path(program.root).iterdir())
    program.answer("check", "maestro")
    assert sorted(path.name for path in Path(program.root).iterdir()) in (before, sorted([*before, "state"]))

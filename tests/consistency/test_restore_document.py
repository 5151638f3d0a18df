"""restore --document on a real application: one document comes back out of a set, nothing else is touched, and it can be taken back."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from tests.consistency.test_repair import wait_for_children
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.damage import flip
from tests.harness.equal import digests, files, rows
from tests.harness.maestro import DENSE, FOLDERS, Maestro, database
from tests.harness.program import Program, hold_to

ONE = "doc-00003"  # of user 1
RESTORE = ("restore", "maestro", "latest", "--document", ONE)


@pytest.fixture
def backed_up(program: Program, application: Maestro) -> dict[str, Any]:
    """A set of the application as it is; returns the digests of that moment."""
    application.file(ONE, "raw_pdfs").chmod(0o640)
    os.utime(application.file(ONE, "raw_pdfs"), ns=(10**18, 10**18))
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    return digests(application)


def lose(application: Maestro, document: str = ONE) -> None:
    """All of a document, in every store."""
    application.delete_row(document)
    application.delete_metadata(document)
    application.delete_chunks(document)
    for folder in FOLDERS:
        application.delete_file(document, folder)


def change(application: Maestro) -> None:
    """Something of the document in every store, and something of another one."""
    with database(application.main) as main:
        main.execute("update documents set title = 'spoilt', processing_status = 'failed' where id = ?", (ONE,))
        main.execute("insert into document_group_association values (?, 2)", (ONE,))
        main.execute("update documents set title = 'written since' where id = 'doc-00007'")
    with database(application.metadata) as metadata:
        metadata.execute("update processed_documents set title = 'spoilt' where doc_id = ?", (ONE,))
    application.delete_chunks(ONE, [DENSE], [1])
    application.give_chunks_to("3", ONE, [DENSE])
    application.file(ONE, "raw_pdfs").write_text("spoilt")
    application.delete_file(ONE, "processed/markdown")
    application.file("doc-00008", "raw_pdfs").write_text("written since")


def places(document: dict[str, Any]) -> dict[str, str]:
    return {each["place"]: each["change"] for each in document["places"]}


def test_a_document_that_is_gone_comes_back_whole_and_can_be_taken_away_again(
    program: Program, application: Maestro, backed_up: dict[str, Any]
) -> None:
    lose(application)
    gone = digests(application)
    result = hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")["result"]
    assert set(places(result).values()) == {"put back"}
    assert {each["place"]: each["after"] for each in result["places"]} == {
        "main/documents": 2,
        "metadata/processed_documents": 1,
        "vectors/research_papers_dense": 3,
        "vectors/research_papers_sparse": 3,
        "papers/raw_pdfs/{id}_*": 1,
        "papers/processed/markdown/{id}.md": 1,
        "papers/processed/metadata/{id}.json": 1,
    }
    assert digests(application) == backed_up  # also of every other document, with modes, owners and times
    assert program.answer("check", "maestro").code == 0
    assert list(application.papers.glob(".storekeeper-*")) == []
    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert digests(application) == gone


def test_a_document_that_is_live_and_different_is_shown_replaced_and_brought_back(
    program: Program, application: Maestro, backed_up: dict[str, Any]
) -> None:
    change(application)
    before = digests(application)
    bytes_before = application.vectors.joinpath("chroma.sqlite3").read_bytes()
    plan = hold_to(program.answer(*RESTORE, "--plan"), 0, "ok")["result"]["plan"]
    assert places(plan) == {
        "main/documents": "replaced",
        "metadata/processed_documents": "replaced",
        "vectors/research_papers_dense": "replaced",
        "vectors/research_papers_sparse": "same",
        "papers/raw_pdfs/{id}_*": "replaced",
        "papers/processed/markdown/{id}.md": "put back",
        "papers/processed/metadata/{id}.json": "same",
    }
    told = {each["place"]: each["differs"] for each in plan["places"]}
    assert told["main/documents"] == [
        "documents: another processing_status, title",
        "document_group_association: not in the set",
    ]
    assert "spoilt" not in str(told)
    assert application.vectors.joinpath("chroma.sqlite3").read_bytes() == bytes_before  # a plan opens nothing for changes
    assert digests(application) == before

    result = hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")["result"]
    with database(application.main) as main:
        assert main.execute("select title, processing_status from documents where id = ?", (ONE,)).fetchall() == [
            (f"title of {ONE}", "completed")
        ]
        assert main.execute("select count(*) from document_group_association where document_id = ?", (ONE,)).fetchone() == (1,)
        assert main.execute("select title from documents where id = 'doc-00007'").fetchone() == ("written since",)
    assert application.file(ONE, "raw_pdfs").stat().st_mode & 0o777 == 0o640
    after = digests(application)
    assert (after["vectors"], after["metadata"]) == (backed_up["vectors"], backed_up["metadata"])
    again = hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")
    assert set(places(again["result"]).values()) == {"same"}
    assert again["result"]["back"] is None

    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert digests(application) == before
    assert list(application.papers.glob(".storekeeper-*")) == []


def test_what_is_gone_around_the_files_is_made_as_it_was_and_goes_again(
    program: Program, application: Maestro, backed_up: dict[str, Any]
) -> None:
    folder = application.papers / "processed/markdown"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    result = hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")["result"]
    assert [path.name for path in folder.iterdir()] == [f"{ONE}.md"]
    assert folder.stat().st_mode & 0o777 == (application.papers / "raw_pdfs").stat().st_mode & 0o777
    hold_to(program.run(*result["back"].split()[1:], "--yes", "--json"), 0, "ok")
    assert not folder.exists()


def test_a_document_comes_back_through_the_running_server(program: Program, application: Maestro, backed_up: dict[str, Any]) -> None:
    import json  # noqa: PLC0415

    lose(application)
    server = chroma.ServerRuntime(application.vectors)
    declared = json.loads(application.stack_file())
    declared["stores"]["vectors"]["url"] = server.url
    program.declare(json.dumps(declared), "maestro")
    server.start()
    try:
        hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")
    finally:
        server.stop()
    assert digests(application) == backed_up


def refused(program: Program, application: Maestro, *said: str, code: int = 2, words: tuple[str, ...] = (*RESTORE, "--yes")) -> None:
    """Nothing is changed, and a sentence says why."""
    before = digests(application)
    hold_to(program.answer(*words), code, {2: "refused", 3: "unknown"}[code], *said)
    assert digests(application) == before
    assert list(application.papers.glob(".storekeeper-*")) == []
    assert list(program.root.glob("storekeeper-*")) == []


@pytest.mark.usefixtures("backed_up")
def test_what_cannot_be_brought_back_is_refused_with_a_sentence(
    program: Program, application: Maestro, declare: Callable[..., None]
) -> None:
    lose(application)
    refused(program, application, "holds no document 'nosuch'", words=("restore", "maestro", "latest", "--document", "nosuch", "--yes"))
    refused(program, application, "nobody is there to be asked", words=RESTORE)
    refused(program, application, "there is no rule 'nosuch'", words=(*RESTORE, "--rule", "nosuch", "--yes"))
    refused(program, application, "has no meaning for one document", words=(*RESTORE, "--only", "main", "--yes"))
    refused(program, application, "--rule is said with --document", words=("restore", "maestro", "latest", "--rule", "documents", "--yes"))
    declare(replicas=[{"store": "metadata", "query": "select doc_id from processed_documents"}])
    refused(program, application, "does not say which rows of metadata/query are a document's")


@pytest.mark.usefixtures("backed_up")
def test_a_row_whose_parent_is_gone_is_refused_and_the_parent_is_named(program: Program, application: Maestro) -> None:
    lose(application)
    with database(application.main) as main:
        main.execute("delete from documents where user_id = 1")
        main.execute("delete from document_group_association where document_id not in (select id from documents)")
        main.execute("delete from users where id = 1")
    refused(program, application, "a row of documents needs the row of users with id 1, which is not there", words=(*RESTORE, "--plan"))
    refused(program, application, "a row of documents needs the row of users with id 1, which is not there")


@pytest.mark.usefixtures("backed_up")
def test_control_without_that_guard_a_row_without_its_parent_would_be_live(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import Counter  # noqa: PLC0415

    from storekeeper.stores.sqlite import mending  # noqa: PLC0415

    lose(application)
    with database(application.main) as main:
        main.execute("delete from users where id = 1")
    monkeypatch.setattr(mending.SqliteGrip, "_dangling", lambda _: Counter())
    in_process(program)
    with database(application.main) as main:
        assert any(parent == "users" for _, _, parent, _ in main.execute("pragma foreign_key_check(documents)"))


@pytest.mark.usefixtures("backed_up")
def test_a_chunk_whose_id_is_another_documents_by_now_is_refused(program: Program, application: Maestro) -> None:
    lose(application)
    take = """
    collection("research_papers_dense").add(
        ids=[arguments["one"] + "_0"], embeddings=vectors(1, 8), documents=["new"], metadatas=[{"doc_id": "doc-00009", "user_id": 1}]
    )
    """
    chroma.execute(application.vectors, take, one=ONE)
    refused(program, application, f"chunk '{ONE}_0' of research_papers_dense is another document's now", f"check maestro --document {ONE}")


@pytest.mark.usefixtures("backed_up")
def test_a_live_store_that_cannot_be_read_or_is_in_use_is_refused(program: Program, application: Maestro) -> None:
    lose(application)
    with chroma.running(application.vectors, 'collection("research_papers_dense"); say(1); time.sleep(600)') as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = rows(application.main), files(application.papers / "raw_pdfs")
        ended = program.answer(*RESTORE, "--yes")
        hold_to(ended, 2, "refused", "chunks can only be removed by who uses the directory")
        assert (rows(application.main), files(application.papers / "raw_pdfs")) == before
    kept = application.metadata.read_bytes()
    application.metadata.write_bytes(b"no database" * 100)
    hold_to(program.answer(*RESTORE, "--yes"), 3, "unknown", "is damaged", "nothing was changed")
    application.metadata.write_bytes(kept)
    assert not application.file(ONE, "raw_pdfs").exists()


def test_a_damaged_set_is_refused(program: Program, application: Maestro, backed_up: dict[str, Any]) -> None:
    lose(application)
    (taken,) = program.repository.glob("maestro/2*")
    flip(taken / "papers/content/raw_pdfs" / f"{ONE}_paper.pdf")
    refused(program, application, "cannot be used, and nothing was changed", "are not what was recorded")
    flip(taken / "metadata/database.sqlite")
    refused(program, application, "cannot be used, and nothing was changed")


@pytest.mark.fault("F9")
def test_a_restore_of_a_document_that_is_killed_is_finished_or_taken_back(
    program: Program, application: Maestro, backed_up: dict[str, Any], campaign: Campaign
) -> None:
    change(application)
    before = digests(application)
    count, cut = campaign.trials(3, 50), 0
    seed = random.Random(11)
    for trial in range(count):
        process = program.start(*RESTORE, "--yes", "--json")
        wait_until_begun(program, process, trial)
        time.sleep(seed.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cut += process.returncode == -signal.SIGKILL
        wait_for_children(program)
        plan = max(path.name for path in program.state.glob("maestro/repairs/2*"))
        if trial % 2:
            again = program.answer("repair", "apply", "maestro", plan, "--yes")
            assert again.code == 0 or "is applied" in again.err or "before anything was changed" in again.err, again.err
        ended = program.answer("repair", "undo", "maestro", plan, "--yes")
        assert ended.code == 0 or "never applied" in ended.err, ended.err
        assert digests(application) == before, f"trial {trial}"
        assert list(application.papers.glob(".storekeeper-*")) == []
    campaign.found(count, f"restores of a document killed ({cut} in the middle)", "all taken back, digests of all stores equal")
    assert cut, "none was killed: nothing was tested"


def wait_until_begun(program: Program, process: Any, trial: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(program.state.glob("maestro/repairs/2*"))) <= trial and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.usefixtures("backed_up")
def test_a_failure_in_the_middle_is_taken_back_at_once(program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch) -> None:
    from storekeeper.stores.chroma import mending  # noqa: PLC0415

    change(application)
    before = digests(application)

    def fail(*_: object) -> None:
        raise Failed("the disk is full")

    monkeypatch.setattr(mending.ChromaGrip, "exchange", fail)
    with pytest.raises(Failed):
        in_process(program)
    assert digests(application) == before


@pytest.mark.control("F9")
@pytest.mark.usefixtures("backed_up")
def test_control_without_what_is_kept_nothing_is_taken_back(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storekeeper.consistency.bringing import Bringing  # noqa: PLC0415
    from storekeeper.stores.chroma import mending  # noqa: PLC0415

    def fail(*_: object) -> None:
        raise Failed("the disk is full")

    change(application)
    before = digests(application)
    monkeypatch.setattr(mending.ChromaGrip, "exchange", fail)
    monkeypatch.setattr(Bringing, "_kept", lambda *_: None)
    with suppressed():
        in_process(program)
    assert digests(application) != before


@pytest.mark.usefixtures("backed_up")
def test_what_was_changed_since_is_left_as_it_is_by_the_way_back(program: Program, application: Maestro) -> None:
    lose(application)
    result = hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")["result"]
    with database(application.main) as main:
        main.execute("update documents set title = 'worked on' where id = ?", (ONE,))
    ended = program.run(*result["back"].split()[1:], "--yes", "--json")
    hold_to(ended, 4, "warning", "was changed since: it was left as it is")
    with database(application.main) as main:
        assert main.execute("select title from documents where id = ?", (ONE,)).fetchone() == ("worked on",)
    assert not application.file(ONE, "raw_pdfs").exists()


@pytest.mark.usefixtures("backed_up")
def test_a_trigger_that_writes_something_else_is_refused_and_nothing_is_changed(program: Program, application: Maestro) -> None:
    lose(application)
    with closing(sqlite3.connect(application.main)) as main, main:
        main.execute("create trigger stamp after insert on documents begin update documents set title = 'stamped' where id = new.id; end")
    refused(program, application, "something in the store changes it, such as a trigger")


@pytest.mark.usefixtures("backed_up")
def test_rows_that_nobody_declared_stay_beside_a_row_that_is_replaced(program: Program, application: Maestro) -> None:
    with database(application.main) as main:
        main.execute("create table notes (id integer primary key, document_id text references documents (id), text text)")
        main.execute("insert into notes (document_id, text) values (?, 'mine')", (ONE,))
    change(application)
    hold_to(program.answer(*RESTORE, "--yes"), 0, "ok")
    with database(application.main) as main:
        assert main.execute("select document_id, text from notes").fetchall() == [(ONE, "mine")]
        assert main.execute("select title from documents where id = ?", (ONE,)).fetchone() == (f"title of {ONE}",)


def test_a_document_that_is_of_two_rules_is_refused_until_one_is_said(
    program: Program, application: Maestro, declare: Callable[..., None], backed_up: dict[str, Any]
) -> None:
    import json  # noqa: PLC0415

    declared = json.loads(application.stack_file())
    declared["consistency"]["papers"] = declared["consistency"]["documents"]
    program.declare(json.dumps(declared), "maestro")
    lose(application)
    refused(program, application, "the rules documents and papers both know a document")
    hold_to(program.answer(*RESTORE, "--rule", "papers", "--yes"), 0, "ok")
    assert digests(application) == backed_up


@contextmanager
def suppressed() -> Iterator[None]:
    try:
        yield
    except (Failed, Refused, OSError):
        pass


def in_process(program: Program) -> None:
    """The restore in this process, where a piece of the program can be replaced."""
    from storekeeper.host.progress import Progress  # noqa: PLC0415
    from storekeeper.stack.config import load_places  # noqa: PLC0415
    from storekeeper.verbs import opening  # noqa: PLC0415
    from storekeeper.verbs.restore_document import DocumentRequest, restore_document  # noqa: PLC0415

    places = load_places(Path(program.config))
    with opening.open_context(places, opening.declared(places, "maestro"), Progress(), lock="restore") as context:
        restore_document(context, DocumentRequest("latest", ONE))

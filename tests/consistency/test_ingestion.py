"""check beside an application that works without pause: what comes and goes between two reads is told by no look.

One process writes as the application does. A document begins as a row that is being processed, gets its metadata, chunks and files,
and is completed; it goes by way of being processed again. Every look reads stores that are never all still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency import checking
from storekeeper.consistency.checking import Checking, Look
from storekeeper.consistency.findings import Finding
from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.stack.loader import load_stack
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Identity, Remarks, Source
from storekeeper.stores.protocol import Store
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.chroma import Writer
from tests.harness.maestro import CHUNKS, COLLECTIONS, FOLDERS, Document, Maestro, database
from tests.harness.program import Program, hold_to

# One client of Chroma lives as long as the application. Documents live for 3 to 60 others, so that some are gone within a look.
APPLICATION = """
import os, random, sqlite3
main, metadata = (sqlite3.connect(arguments[name], timeout=30, isolation_level=None) for name in ("main", "metadata"))
collections = [collection(name) for name in arguments["collections"]]
chance, alive, number = random.Random(arguments["seed"]), [], 0


def files(document):
    return [os.path.join(arguments["papers"], folder, name.format(document)) for folder, name in arguments["folders"].items()]


def state(document, word):
    main.execute("update documents set processing_status = ?, updated_at = datetime('now') where id = ?", (word, document))


def ingest(document, user):
    main.execute("insert into documents values (?, ?, 'a title', 'processing', ?, datetime('now'))", (document, user, arguments["chunks"]))
    fill(document, user)
    state(document, "completed")


def fill(document, user):
    metadata.execute("insert into processed_documents values (?, 'a title', '[]')", (document,))
    for into in collections:
        into.add(
            ids=[f"{document}_{each}" for each in range(arguments["chunks"])],
            embeddings=vectors(arguments["chunks"], 8, number + 1),
            metadatas=[{"doc_id": document, "user_id": user, "page": each} for each in range(arguments["chunks"])],
        )
    for path in files(document):
        with open(path, "w") as file:
            file.write(document)


def empty(document):
    state(document, "processing")
    for path in files(document):
        os.unlink(path)
    for each in collections:
        each.delete(where={"doc_id": document})
    metadata.execute("delete from processed_documents where doc_id = ?", (document,))


def delete(document):
    empty(document)
    main.execute("delete from documents where id = ?", (document,))


while True:
    number += 1
    document = f"new-{number:07}"
    ingest(document, 1 + number % 3)
    alive.append((number + chance.randint(3, 60), document, 1 + number % 3))
    for each in [each for each in alive if each[0] <= number]:
        alive.remove(each)
        delete(each[1])
    if number % 5 == 0 and alive:
        _, again, user = chance.choice(alive)
        empty(again)
        fill(again, user)
        state(again, "completed")
    say([number, 0.0])
"""


@contextmanager
def at_work(application: Maestro) -> Iterator[Writer]:
    """The application, working while the block does."""
    words: dict[str, Any] = {"main": str(application.main), "metadata": str(application.metadata), "papers": str(application.papers)}
    with chroma.running(
        application.vectors, APPLICATION, collections=COLLECTIONS, folders=FOLDERS, chunks=CHUNKS, seed=1, **words
    ) as process:
        writer = Writer(process)
        writer.wait_for(20)
        yield writer


def told(program: Program) -> set[tuple[str, str]]:
    ended = program.answer("check", "maestro")
    assert ended.code in (0, 4), ended.err
    return {(each["class"], each["document"]) for each in ended.document["result"]["rules"]["documents"]["findings"]}


LOOKS = 10


@pytest.mark.slow
@pytest.mark.fault("F5")
def test_while_documents_are_ingested_and_deleted_without_pause_no_look_finds_anything(
    program: Program, application: Maestro, campaign: Campaign
) -> None:
    false: list[Any] = []
    looks = campaign.trials(reduced=LOOKS, full=100)
    with at_work(application) as writer:
        before = writer.look()
        for _ in range(looks):
            false += sorted(told(program))
            writer.wait_for(1)
        written = writer.look() - before
    campaign.found(looks, "looks beside an application that never pauses", f"{len(false)} false findings, {written:,} documents ingested")
    assert false == []
    assert written >= looks
    # Everything is whole once it is still: what the application was doing when it was stopped is in flight.
    hold_to(program.answer("check", "maestro"), 0, "ok")


@pytest.mark.slow
@pytest.mark.control("F5")
def test_control_one_reading_alone_finds_what_never_was(application: Maestro, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same application, about as long as those looks take; what the first reading found is told."""
    monkeypatch.setattr(checking, "in_both", lambda first, second: iter(first))
    found: list[str] = []
    deadline = time.monotonic() + LOOKS * 4
    with at_work(application) as writer:
        while not found and time.monotonic() < deadline:
            found = [each.document for each in opened.look().findings]
        writer.look()  # which raises where the application ended by itself
    assert found
    assert all(document.startswith("new-") for document in found)


@pytest.mark.slow
@pytest.mark.fault("F5")
def test_what_does_disagree_is_found_by_every_look_while_the_application_works(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    with at_work(application) as writer:
        application.delete_file("doc-00004", "processed/markdown")
        for _ in range(5):
            assert told(program) == {("orphan", "doc-00003"), ("missing", "doc-00004")}
            writer.wait_for(1)


class Observed:
    """A real store, of which it is told when a place of it was read to its end."""

    def __init__(self, store: Store, then: Callable[[str], None]) -> None:
        self._store = store
        self._then = then

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        yield from self._store.identities(source, remarks)
        self._then(source.label)

    def mark(self, source: Source) -> str | None:
        return self._store.mark(source)


@dataclass
class Opened:
    """The rule and the stores of the application, in this process."""

    rule: Rule
    stores: Mapping[str, Store]
    room: Path

    def look(self, then: Callable[[str], None] = lambda _: None) -> Look:
        work, state = self.room / f"work-{time.monotonic_ns()}", self.room / "state"
        for each in (work, state):
            durable.ensure_directory(each)
        observed: Any = {name: Observed(store, then) for name, store in self.stores.items()}
        return Checking(observed, state, work, Progress(), pause_s=0.2).look("documents", self.rule)


@pytest.fixture
def opened(application: Maestro, tmp_path: Path) -> Opened:
    file = tmp_path / "maestro.yml"
    file.write_text(application.stack_file(), encoding="utf-8")
    stack = load_stack(file)
    surroundings = Surroundings("maestro", tmp_path, tmp_path)
    stores = {name: open_store(name, declared, surroundings) for name, declared in stack.stores.items()}
    return Opened(stack.consistency["documents"], stores, tmp_path / "room")


LAST = "processed/metadata/{id}.json"


class Timed:
    """Does two things: one when the authority was read first, one when all replicas were read the second time."""

    def __init__(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        self._read: list[str] = []
        self._steps = {("query", 1): first, (LAST, 2): second}

    def __call__(self, label: str) -> None:
        self._read.append(label)
        step = self._steps.get((label, self._read.count(label)))
        if step is not None:
            step()


def spoken(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(str(each.kind), each.document) for each in found]


def set_state(application: Maestro, document: str, word: str) -> None:
    with database(application.main) as main:
        main.execute("update documents set processing_status = ? where id = ?", (word, document))


def brief(application: Maestro) -> Timed:
    """A document that comes after the authority was read first, and goes before it is read last."""

    def come() -> None:
        application.insert_rows([Document("brief")])
        application.add_metadata(["brief"])
        application.add_files("brief")

    def go() -> None:
        for folder in FOLDERS:
            application.delete_file("brief", folder)
        application.delete_metadata("brief")
        application.delete_row("brief")

    return Timed(come, go)


@pytest.mark.fault("F5")
def test_a_document_that_lives_from_one_reading_to_the_next_is_no_orphan(application: Maestro, opened: Opened) -> None:
    assert spoken(iter(opened.look(brief(application)).findings)) == []


@pytest.mark.control("F5")
def test_control_the_first_reading_alone_takes_it_for_an_orphan(
    application: Maestro, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "in_both", lambda first, second: iter(first))
    assert spoken(iter(opened.look(brief(application)).findings)) == [("orphan", "brief")] * 4


@pytest.mark.fault("F5")
def test_a_document_that_is_processed_again_from_one_reading_to_the_next_is_not_missing(application: Maestro, opened: Opened) -> None:
    """It is complete whenever the authority is read, and has nothing whenever a replica is."""

    def begin() -> None:
        set_state(application, "doc-00003", "processing")
        application.delete_file("doc-00003", "processed/markdown")

    def end() -> None:
        application.add_files("doc-00003", ["processed/markdown"])
        set_state(application, "doc-00003", "completed")

    assert spoken(iter(opened.look(Timed(begin, end)).findings)) == []


def test_what_is_wrong_all_the_time_is_found_by_such_a_look_too(application: Maestro, opened: Opened) -> None:
    application.delete_file("doc-00004", "processed/markdown")
    application.add_metadata(["nobody's"])
    assert spoken(iter(opened.look(Timed(lambda: None, lambda: None)).findings)) == [("missing", "doc-00004"), ("orphan", "nobody's")]

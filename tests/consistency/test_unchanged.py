"""A look at stores in which nothing has changed reads none of them again, and no change escapes it, however it is made."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency.keeping import LONGEST
from storekeeper.host.stamps import SETTLED_S
from storekeeper.stores import marks
from tests.harness.maestro import COLLECTIONS, Document, Maestro, database
from tests.harness.program import Program, hold_to

MARKDOWN = "papers/processed/markdown/{id}.md"
ALL = {
    "main/documents",
    "metadata/processed_documents",
    *(f"vectors/{each}" for each in COLLECTIONS),
    "papers/raw_pdfs/{id}_*",
    MARKDOWN,
    "papers/processed/metadata/{id}.json",
}


def settle() -> None:
    """Only what was left alone for two seconds is believed to stand still."""
    time.sleep(SETTLED_S + 0.2)


def look(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = program.answer("check", "maestro").document["result"]["rules"]["documents"]
    return found


def index_of(program: Program) -> Path:
    return program.state / "maestro/kept/documents/index.json"


@pytest.fixture
def known(program: Program) -> Program:
    """The program, which has looked at stores that stand still."""
    settle()
    assert look(program)["unchanged"] == []
    return program


def test_what_has_not_changed_is_not_read_again_and_the_same_is_said(known: Program, application: Maestro) -> None:
    first = look(known)
    assert set(first["unchanged"]) == ALL
    assert (first["documents"], first["counts"]["in_flight"], first["findings"]) == (32, 2, [])
    application.delete_file("doc-00004", "processed/markdown")
    settle()
    for expected in (ALL - {MARKDOWN, "papers/processed/metadata/{id}.json", "papers/raw_pdfs/{id}_*"}, ALL):
        again = look(known)
        assert expected <= set(again["unchanged"])
        assert [(each["class"], each["document"]) for each in again["findings"]] == [("missing", "doc-00004")]


def test_figures_and_remarks_are_the_same_as_when_everything_is_read(program: Program, application: Maestro) -> None:
    application.insert_rows([Document("odd", state="unheard-of")])
    settle()
    read, known = (hold_to(program.answer("check", "maestro", "--stats"), 4, "warning") for _ in range(2))
    rule = known["result"]["rules"]["documents"]
    assert set(rule.pop("unchanged")) == ALL
    assert read["result"]["rules"]["documents"].pop("unchanged") == []
    assert (known["result"], known["problems"]) == (read["result"], read["problems"])
    assert "unheard-of" in known["problems"][0]["message"]


def test_time_alone_makes_a_leftover_of_what_failed(program: Program, application: Maestro) -> None:
    application.add([Document("broken", state="failed")])
    due = datetime.now(UTC) + timedelta(seconds=25)
    with database(application.main) as main:
        main.execute("update documents set updated_at = ? where id = 'broken'", ((due - timedelta(hours=24)).isoformat(),))
    settle()
    assert look(program)["findings"] == []
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 0.1)
    late = look(program)
    assert set(late["unchanged"]) == ALL
    assert {(each["class"], each["document"]) for each in late["findings"]} == {("leftover", "broken")}


def _in_place(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change bytes of a file, and put its times back as far as anybody can."""
    before = os.stat(path)
    data = bytearray(path.read_bytes())
    change(data)
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _exchanged(data: bytearray, old: bytes, new: bytes) -> None:
    assert old in data
    data[:] = data.replace(old, new)


def _other_file(path: Path, statement: str) -> None:
    """Another file of the same size and time under the name."""
    before = os.stat(path)
    new = path.with_name("new.db")
    shutil.copyfile(path, new)
    with closing(sqlite3.connect(new, isolation_level=None)) as database:
        database.execute(statement)
    assert new.stat().st_size == before.st_size
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(new, path)


def _renamed_file(application: Maestro) -> None:
    folder = application.papers / "processed/markdown"
    before = os.stat(folder)
    (folder / "doc-00004.md").rename(folder / "doc-99999.md")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


TRICKS: dict[str, Callable[[Maestro], None]] = {
    "a byte of the database, its size and time put back": lambda app: _in_place(
        app.metadata, lambda data: _exchanged(data, b"doc-00004", b"doc-99999")
    ),
    "another database of the same size and time": lambda app: _other_file(
        app.metadata, "update processed_documents set doc_id = 'doc-99999' where doc_id = 'doc-00004'"
    ),
    "a byte of Chroma's database": lambda app: _in_place(
        app.vectors / "chroma.sqlite3", lambda data: _exchanged(data, b"doc-00004", b"doc-99999")
    ),
    "a file renamed, the directory's time put back": _renamed_file,
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_change_escapes_however_it_is_hidden(known: Program, application: Maestro, trick: str) -> None:
    TRICKS[trick](application)
    settle()  # what was just changed is read again anyhow
    assert {each["document"] for each in look(known)["findings"]} == {"doc-00004", "doc-99999"}


@pytest.mark.parametrize("trick", [each for each in TRICKS if "put back" in each])
def test_control_sizes_and_times_alone_would_not_have_seen_it(known: Program, application: Maestro, trick: str) -> None:
    """What rsync and its like go by stays the same."""

    def seen() -> list[tuple[int, int]]:
        looked = (os.stat(path) for path in (application.metadata, application.papers / "processed/markdown"))
        return [(each.st_size, each.st_mtime_ns) for each in looked]

    before = seen()
    TRICKS[trick](application)
    assert seen() == before


def test_what_was_just_changed_has_no_mark(application: Maestro) -> None:
    """Two changes within one tick of the kernel's clock leave one time: what was just changed may be changed again unseen."""
    settle()
    assert marks.of_database(application.metadata) is not None
    application.add_metadata(["fresh"])
    assert marks.of_database(application.metadata) is None


@pytest.fixture
def logged(application: Maestro, program: Program) -> Iterator[sqlite3.Connection]:
    """The metadata database with a log, held open by somebody."""
    with closing(sqlite3.connect(application.metadata, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute("insert into processed_documents (doc_id) values ('begins-the-log')")
        connection.execute("delete from processed_documents where doc_id = 'begins-the-log'")
        settle()
        look(program)
        assert "metadata/processed_documents" in look(program)["unchanged"]
        yield connection


def test_a_change_in_a_log_is_seen(logged: sqlite3.Connection, program: Program) -> None:
    logged.execute("delete from processed_documents where doc_id = 'doc-00004'")
    assert [each["document"] for each in look(program)["findings"]] == ["doc-00004"]


def test_a_log_that_begins_anew_at_the_same_size_is_seen(logged: sqlite3.Connection, application: Maestro, program: Program) -> None:
    log = application.metadata.with_name(application.metadata.name + "-wal")
    logged.execute("pragma wal_checkpoint(restart)")
    settle()
    look(program)
    size = log.stat().st_size
    logged.execute("delete from processed_documents where doc_id = 'doc-00004'")
    assert log.stat().st_size == size
    assert [each["document"] for each in look(program)["findings"]] == ["doc-00004"]


def test_a_transaction_that_was_written_long_ago_and_can_be_read_only_now_is_seen(
    logged: sqlite3.Connection, application: Maestro, program: Program
) -> None:
    """A writer that is stopped after it wrote its log, and before it said so in the index: no file has a new time when it goes on."""
    log, index = (application.metadata.with_name(application.metadata.name + suffix) for suffix in ("-wal", "-shm"))
    before = _header(index)
    logged.execute("delete from processed_documents where doc_id = 'doc-00004'")
    after = _header(index)
    _put(index, before)
    settle()
    assert look(program)["findings"] == []
    stood = os.stat(log), os.stat(application.metadata)
    assert "metadata/processed_documents" in look(program)["unchanged"]
    _put(index, after)
    assert (os.stat(log), os.stat(application.metadata)) == stood
    assert [each["document"] for each in look(program)["findings"]] == ["doc-00004"]


def _header(path: Path) -> bytes:
    """Read by another process: this one's locks would go with the descriptor."""
    return subprocess.run(["head", "-c", "96", path], check=True, capture_output=True).stdout


def _put(path: Path, header: bytes) -> None:
    """Write into the index as SQLite does, through memory."""
    words = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); m[:96] = bytes.fromhex(sys.argv[2])"
    subprocess.run([sys.executable, "-c", words, path, header.hex()], check=True)


def test_a_query_that_asks_the_time_is_asked_each_time(program: Program, declare: Callable[..., None]) -> None:
    query = "select id, user_id, processing_status, updated_at from documents where updated_at < datetime('now', '+1 day')"
    declare(authority={"store": "main", "query": query})
    settle()
    look(program)
    assert set(look(program)["unchanged"]) == ALL - {"main/documents"}


@pytest.mark.parametrize(
    "damage", ["a byte of what is kept", "a byte of what came out", "a clock that was set back", "another boot", "a day"]
)
def test_what_is_kept_is_believed_only_as_it_was_written(known: Program, application: Maestro, damage: str) -> None:
    index = index_of(known)
    document = json.loads(index.read_text())
    if damage == "a byte of what is kept":
        application.delete_row("doc-00004")  # so that all others are compared with it
        settle()
        for file in index.parent.glob("*.db"):
            _in_place(file, lambda data: _exchanged(data, b"doc-00003", b"doc-77777"))
    elif damage == "a byte of what came out":
        (index.parent / "findings.jsonl").write_text("{}\n")
    elif damage == "a clock that was set back":
        document["clock"]["ahead"] += 5
    elif damage == "another boot":
        document["clock"]["boot"] = "0" * 36
    else:
        for place in document["places"].values():
            place["at"] = place["at"].replace(place["at"][:4], str(int(place["at"][:4]) - 1), 1)
        assert timedelta(days=1) <= LONGEST
    index.write_text(json.dumps(document))
    found = look(known)
    assert {each["document"] for each in found["findings"]} == ({"doc-00004"} if "is kept" in damage else set())
    if damage != "a byte of what came out":
        assert found["unchanged"] == []


def test_what_was_kept_of_a_rule_goes_with_the_rule(known: Program, application: Maestro, declare: Callable[..., None]) -> None:
    kept = known.state / "maestro/kept"
    (kept / "documents").rename(kept / "papers")  # as if it had been kept of a rule of that name
    declare()
    look(known)
    assert [path.name for path in kept.iterdir()] == ["documents"]

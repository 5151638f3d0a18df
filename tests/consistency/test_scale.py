"""check of tens of thousands of documents: all of them are read, and what is held of them in memory does not grow with them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency.looks import newest
from storekeeper.host import durable
from tests.harness.campaign import Campaign
from tests.harness.memory import measured, temporary
from tests.harness.program import Program, hold_to

FEW, TIMES = 20_000, 3
OWNERS = 1_001
CHUNKS = 5
GROWTH_MB = 8.0  # that three times the documents may take more: SQLite's caches fill up to their bounds, and stay there
MADE = """
create table documents (id text primary key, owner integer not null, state text not null, changed text not null, chunks integer not null);
create table chunks (id integer primary key, document text not null, owner integer not null);
with recursive numbers (n) as (select 0 union all select n + 1 from numbers where n + 1 < {count})
insert into documents select printf('doc-%07d', n), n % {owners}, 'done', '2026-01-01T00:00:00Z', {chunks} from numbers;
with recursive numbers (n) as (select 0 union all select n + 1 from numbers where n + 1 < {count} * {chunks})
insert into chunks (document, owner) select printf('doc-%07d', n / {chunks}), (n / {chunks}) % {owners} from numbers;
create index chunks_document on chunks (document);
"""
# The program with a reader as anybody would write it first: what a place holds is a list before it is compared.
KEEPING_ALL = """
from storekeeper.stores import identities
enter, kept = identities.Sorted.__enter__, []
def keep(self):
    self._found = list(self._found)
    kept.append(self._found)
    return enter(self)
identities.Sorted.__enter__ = keep
"""

TELLING_FEW = "from storekeeper.verbs import check; check.MOST_TOLD = 1000"


@dataclass(frozen=True)
class Library:
    """Documents and chunks in one database, a file each in a folder of its owner."""

    program: Program
    live: Path
    count: int

    def make(self) -> None:
        (self.live / "files").mkdir(parents=True)
        with closing(sqlite3.connect(self.live / "main.db")) as database:
            database.executescript(MADE.format(count=self.count, owners=OWNERS, chunks=CHUNKS))
        for owner in range(OWNERS):
            folder = self.live / f"files/{owner}"
            folder.mkdir()
            for number in range(owner, self.count, OWNERS):
                (folder / f"doc-{number:07}.pdf").touch()
        stores = {"main": {"kind": "sqlite", "path": f"{self.live}/main.db"}, "files": {"kind": "files", "path": f"{self.live}/files"}}
        chunks = "select document, owner, count(*) from chunks group by document, owner"
        rule = {
            "authority": {
                "store": "main",
                "query": "select id, owner, state, changed, chunks from documents",
                "columns": ["id", "owner", "state", "at", "chunks"],
            },
            "states": {"complete": ["done"]},
            "replicas": [
                {"store": "main", "query": chunks, "columns": ["id", "owner", "chunks"]},
                {"store": "files", "pattern": "{owner}/{id}.pdf"},
            ],
        }
        self.program.declare(json.dumps({"stack": "large", "stores": stores, "consistency": {"documents": rule}}), "large")

    def damage(self, every: int) -> None:
        """Remove the file of one document in so many."""
        for number in range(0, self.count, every):
            (self.live / f"files/{number % OWNERS}/doc-{number:07}.pdf").unlink(missing_ok=True)

    def peak(self, before: str = "") -> float:
        """Megabytes of the program's own, which reads everything."""
        durable.remove_tree(self.program.state / "large/kept")
        return measured(self.program, "check", "large", before=before).own


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with temporary() as path:
        yield path


@pytest.fixture(scope="module")
def libraries(room: Path) -> dict[int, Library]:
    found = {}
    for count in (FEW, TIMES * FEW):
        found[count] = Library(Program(room / f"host-{count}"), room / f"live-{count}", count)
        found[count].make()
    return found


@pytest.mark.fault("F3")
def test_of_very_many_documents_all_are_read_and_counted(libraries: dict[int, Library]) -> None:
    library = libraries[FEW]
    document = hold_to(library.program.answer("check", "large", "--stats"), 0, "ok")
    rule: dict[str, Any] = document["result"]["rules"]["documents"]
    assert (rule["documents"], rule["findings"], rule["left_out"]) == (FEW, [], 0)
    assert rule["stats"]["owners"] == OWNERS
    assert rule["stats"]["states"] == {"done": FEW}
    assert rule["stats"]["places"]["main/query 2"] == {"documents": FEW, "chunks": CHUNKS * FEW}
    assert rule["stats"]["places"]["files/{owner}/{id}.pdf"] == {"documents": FEW, "chunks": None}


@pytest.mark.fault("F3")
def test_memory_does_not_grow_with_the_documents(libraries: dict[int, Library], campaign: Campaign) -> None:
    few, many = (library.peak() for library in libraries.values())
    campaign.found(TIMES * FEW, "documents compared in three places", f"{many:.0f} MB at most, of {FEW:,} {few:.0f} MB")
    assert many - few < GROWTH_MB


@pytest.mark.control("F3")
def test_control_a_reader_that_keeps_all_in_a_list_does_grow(libraries: dict[int, Library]) -> None:
    few, many = (library.peak(KEEPING_ALL) for library in libraries.values())
    assert many - few > 2.5 * GROWTH_MB


@pytest.mark.slow
@pytest.mark.fault("F3")
def test_memory_does_not_grow_with_what_disagrees_and_all_of_it_is_counted(libraries: dict[int, Library], campaign: Campaign) -> None:
    """A fifth of the files gone, and then all of them; of neither the program's document holds more than a thousand findings."""
    library = libraries[FEW]
    library.damage(every=5)
    few = library.peak(TELLING_FEW)
    library.damage(every=1)
    many = library.peak(TELLING_FEW)
    campaign.found(FEW, "documents without a file", f"{many:.0f} MB at most, of {FEW // 5:,} {few:.0f} MB")
    assert many - few < GROWTH_MB
    told = newest(library.program.state / "large", "documents")
    assert told is not None
    assert told.counts == {"missing": {"files": FEW}}

"""What `check` costs over a large library: beside paging through Chroma's client for the ids alone, over a hundred times the documents,
and where nothing has changed since the look before.

    python -m benchmarks.consistency [--rounds 3] [--documents 100000] [--most 1000000]

A library is a database, a Chroma directory with two collections of five chunks a document each, and a folder of files. A chunk has the
twelve keys that Maestro gives it (github.com/murtaza-nasir/maestro, core_rag/chunker.py and vector_store.py). `check`
reads all of it and compares it. Paging is what an application does for the same question: `collection.get` in pages of 5,000 with the
metadata, the ids put into a set; nothing else is read and nothing is compared. Both are processes of their own, from start to end.

A look that finds nothing changed is measured beside one that reads everything, in seconds and in the bytes that it asks the kernel for
(`rchar` of /proc/self/io), the program itself and its libraries among them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.measuring import Found, Timing, command, compared, figure, in_turn, show, spread, timed, weighed
from storekeeper.host import durable
from storekeeper.host.stamps import SETTLED_S
from tests.harness.chroma import argv_of, execute
from tests.harness.memory import measured
from tests.harness.program import Program

__all__ = ["TITLE", "measure", "show"]
TITLE = "Consistency"
GROWTH_GOAL = 1.25  # memory, and time for each document, over ten times the documents
SECONDS_GOAL, MEMORY_GOAL, PAGING_GOAL = 60.0, 300.0, 20.0
_NOTE = (
    "Chunks are put into Chroma's tables by SQLite, in a directory and collections that Chroma itself made, since adding them through the "
    "client takes most of an hour; each has the keys that Maestro gives its chunks, an abstract of 600 characters among them. Its client "
    "finds all of them, and neither side reads a vector. Paging reads Chroma alone; `check` reads the database and the folder as well, and "
    "compares them."
)
_COUNTING = """
import atexit
atexit.register(lambda: open({path!r}, "w").write(open("/proc/self/io").readline().split()[1]))
"""
CHUNKS, OWNERS = 5, 1_001
PAGE = 5_000
COLLECTIONS = ("dense", "sparse")
FOLDERS = {"raw": "{}_paper.pdf"}
_PER_DIRECTORY = {"raw": "raw/{id}_*"}
_NUMBERS = "with recursive numbers (n) as (select 0 union all select n + 1 from numbers where n + 1 < {count}) "
_DATABASE = f"""
create table documents (id text primary key, owner integer not null, state text not null, changed text not null, chunks integer not null);
{_NUMBERS}
insert into documents select printf('doc-%07d', n), n % {OWNERS}, 'done', '2026-01-01T00:00:00Z', {CHUNKS} from numbers;
"""
# Chroma itself makes the directory and both collections; their chunks are put where its metadata segments would put them, since adding
# them through the client takes most of an hour. Vectors there are none: neither side reads one.
_CHUNKS = f"""
{_NUMBERS}
insert into embeddings (id, segment_id, embedding_id, seq_id)
select :first + n, :segment, printf('doc-%07d_%d', n / {CHUNKS}, n % {CHUNKS}), :first + n from numbers
"""
_TEXTS = f"""
insert into embedding_metadata (id, key, string_value)
select id, 'doc_id', printf('doc-%07d', (id - :first) / {CHUNKS}) from embeddings where segment_id = :segment
"""
_OWNERS = f"""
insert into embedding_metadata (id, key, int_value)
select id, 'user_id', (id - :first) / {CHUNKS} % {OWNERS} from embeddings where segment_id = :segment
"""
# What Maestro stores with each chunk beside these two: which chunk it is, and once more what is known of its document.
NUMBERS = ("chunk_index", "start_paragraph_index", "end_paragraph_index")
TEXTS = {
    "chunk_id": 22,
    "original_filename": 40,
    "title": 80,
    "authors": 60,
    "journal_or_source": 30,
    "publication_year": 12,
    "abstract": 600,
}
_NUMBERED = f"""
insert into embedding_metadata (id, key, int_value)
select id, :key, (id - :first) % {CHUNKS} from embeddings where segment_id = :segment
"""
_DESCRIBED = f"""
insert into embedding_metadata (id, key, string_value)
select id, :key, substr(printf('%07d', (id - :first) / {CHUNKS}) || :words, 1, :length) from embeddings where segment_id = :segment
"""
_WORDS = " of which so many words are known as stand here" * 20
_PAGING = """
found = set()
for name in arguments["collections"]:
    papers, start = collection(name), 0
    while metadatas := papers.get(limit=arguments["page"], offset=start, include=["metadatas"])["metadatas"]:
        found.update(each["doc_id"] for each in metadatas)
        start += len(metadatas)
with open("/proc/self/status") as status:
    say([len(found), int(next(line.split()[1] for line in status if line.startswith("VmHWM:")))])
"""


def measure(rounds: int = 3, documents: int = 100_000, most: int = 1_000_000) -> Found:
    """The whole library at one size, and the curve up to `most` documents with the database and one folder."""
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-", dir="/var/tmp") as place:
        room = Path(place)
        rows = _beside_paging(room / "whole", rounds, documents)
        durable.remove_tree(room / "whole")
        grown, chart = _curve(room, [size for size in (most // 100, most // 10, most) if size])
    return {"rows": rows + grown, "sizes": {"documents": documents, "most": most}, "notes": [_NOTE], "chart": chart}


class Library:
    """So many documents below one directory, all whole."""

    def __init__(self, room: Path, documents: int, folders: Sequence[str], *, chroma: bool) -> None:
        self._live = room / "live"
        self.vectors = self._live / "vectors"
        self._documents = documents
        self._folders = folders
        self._program = Program(room / "host")
        self.peaks: list[float] = []
        self.read: dict[str, list[float]] = {"all": [], "nothing": []}  # megabytes
        self._make(chroma=chroma)
        self._program.declare(json.dumps(self._declared(chroma=chroma)), "bench")

    def check(self, number: int) -> Timing:  # noqa: ARG002 - each look costs the same
        """A look that reads everything. Raises RuntimeError where it does not end, and ValueError where it found anything."""
        durable.remove_tree(self._program.state / "bench/kept")
        return self._look("all")

    def check_again(self, number: int) -> Timing:
        """A look after another, with nothing changed between them for longer than the clock is coarse."""
        time.sleep(SETTLED_S + 0.5)
        self.check(number)
        self.read["all"].pop()
        self.peaks.pop()
        return self._look("nothing")

    def _look(self, what: str) -> Timing:
        told = self._program.root / "read"
        counting = _COUNTING.format(path=str(told))
        timing = timed(lambda: self.peaks.append(measured(self._program, "check", "bench", before=counting).own))
        self.read[what].append(int(told.read_text()) / 1e6)
        look = (self._program.state / "bench/looks/documents.jsonl").read_text().splitlines()
        if len(look) != 1 or json.loads(look[0])["documents"] != self._documents:
            raise ValueError(f"check came to another end than that {self._documents} documents agree: {look[:2]}")
        return timing

    def _make(self, *, chroma: bool) -> None:
        for folder in self._folders:
            (self._live / folder).mkdir(parents=True)
            for number in range(self._documents):
                (self._live / folder / FOLDERS[folder].format(f"doc-{number:07}")).touch()
        with closing(sqlite3.connect(self._live / "main.db")) as database:
            database.executescript(_DATABASE.format(count=self._documents))
        if chroma:
            _make_chroma(self.vectors, self._documents)
        os.sync()

    def _declared(self, *, chroma: bool) -> dict[str, Any]:
        query = "select id, owner, state, changed, chunks from documents"
        authority = {"store": "main", "query": query, "columns": ["id", "owner", "state", "at", "chunks"]}
        replicas: list[dict[str, Any]] = [{"store": "files", "pattern": _PER_DIRECTORY[folder]} for folder in self._folders]
        stores = {
            "main": {"kind": "sqlite", "path": str(self._live / "main.db")},
            "files": {"kind": "files", "path": str(self._live), "include": list(self._folders)},
        }
        if chroma:
            replicas.append({"store": "vectors", "collections": COLLECTIONS, "key": "doc_id", "owner": "user_id"})
            stores["vectors"] = {"kind": "chroma", "path": str(self.vectors)}
        rule = {"authority": authority, "states": {"complete": ["done"]}, "replicas": replicas}
        return {"stack": "bench", "stores": stores, "consistency": {"documents": rule}}


def _beside_paging(room: Path, rounds: int, documents: int) -> list[Found]:
    library = Library(room, documents, list(FOLDERS), chroma=True)
    paged: list[float] = []

    def page(number: int) -> Timing:  # noqa: ARG001
        return timed(lambda: paged.append(_paged(library.vectors, documents)))

    found = in_turn(rounds, {"check": library.check, "again": library.check_again, "paging": page})
    chunks = documents * CHUNKS * len(COLLECTIONS)
    what = f"`check` of {documents:,} documents, {chunks:,} chunks in two collections, {len(FOLDERS) * documents:,} files"
    client = "paging through Chroma's client for the ids alone"
    again, everything = "`check` again, with nothing changed", "`check` that reads everything"
    read, unread = (statistics.median(library.read[each]) for each in ("all", "nothing"))
    return [
        figure(what, [each.seconds for each in found["check"]], "s", goal=SECONDS_GOAL),
        compared(f"{what}: times as fast", found["check"], client, found["paging"], goal=PAGING_GOAL, at_least=True),
        figure(f"{what}: peak memory", [max(library.peaks)], "MB", goal=MEMORY_GOAL),
        weighed(f"{what}: peak memory", max(library.peaks), client, max(paged)),
        compared(again, found["again"], everything, found["check"]),
        weighed(f"{again}: bytes read", unread, everything, read),
    ]


def _paged(directory: Path, documents: int) -> float:
    """Megabytes that an application needs at most. Raises RuntimeError where it does not see all documents."""
    words = {"collections": COLLECTIONS, "page": PAGE}
    done = subprocess.run(
        argv_of(directory, _PAGING, words), capture_output=True, check=False, env={**os.environ, "ANONYMIZED_TELEMETRY": "0"}
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode()[-2000:])
    count, kilobytes = json.loads(done.stdout.splitlines()[-1])
    if count != documents:
        raise RuntimeError(f"paging saw {count} of {documents} documents")
    return float(kilobytes / 1024)


def _curve(room: Path, sizes: Sequence[int]) -> tuple[list[Found], Found]:
    """Seconds of each size, once; memory, and the time that each document takes, beside those of the size before. All of it drawn, too."""
    rows: list[Found] = []
    seconds_of, peak_of = [], []
    before: tuple[int, float, float] | None = None
    for size in sizes:
        library = Library(room / str(size), size, ["raw"], chroma=False)
        what = f"`check` of {size:,} documents in a database and as many files"
        seconds = library.check(0).seconds
        peak, each = library.peaks[-1], seconds / size * 1e6
        rows.append(figure(what, [seconds], "s"))
        if before is None:
            rows.append({"what": f"{what}: peak memory", "n": 1, "unit": "MB", "ours": spread([peak]), "note": ""})
        else:
            rows.append(weighed(f"{what}: peak memory", peak, f"{before[0]:,}", before[1], goal=GROWTH_GOAL))
            rows.append(weighed(f"{what}: time a document", each, f"{before[0]:,}", before[2], "µs", goal=GROWTH_GOAL))
        before = size, peak, each
        seconds_of.append((size, seconds))
        peak_of.append((size, peak))
        durable.remove_tree(room / str(size))
    series = [{"name": "time", "unit": "s", "points": seconds_of}, {"name": "memory", "unit": "MB", "points": peak_of}]
    return rows, {"title": "check: time grows with the documents, memory does not", "x": "documents, and as many files", "series": series}


def _make_chroma(directory: Path, documents: int) -> None:
    execute(directory, "for name in arguments['collections']: collection(name)", collections=COLLECTIONS)
    count = documents * CHUNKS
    with closing(sqlite3.connect(directory / "chroma.sqlite3", isolation_level=None)) as database:
        database.execute("pragma synchronous = off")
        database.execute("begin")
        query = "select s.id from segments s join collections c on c.id = s.collection where s.scope = 'METADATA' and c.name = ?"
        for number, name in enumerate(COLLECTIONS):
            ((segment,),) = database.execute(query, (name,)).fetchall()
            words = {"segment": segment, "first": 1 + number * count}
            database.execute(_CHUNKS.format(count=count), words)
            database.execute(_TEXTS, words)
            database.execute(_OWNERS, words)
            for key in NUMBERS:
                database.execute(_NUMBERED, {**words, "key": key})
            for key, length in TEXTS.items():
                database.execute(_DESCRIBED, {**words, "key": key, "words": _WORDS, "length": length})
            database.execute("insert or replace into max_seq_id (segment_id, seq_id) values (?, ?)", (segment, (number + 1) * count))
        database.execute("update collections set dimension = 8")
        database.execute("commit")


if __name__ == "__main__":
    command(__doc__, measure)

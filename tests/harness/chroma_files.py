"""What tests do to a Chroma directory behind Chroma's back, and directories that are loaded once for all of them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.stores.chroma import catalogue, content, layout
from storekeeper.stores.chroma.dumping import CONTENT, LISTING
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import sha256_of
from tests.harness.chroma import execute

TWO = """
papers, notes = collection("papers"), collection("notes", space="cosine", sync=300)
load(papers, 2500, 16)
load(notes, 700, 8, batch=350)
papers.delete(ids=["chunk-0000003", "chunk-0002400"])
papers.update(ids=["chunk-0000005"], documents=["changed"], metadatas=[{"page": "none", "doc_id": None}], embeddings=vectors(1, 16, 7))
papers.upsert(ids=["chunk-0000006", "fresh"], embeddings=vectors(2, 16, 8), documents=["upserted", "fresh"])
notes.update(ids=["chunk-0000001"], metadatas=[{"more": 1}])
client.create_collection("empty", embedding_function=None)
gone = collection("gone")
load(gone, 1200, 4)
client.delete_collection("gone")
"""


def made_once(factory: pytest.TempPathFactory, name: str, code: str, **arguments: Any) -> Path:
    """A directory that Chroma has loaded, the same for every module of this run of tests: for reading, or to be copied."""
    directory = factory.getbasetemp() / f"chroma-{name}"
    if not directory.exists():
        execute(directory, code, **arguments)
    return directory


def enqueue(directory: Path, name: str, operations: list[tuple[int, str, dict[str, object]]]) -> None:
    """Write operations as Chroma does before it applies them to its tables: acknowledged, and nowhere else."""
    database = sqlite3.connect(directory / layout.DATABASE)
    with database:
        ((identity, dimension),) = database.execute("select id, dimension from collections where name = ?", (name,))
        for operation, document, metadata in operations:
            vector = None if operation in (1, 3) else (b"\0\0\x80?" * dimension)
            database.execute(
                "insert into embeddings_queue (operation, topic, id, vector, encoding, metadata) values (?, ?, ?, ?, ?, ?)",
                (operation, f"persistent://default/default/{identity}", document, vector, vector and "FLOAT32", json.dumps(metadata)),
            )
    database.close()


def crash_in_transaction(directory: Path) -> None:
    """A process dies after it has changed the file and before it has committed."""
    code = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    code += "c.execute('pragma cache_size=2'); c.execute('delete from embeddings'); os._exit(0)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(directory / layout.DATABASE)]) == 0


def migrate_ahead(directory: Path) -> None:
    with sqlite3.connect(directory / layout.DATABASE) as database:
        database.execute("insert into migrations values ('sysdb', 11, '00011-future.sqlite.sql', 'select 1', 'x')")
    database.close()


def settle(directory: Path) -> None:
    """Wait until the clock that stamps files has moved on since the last write."""
    while not all(entry.settled for entry in layout.scan(directory).values()):
        pass


def segment_of(directory: Path, name: str) -> Path:
    with catalogue.open_catalogue(directory, sealed=True) as found:
        segment = next(each.vectors for each in found.collections() if each.key == name)
    assert segment is not None
    return directory / segment.id


def writable(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    for path in target.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


def relist(folder: Path, record: StoreRecord) -> StoreRecord:
    """As if a set had been made of what stands in it now: the listing, and the record with the digest that goes with it."""
    with open(folder / LISTING, "r+", encoding="ascii") as listing:
        entries = [json.loads(line) for line in listing]
        listing.truncate(0)
        listing.seek(0)
        for entry in entries:
            if "sha256" in entry and (folder / CONTENT / entry["path"]).exists():
                entry["sha256"], entry["size"] = sha256_of(folder / CONTENT / entry["path"])
                listing.write(json.dumps(entry) + "\n")
    return replace(record, digests={content.DIGEST: content.digest_of_listing(folder / LISTING)})


def break_index(directory: Path) -> None:
    """An index that lacks the rows that it should have: SQLite's quick check and every query by rowid go on well."""
    with closing(sqlite3.connect(directory / layout.DATABASE)) as database, database:
        database.execute("pragma writable_schema=on")
        changed = database.execute(
            "update sqlite_master set sql = replace(sql, 'int_value IS NOT NULL', 'int_value IS NULL') "
            "where name = 'embedding_metadata_int_value'"
        )
        assert changed.rowcount == 1


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder / CONTENT)): path.stat().st_ino for path in (folder / CONTENT).rglob("*") if path.is_file()}


def write_to(directory: Path, wait_s: float) -> None:
    """Write something to the SQLite file, waiting for its lock."""
    with closing(sqlite3.connect(directory / layout.DATABASE, timeout=wait_s)) as connection, connection:
        connection.execute("insert into maintenance_log values (null, 1, 'test')")


@contextmanager
def locked_by_another(directory: Path) -> Iterator[int]:
    """The pid of a process that keeps the lock. In this one, the next close of the file would drop it (fcntl(2))."""
    code = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60); c.execute('begin immediate'); "
    code += "print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, directory / layout.DATABASE], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.kill()

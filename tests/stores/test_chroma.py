"""A Chroma directory that is backed up, verified, proven by Chroma itself and restored. Real directories, real clients."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores.chroma import catalogue, checking, index, layout, proof
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.dumping import CONTENT
from tests.harness.chroma import Keeper, execute, read_whole, running

_TWO = """
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

_HOSTILE = """
odd = collection("odd", space="ip")
texts = ["quotes ' \\" `", "emoji \U0001f4da", "x" * 10240, "", "line\\nbreak\\ttab", "null\\\\u0000", "[]{}", "chroma:document"]
odd.add(
    ids=["'; drop table embeddings; --", '"', "\U0001f4da", "i" * 2000, "Ä", "label_to_id", "a\\nb", " "],
    embeddings=vectors(8, 5, 3) * 1e30,
    documents=texts,
    metadatas=[
        {"s": "'", "i": -(2**63), "f": 0.1, "b": True},
        {"s": "", "i": 2**63 - 1, "f": 1e308, "b": False},
        {"f": 1.0, "i": 1},
        {"f": -0.0, "f2": 5e-324},
        {"\U0001f4da": "key", "'": "quote"},
        None,
        {"tags": ["b", "a", "b"], "numbers": [3, 1], "floats": [1.0, 0.5], "truths": [True, False]},
        {"long": "y" * 10240},
    ],
)
odd.add(ids=["bare"], embeddings=vectors(1, 5, 4))
odd.add(ids=["uri"], embeddings=vectors(1, 5, 5), uris=["file:///x"], metadatas=[{"k": "v"}])
odd.update(ids=["a\\nb"], metadatas=[{"tags": "one", "numbers": [9]}])
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two") / "store"
    execute(directory, _TWO)
    return directory


@pytest.fixture
def live(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "store"))


@pytest.fixture
def keeper(live: Path, tmp_path: Path) -> Keeper:
    return Keeper(live, tmp_path / "room")


def test_a_set_holds_what_chroma_answers(keeper: Keeper) -> None:
    folder, record, dumped = keeper.backup()
    assert dict(record.counts) == {"empty": 0, "notes": 700, "papers": 2499}
    assert dumped.klass == "locked-copy"
    keeper.verify(folder, record)
    assert keeper.prove(folder, record)


def test_hostile_documents_and_metadata_are_read_as_chroma_reads_them(tmp_path: Path) -> None:
    execute(tmp_path / "store", _HOSTILE)
    keeper = Keeper(tmp_path / "store", tmp_path / "room")
    folder, record, _ = keeper.backup()
    assert dict(record.counts) == {"odd": 10}
    assert keeper.prove(folder, record)


def test_other_tenants_and_databases_are_named_in_full(tmp_path: Path) -> None:
    execute(
        tmp_path / "store",
        """
        load(collection("papers"), 10, 4)
        admin = chromadb.AdminClient(client._system.settings)
        admin.create_tenant("acme")
        admin.create_database("books", tenant="acme")
        client = chromadb.PersistentClient(sys.argv[1], settings=settings, tenant="acme", database="books")
        load(collection("papers"), 30, 4)
        """,
    )
    keeper = Keeper(tmp_path / "store", tmp_path / "room")
    folder, record, _ = keeper.backup()
    assert dict(record.counts) == {"papers": 10, "acme/books/papers": 30}
    assert keeper.prove(folder, record)


def test_operations_that_only_the_queue_holds_are_counted_and_proven(live: Path, keeper: Keeper) -> None:
    """Chroma acknowledges what is in its queue; a backup may fall between that and the tables."""
    before = read_whole(live)
    _enqueue(live, "papers", [(0, "late", {"n": 1}), (0, "fresh", {"ignored": 1}), (3, "chunk-0000009", {}), (1, "nobody", {"n": 1})])
    _enqueue(
        live,
        "papers",
        [(2, "chunk-0000010", {"page": None, "new": 0.5}), (1, "late", {"m": True}), (3, "fresh", {}), (0, "fresh", {"again": 1})],
    )
    folder, record, _ = keeper.backup()
    assert record.counts["papers"] == before["papers"][0]  # one more, one less
    assert read_whole(folder / CONTENT)["papers"] != before["papers"]
    assert dict(record.counts) == dict(keeper.store.inspect().counts)
    keeper.verify(folder, record)
    assert keeper.prove(folder, record)


def test_without_the_queue_the_newest_documents_would_look_missing(live: Path) -> None:
    """Control: the tables alone are not the truth."""
    _enqueue(live, "papers", [(0, "late", {"n": 1})])
    assert read_whole(live)["papers"][0] == content_of(live).counts["papers"] == 2500
    with catalogue.open_catalogue(live, sealed=True) as found:
        segment = next(each.metadata for each in found.collections() if each.key == "papers")
        assert segment is not None
        told = found.connection.execute("select count(*) from embeddings where segment_id = ?", (segment.id,)).fetchone()
    assert told == (2499,)


def test_a_directory_with_a_write_ahead_log_is_copied_from_a_snapshot(live: Path, keeper: Keeper) -> None:
    writer = sqlite3.connect(live / layout.DATABASE)
    try:
        writer.execute("pragma journal_mode=wal")
        writer.execute("select count(*) from collections").fetchone()  # the last connection to close would fold the log in
        _enqueue(live, "papers", [(0, "late", {"n": 1})])
        assert (live / f"{layout.DATABASE}-wal").exists()
        folder, record, _ = keeper.backup()
    finally:
        writer.close()
    assert record.counts["papers"] == 2500
    assert keeper.prove(folder, record)


def test_a_transaction_that_a_crash_left_half_done_is_in_no_set(live: Path, keeper: Keeper) -> None:
    expected = read_whole(live)
    _crash_in_transaction(live)
    assert (live / f"{layout.DATABASE}-journal").exists()
    keeper.store.preflight()
    _crash_in_transaction(live)
    folder, record, _ = keeper.backup()
    assert read_whole(folder / CONTENT) == expected
    keeper.verify(folder, record)


def test_unchanged_files_are_hard_links_and_changed_ones_are_not(live: Path, keeper: Keeper) -> None:
    _settle(live)
    first, _, _ = keeper.backup()
    second, _, _ = keeper.backup()
    assert _inodes(first) == _inodes(second)
    _enqueue(live, "papers", [(0, "late", {"n": 1})])
    third, record, _ = keeper.backup()
    changed = [path for path, inode in _inodes(third).items() if inode != _inodes(second)[path]]
    assert changed == [layout.DATABASE]
    assert keeper.prove(third, record)


def test_bytes_changed_behind_an_unchanged_size_and_time_are_not_linked(live: Path, keeper: Keeper) -> None:
    _settle(live)
    first, _, _ = keeper.backup()
    path = next(live.glob(f"*/{layout.VECTORS}"))
    times = path.stat()
    _flip(path, 200)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second, _, _ = keeper.backup()
    name = str(path.relative_to(live))
    assert _inodes(first)[name] != _inodes(second)[name]


# --- What would not restore ------------------------------------------------------------------------------------------

Damage = Callable[[Path], object]
_DAMAGES: dict[str, Damage] = {
    "missing pickle": lambda segment: (segment / layout.PICKLE).unlink(),
    "missing header": lambda segment: (segment / layout.HEADER).unlink(),
    "missing segment directory": shutil.rmtree,
    "truncated link_lists": lambda segment: os.truncate(segment / layout.LINKS, (segment / layout.LINKS).stat().st_size - 4),
    "empty link_lists": lambda segment: os.truncate(segment / layout.LINKS, 0),
    "truncated vectors": lambda segment: os.truncate(segment / layout.VECTORS, (segment / layout.VECTORS).stat().st_size - 1),
    "truncated lengths": lambda segment: os.truncate(segment / layout.LENGTHS, 4),
    "truncated pickle": lambda segment: os.truncate(segment / layout.PICKLE, (segment / layout.PICKLE).stat().st_size - 1),
    "half a pickle": lambda segment: os.truncate(segment / layout.PICKLE, (segment / layout.PICKLE).stat().st_size // 2),
    "another pickle": lambda segment: (segment / layout.PICKLE).write_bytes(b"\x80\x03cos\nsystem\nX\x04\x00\x00\x00trueR."),
    "truncated database": lambda segment: os.truncate(segment.parent / layout.DATABASE, 8192),
    "missing database": lambda segment: (segment.parent / layout.DATABASE).unlink(),
}


@pytest.fixture(scope="module")
def kept(two: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Keeper, Path]:
    keeper = Keeper(two, tmp_path_factory.mktemp("kept"))
    folder, record, _ = keeper.backup()
    keeper.verify(folder, record)
    return keeper, folder


@pytest.mark.parametrize("damage", _DAMAGES)
def test_verify_finds_damage_even_when_the_listing_was_made_anew(damage: str, kept: tuple[Keeper, Path], tmp_path: Path) -> None:
    copy = _writable(kept[1], tmp_path / "set")
    _DAMAGES[damage](_segment(copy / CONTENT, "papers"))
    with pytest.raises(Failed):
        checking.check(copy / CONTENT)


def test_sqlite_and_counts_notice_none_of_the_damage_to_the_index(kept: tuple[Keeper, Path], tmp_path: Path) -> None:
    """Control: with the segment directory gone SQLite says ok, and Chroma still counts every document."""
    _, folder = kept
    copy = _writable(folder, tmp_path / "set") / CONTENT
    shutil.rmtree(_segment(copy, "papers"))
    database = sqlite3.connect(copy / layout.DATABASE)
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()
    assert execute(copy, "say(client.get_collection('papers', embedding_function=None).count())") == [2499]


def test_prove_finds_a_bit_flipped_in_a_vector_that_chroma_does_not_notice(kept: tuple[Keeper, Path], tmp_path: Path) -> None:
    folder = kept[1]
    copy = _writable(folder, tmp_path / "set")
    segment = _segment(copy / CONTENT, "papers")
    header = index.read_header(segment)
    _flip(segment / layout.VECTORS, 100 * header.element_bytes + header.data_offset)
    expected = checking.check(copy / CONTENT)  # sizes are right: sha256 or a proof finds it
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = proof.prove(copy / CONTENT, scratch, None)
    assert found.counts == expected
    assert found.digests != content_of(folder / CONTENT).digests


def test_a_document_without_its_vector_is_never_backed_up_as_whole(live: Path, keeper: Keeper) -> None:
    with sqlite3.connect(live / layout.DATABASE) as database:
        database.execute(
            "insert into embeddings (segment_id, embedding_id, seq_id) "
            "select segment_id, 'stray', 1 from embeddings where embedding_id = 'fresh'"
        )
    database.close()
    with pytest.raises(Failed, match="'stray' has no vector"):
        keeper.backup()
    assert execute(live, "say(client.get_collection('papers', embedding_function=None).count())") == [2500]  # Chroma says nothing


# --- What cannot be proven -------------------------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "proof").mkdir()
    return tmp_path / "proof"


def test_an_interpreter_without_chromadb_is_unknown_and_says_what_to_declare(kept: tuple[Keeper, Path], scratch: Path) -> None:
    with pytest.raises(Unknown) as raised:
        proof.prove(kept[1] / CONTENT, scratch, Path("/usr/bin/python3"))
    assert raised.value.next is not None
    assert "python:" in raised.value.next


def test_a_missing_interpreter_is_unknown(kept: tuple[Keeper, Path], scratch: Path) -> None:
    with pytest.raises(Unknown, match="could not be started"):
        proof.prove(kept[1] / CONTENT, scratch, scratch / "nosuch")


@pytest.mark.parametrize(
    ("words", "said"), [("exit 7", "ended with 7"), ("kill -SEGV $$", "killed by signal 11"), ("exec sleep 600", "did not answer")]
)
def test_a_reader_that_crashes_or_hangs_is_a_failure(words: str, said: str, kept: tuple[Keeper, Path], scratch: Path) -> None:
    program = scratch / "python"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)
    with pytest.raises(Failed, match=said):
        proof.prove(kept[1] / CONTENT, scratch, program, patience_s=0.5)


def test_a_set_from_a_newer_chroma_is_not_proven_by_an_older_one(kept: tuple[Keeper, Path], tmp_path: Path, scratch: Path) -> None:
    copy = _writable(kept[1], tmp_path / "set") / CONTENT
    _migrate_ahead(copy)
    with pytest.raises(Unknown, match=r"sysdb 11.*knows.*sysdb 10"):
        proof.prove(copy, scratch, Path(sys.executable))
    assert execute(copy, "say(len(client.list_collections()))") == [3]  # control: it opens silently


# --- What is refused -------------------------------------------------------------------------------------------------


def test_a_restore_is_refused_while_a_process_has_the_directory_open_and_names_it(live: Path, tmp_path: Path) -> None:
    keeper = Keeper(live, tmp_path / "room")
    folder, record, _ = keeper.backup()
    with running(live, "say(collection('papers').count()); time.sleep(600)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Refused, match=f"pid {process.pid} "):
            keeper.store.foresee(folder, record, None)
        vouched = Keeper(live, tmp_path / "room", nobody_uses=True)  # which is for what cannot be seen
        with pytest.raises(Refused, match=f"pid {process.pid} "):
            vouched.store.foresee(folder, record, None)
    assert keeper.store.foresee(folder, record, None).counts_after == record.counts


def test_a_newer_directory_is_warned_of_at_backup_and_refused_at_restore(live: Path, two: Path, tmp_path: Path) -> None:
    newer = Keeper(live, tmp_path / "room")
    _migrate_ahead(live)
    assert [each.severity.value for each in newer.store.preflight()] == ["warning"]
    folder, record, dumped = newer.backup()
    assert len(dumped.problems) == 1
    assert newer.store.foresee(folder, record, None).counts_now == record.counts  # the live one is as new
    older = Keeper(Path(shutil.copytree(two, tmp_path / "older")), tmp_path / "room")
    with pytest.raises(Refused, match=r"sysdb 11.*the live directory has.*sysdb 10"):
        older.store.foresee(folder, record, None)
    absent = Keeper(tmp_path / "absent", tmp_path / "room")
    with pytest.raises(Refused, match=r"sysdb 11.*chromadb 1.5.9 knows.*sysdb 10"):
        absent.store.foresee(folder, record, None)


def test_absent_empty_and_unreadable_are_three_things(live: Path, tmp_path: Path) -> None:
    def store(path: Path) -> Keeper:
        return Keeper(path, tmp_path / "room")

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert store(tmp_path / "nosuch").store.is_absent()
    assert store(tmp_path / "empty").store.is_absent()
    assert not store(live).store.is_absent()
    with pytest.raises(Unknown):
        store(tmp_path / "file").store.is_absent()
    (live / layout.DATABASE).write_bytes(b"not a database at all" * 100)
    assert not store(live).store.is_absent()
    with pytest.raises(Unknown):
        store(live).store.inspect()
    with pytest.raises(Failed):
        store(live).store.preflight()
    with pytest.raises(Failed):
        store(tmp_path / "nosuch").store.preflight()


def test_another_sqlite_file_is_no_chroma_directory(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with sqlite3.connect(tmp_path / "store" / layout.DATABASE) as database:
        database.execute("create table documents (id)")
    database.close()
    with pytest.raises(Failed, match="no Chroma database"):
        Keeper(tmp_path / "store", tmp_path / "room").store.preflight()


def test_a_directory_behind_a_link_is_refused_with_the_path_to_declare(live: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(live)
    with pytest.raises(Refused) as raised:
        Keeper(link, tmp_path / "room").store.preflight()
    assert raised.value.next == f"declare `path: {live}`"


def test_a_link_or_a_pipe_in_the_directory_fails_the_backup(live: Path, keeper: Keeper) -> None:
    os.mkfifo(live / "pipe")
    with pytest.raises(Failed, match="pipe, which is neither"):
        keeper.backup()


def _enqueue(directory: Path, name: str, operations: list[tuple[int, str, dict[str, object]]]) -> None:
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


def _crash_in_transaction(directory: Path) -> None:
    """A process dies after it has changed the file and before it has committed."""
    code = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    code += "c.execute('pragma cache_size=2'); c.execute('delete from embeddings'); os._exit(0)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(directory / layout.DATABASE)]) == 0


def _migrate_ahead(directory: Path) -> None:
    with sqlite3.connect(directory / layout.DATABASE) as database:
        database.execute("insert into migrations values ('sysdb', 11, '00011-future.sqlite.sql', 'select 1', 'x')")
    database.close()


def _settle(directory: Path) -> None:
    """Wait until the clock that stamps files has moved on since the last write."""
    while not all(entry.settled for entry in layout.scan(directory).values()):
        pass


def _segment(directory: Path, name: str) -> Path:
    with catalogue.open_catalogue(directory, sealed=True) as found:
        segment = next(each.vectors for each in found.collections() if each.key == name)
    assert segment is not None
    return directory / segment.id


def _writable(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    for path in target.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


def _flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def _inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder / CONTENT)): path.stat().st_ino for path in (folder / CONTENT).rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _no_work_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.glob("room/work-*/*")) == []

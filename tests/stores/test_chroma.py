"""A Chroma directory that is backed up, verified, proven by Chroma itself and restored. Real directories, real clients."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores.chroma import catalogue, layout
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.dumping import CONTENT
from tests.harness.chroma import Keeper, execute, read_whole, running
from tests.harness.chroma_files import crash_in_transaction, enqueue, inodes, migrate_ahead, settle
from tests.harness.damage import flip

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
    enqueue(live, "papers", [(0, "late", {"n": 1}), (0, "fresh", {"ignored": 1}), (3, "chunk-0000009", {}), (1, "nobody", {"n": 1})])
    enqueue(
        live,
        "papers",
        [(2, "chunk-0000010", {"page": None, "new": 0.5}), (1, "late", {"m": True}), (3, "fresh", {}), (0, "fresh", {"again": 1})],
    )
    folder, record, _ = keeper.backup()
    assert record.counts["papers"] == before["papers"][0]  # one more, one less
    assert read_whole(folder / CONTENT)["papers"] != before["papers"]
    assert dict(record.counts) == dict(keeper.store.inspect().counts)
    assert dict(record.counts) == {name: count for name, (count, _) in read_whole(folder / CONTENT).items()}
    keeper.verify(folder, record)
    assert keeper.prove(folder, record)


def test_without_the_queue_the_newest_documents_would_look_missing(live: Path) -> None:
    """Control: the tables alone are not the truth."""
    enqueue(live, "papers", [(0, "late", {"n": 1})])
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
        enqueue(live, "papers", [(0, "late", {"n": 1})])
        assert (live / f"{layout.DATABASE}-wal").exists()
        folder, record, _ = keeper.backup()
    finally:
        writer.close()
    assert record.counts["papers"] == 2500
    assert keeper.prove(folder, record)


def test_a_transaction_that_a_crash_left_half_done_is_in_no_set(live: Path, keeper: Keeper) -> None:
    expected = read_whole(live)
    crash_in_transaction(live)
    assert (live / f"{layout.DATABASE}-journal").exists()
    keeper.store.preflight()
    crash_in_transaction(live)
    folder, record, _ = keeper.backup()
    assert read_whole(folder / CONTENT) == expected
    keeper.verify(folder, record)


def test_unchanged_files_are_hard_links_and_changed_ones_are_not(live: Path, keeper: Keeper) -> None:
    settle(live)
    first, _, _ = keeper.backup()
    second, _, _ = keeper.backup()
    assert inodes(first) == inodes(second)
    enqueue(live, "papers", [(0, "late", {"n": 1})])
    third, record, _ = keeper.backup()
    changed = [path for path, inode in inodes(third).items() if inode != inodes(second)[path]]
    assert changed == [layout.DATABASE]
    assert keeper.prove(third, record)


def test_bytes_changed_behind_an_unchanged_size_and_time_are_not_linked(live: Path, keeper: Keeper) -> None:
    settle(live)
    first, _, _ = keeper.backup()
    path = next(live.glob(f"*/{layout.VECTORS}"))
    times = path.stat()
    flip(path, 200)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second, _, _ = keeper.backup()
    name = str(path.relative_to(live))
    assert inodes(first)[name] != inodes(second)[name]


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
    migrate_ahead(live)
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


@pytest.fixture(autouse=True)
def _no_work_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.glob("room/work-*/*")) == []

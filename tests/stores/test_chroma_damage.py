"""Chroma directories that would not restore: none of them is backed up as whole, and none is verified."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.chroma import checking, layout
from storekeeper.stores.chroma.checking import DatabaseCheck
from storekeeper.stores.chroma.dumping import CONTENT, LISTING
from storekeeper.stores.chroma.hold import ChromaHold
from storekeeper.stores.record import StoreRecord
from tests.harness.chroma import Keeper, execute, read_whole
from tests.harness.chroma_files import break_index, enqueue, relist, segment_of, settle, writable


@pytest.fixture(scope="module")
def kept(two: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Keeper, Path, StoreRecord]:
    keeper = Keeper(two, tmp_path_factory.mktemp("kept"))
    folder, record, _ = keeper.backup()
    keeper.verify(folder, record)
    return keeper, folder, record


def _truncate(name: str, less: int) -> Callable[[Path], object]:
    return lambda segment: os.truncate(segment / name, (segment / name).stat().st_size - less)


def _sql(statement: str) -> Callable[[Path], object]:
    def change(segment: Path) -> None:
        with closing(sqlite3.connect(segment.parent / layout.DATABASE)) as database, database:
            assert database.execute(statement).rowcount == 1

    return change


_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pickle": (lambda segment: (segment / layout.PICKLE).unlink(), "index_metadata.pickle is missing"),
    "missing header": (lambda segment: (segment / layout.HEADER).unlink(), "header.bin is missing"),
    "missing vectors": (lambda segment: (segment / layout.VECTORS).unlink(), "data_level0.bin is missing"),
    "missing segment directory": (shutil.rmtree, "is missing"),
    "truncated header": (_truncate(layout.HEADER, 1), "header.bin does not have 100 bytes"),
    "header of another": (lambda segment: (segment / layout.HEADER).write_bytes(b"\1" * 100), "header.bin makes no sense"),
    "truncated link_lists": (_truncate(layout.LINKS, 4), "link_lists.bin"),
    "empty link_lists": (lambda segment: os.truncate(segment / layout.LINKS, 0), "link_lists.bin ends early"),
    "truncated vectors": (_truncate(layout.VECTORS, 1), "data_level0.bin has"),
    "truncated lengths": (_truncate(layout.LENGTHS, 4), "length.bin has"),
    "truncated pickle": (_truncate(layout.PICKLE, 1), "index_metadata.pickle cannot be read: it ends early"),
    "half a pickle": (_truncate(layout.PICKLE, 40_000), "index_metadata.pickle cannot be read: it ends early"),
    "another pickle": (
        lambda segment: (segment / layout.PICKLE).write_bytes(b"\x80\x03cos\nsystem\nX\x04\x00\x00\x00trueR."),
        "holds the code 0x63",
    ),
    "another dimension": (_sql("update collections set dimension = 17 where name = 'papers'"), "have 16 numbers, 17 are declared"),
    "broken index": (lambda segment: break_index(segment.parent), "chroma.sqlite3 is damaged: .*index embedding_metadata_int_value"),
    "truncated database": (lambda segment: os.truncate(segment.parent / layout.DATABASE, 8192), "chroma.sqlite3 is damaged"),
    "missing database": (lambda segment: (segment.parent / layout.DATABASE).unlink(), "has no chroma.sqlite3"),
}


@pytest.mark.fault("B7")
@pytest.mark.parametrize("damage", _DAMAGES)
def test_verify_finds_damage_even_when_the_listing_was_made_anew(
    damage: str, kept: tuple[Keeper, Path, StoreRecord], tmp_path: Path
) -> None:
    keeper, folder, record = kept
    copy = writable(folder, tmp_path / "set")
    change, said = _DAMAGES[damage]
    change(segment_of(copy / CONTENT, "papers"))
    with pytest.raises(Failed, match=said):
        keeper.verify(copy, relist(copy, record))


def test_a_listing_of_other_files_and_other_counts_are_not_verified(kept: tuple[Keeper, Path, StoreRecord], tmp_path: Path) -> None:
    keeper, folder, record = kept
    with pytest.raises(Failed, match="the manifest says"):
        keeper.verify(folder, replace(record, counts={**record.counts, "papers": 2498}))
    copy = writable(folder, tmp_path / "set")
    keeper.verify(copy, relist(copy, record))  # control
    (copy / LISTING).write_bytes(b"".join((folder / LISTING).read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(Failed, match="lists other files"):
        keeper.verify(copy, record)


@pytest.mark.control("B7")
def test_sqlite_and_counts_notice_none_of_the_damage_to_the_index(kept: tuple[Keeper, Path, StoreRecord], tmp_path: Path) -> None:
    """Control: with the segment directory gone SQLite says ok, and Chroma still counts every document."""
    copy = writable(kept[1], tmp_path / "set") / CONTENT
    shutil.rmtree(segment_of(copy, "papers"))
    with closing(sqlite3.connect(copy / layout.DATABASE)) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    assert execute(copy, "say(client.get_collection('papers', embedding_function=None).count())") == [2499]


# --- Documents without vectors ---------------------------------------------------------------------------------------


def _add_stray(directory: Path) -> None:
    with closing(sqlite3.connect(directory / layout.DATABASE)) as database, database:
        database.execute(
            "insert into embeddings (segment_id, embedding_id, seq_id) "
            "select segment_id, 'stray', 1 from embeddings where embedding_id = 'fresh'"
        )


def test_a_document_without_its_vector_is_never_backed_up_as_whole(live: Path, keeper: Keeper) -> None:
    _add_stray(live)
    with pytest.raises(Failed, match="'stray' has no vector"):
        keeper.backup()
    assert execute(live, "say(client.get_collection('papers', embedding_function=None).count())") == [2500]  # Chroma says nothing


def test_a_vector_that_only_the_queue_has_counts_and_one_that_it_deletes_does_not(live: Path) -> None:
    expected = checking.check(live)
    _add_stray(live)
    enqueue(live, "papers", [(2, "stray", {})])
    assert checking.check(live) == {**expected, "papers": 2500}
    enqueue(live, "papers", [(3, "stray", {}), (3, "chunk-0000010", {}), (0, "chunk-0000010", {})])
    assert checking.check(live) == expected
    assert checking.check(live) == {name: count for name, (count, _) in read_whole(live).items()}


def test_a_document_without_a_vector_behind_a_vector_without_a_document_is_left_to_the_proof(live: Path, keeper: Keeper) -> None:
    """Vectors are counted, because reading them all took 7 times as long as a plain copy. A proof looks each one up."""
    _add_stray(live)
    with closing(sqlite3.connect(live / layout.DATABASE)) as database, database:
        database.execute("delete from embeddings where embedding_id = 'chunk-0000010' and segment_id = "
                         "(select segment_id from embeddings where embedding_id = 'stray')")  # fmt: skip
    folder, record, _ = keeper.backup()
    keeper.verify(folder, record)
    with pytest.raises(Failed, match=r"collection papers: document 'stray' has no vector|Chroma cannot read|does not answer"):
        keeper.prove(folder, record)


# --- SQLite's check, beside everything else --------------------------------------------------------------------------


def test_a_broken_index_fails_the_backup_that_has_just_copied_it(live: Path, keeper: Keeper) -> None:
    break_index(live)
    settle(live)
    folder, record, _ = keeper.backup()
    with pytest.raises(Failed, match="embedding_metadata_int_value"):
        keeper.store.verify(folder, record)  # which is what publishing does with every set before it has a name
    with closing(sqlite3.connect(live / layout.DATABASE)) as database:
        assert database.execute("pragma quick_check").fetchone() == ("ok",)  # control


def test_what_was_checked_while_it_was_written_is_checked_once(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record, _ = keeper.backup()
    checked: list[Path] = []
    monkeypatch.setattr(checking, "check", lambda directory: checked.append(directory) or dict(record.counts))
    keeper.store.verify(folder, record)
    assert checked == []
    keeper.store.verify(folder, record)
    keeper.verify(folder, record)
    assert checked == [folder / CONTENT] * 2, "only what was written a moment ago, by this very run"


@pytest.fixture
def hold(live: Path, tmp_path: Path) -> ChromaHold:
    (tmp_path / "work").mkdir()
    return ChromaHold(live, tmp_path / "work")


def _take(hold: ChromaHold) -> None:
    hold.pin()
    hold.copy()
    hold.release()
    hold.finish()


def test_a_database_that_changed_since_the_first_pass_is_checked_anew(live: Path, hold: ChromaHold) -> None:
    settle(live)
    try:
        hold.prepare()
        first = hold._check
        assert first is not None
        first.result()  # it was whole then
        break_index(live)
        _take(hold)
        assert layout.DATABASE not in hold.sums, "nor is its sum of then to be used"
        second = hold.database_check()
        assert second is not first
        with pytest.raises(Failed, match="embedding_metadata_int_value"):
            second.result()
        second.stop()
    finally:
        hold.close()


def test_a_database_at_rest_is_checked_from_the_first_pass_on(live: Path, hold: ChromaHold) -> None:
    settle(live)
    try:
        hold.prepare()
        first = hold._check
        _take(hold)
        assert hold.database_check() is first
        assert first is not None
        first.result()
        first.stop()
        assert set(hold.sums) == {path for path, entry in hold.found.items() if entry.is_file}
    finally:
        hold.close()


def test_a_hold_that_is_closed_early_stops_its_check(live: Path, hold: ChromaHold) -> None:
    settle(live)
    hold.prepare()
    check = hold._check
    assert check is not None
    hold.close()
    assert not check._thread.is_alive()


def test_a_check_that_is_given_up_ends_soon(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = databases.open_sealed

    def slow(path: Path) -> sqlite3.Connection:
        connection = opened(path)
        connection.set_progress_handler(lambda: time.sleep(0.01), 10)  # the whole check would take minutes
        return connection

    monkeypatch.setattr(databases, "open_sealed", slow)
    check = DatabaseCheck(two)
    time.sleep(0.1)
    assert check._thread.is_alive()
    check.stop()
    assert not check._thread.is_alive()
    with pytest.raises(Failed, match="interrupted"):
        check.result()
    check.stop()

"""A damaged SQLite file is made anew: every row that can be read is there, none is invented, and what is lost is counted."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores import rawcopy
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Rescued
from storekeeper.stores.sqlite import rawfiles
from tests.harness import damaged
from tests.harness import sqlite as lab

SHAPES: list[dict[str, object]] = [{}, {"encoding": "UTF-16le"}, {"page_size": 1024}, {"auto_vacuum": 1}, {"journal_mode": "wal"}]


@pytest.fixture(params=SHAPES, ids=str)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return damaged.make(tmp_path / "whole.db", **request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return damaged.make(tmp_path / "whole.db")


def rescue(live: Path, room: Path) -> tuple[Rescued, Path]:
    folder, work = room / "rescued", room / "work"
    for path in (folder, work):
        path.mkdir(mode=0o700)
    before = live.read_bytes()
    found = lab.store_at(live, room).rescue(StoreFolder(folder, None, lambda _: None), work)
    assert live.read_bytes() == before
    assert list(work.iterdir()) == []
    return found, folder / "database.sqlite"


def check(found: Rescued, made: Path, whole: Path) -> dict[str, int]:
    """What was made is sound, holds no row that there never was, and its account of what is missing is right; returns that."""
    assert lab.ask(made, "pragma integrity_check") == [("ok",)]
    schema = "select type, name, tbl_name, sql from sqlite_master order by 1, 2"
    assert lab.ask(made, schema) == lab.ask(whole, schema)
    before, after = damaged.rows(whole), damaged.rows(made)
    missing = {name: (before[name] - after[name]).total() for name in before}
    for name, table in found.tables.items():
        if name in before:
            assert not after[name] - before[name], f"{name} has rows that it never had"
            assert table.rows == after[name].total()
            assert table.lost in (None, missing[name] - table.refused), f"{name} has lost {missing[name]}"
    return missing


@pytest.mark.fault("B6")
def test_a_page_in_the_middle_of_a_table_costs_the_rows_on_it_and_no_other(whole: Path, tmp_path: Path) -> None:
    leaves = damaged.pages_of(whole, "documents", "leaf")
    for name, seed in (("zeros", None), ("noise", 3)):
        room = tmp_path / name
        room.mkdir()
        bad = damaged.overwrite(damaged.copied(whole, room / "bad.db"), leaves[len(leaves) // 2], leaves[-2], seed=seed)
        found, made = rescue(bad, room)
        missing = check(found, made, whole)
        assert found.damages
        assert 0 < missing["documents"] < 3 * damaged.DOCUMENTS / len(leaves) + 2
        assert {name for name, count in missing.items() if count} == {"documents"}
        assert found.tables["documents"].lost == missing["documents"], "counted by an index that is whole"
        assert found.tables["documents"].pages == 2


@pytest.mark.control("B6")
def test_control_a_dump_of_the_same_file_loses_every_row_behind_the_page(plain: Path, tmp_path: Path) -> None:
    leaves = damaged.pages_of(plain, "documents", "leaf")
    bad = damaged.overwrite(damaged.copied(plain, tmp_path / "bad.db"), leaves[len(leaves) // 2])
    read: list[str] = []
    with closing(sqlite3.connect(bad)) as connection, pytest.raises(sqlite3.DatabaseError, match="malformed"):
        read.extend(connection.iterdump())
    documents = sum(line.startswith('INSERT INTO "documents"') for line in read)
    assert 0 < documents < 0.7 * damaged.DOCUMENTS


@pytest.mark.fault("B6")
def test_pages_of_indexes_cost_no_row(whole: Path, tmp_path: Path) -> None:
    numbers = damaged.pages_of(whole, "by_user") + damaged.pages_of(whole, "sqlite_autoindex_documents_1")[:1]
    bad = damaged.overwrite(damaged.copied(whole, tmp_path / "bad.db"), *numbers)
    found, made = rescue(bad, tmp_path)
    assert not any(check(found, made, whole).values())
    assert lab.ask(made, "select count(*) from documents indexed by by_user where user_id = 7") == [(8,)]


@pytest.mark.fault("B6")
@pytest.mark.parametrize("table", ["documents", "notes"])
def test_a_page_that_leads_to_all_others_costs_no_row_of_a_table_with_rowids(whole: Path, tmp_path: Path, table: str) -> None:
    bad = damaged.overwrite(damaged.copied(whole, tmp_path / "bad.db"), *damaged.pages_of(whole, table, "internal"))
    found, made = rescue(bad, tmp_path)
    assert not any(check(found, made, whole).values())
    assert found.tables[table].lost in (0, None), "without an index nobody can tell that nothing is lost"


@pytest.mark.fault("B6")
def test_pages_that_two_tables_may_have_lost_go_to_neither(tmp_path: Path) -> None:
    whole = tmp_path / "twins.db"
    with closing(sqlite3.connect(whole)) as connection, connection:
        for name in ("one", "two"):
            connection.execute(f"create table {name} (a, b)")
            connection.executemany(f"insert into {name} values (?, ?)", ((f"{name} {n}", "x" * 100) for n in range(1000)))
    bad = damaged.copied(whole, tmp_path / "bad.db")
    damaged.overwrite(bad, *damaged.pages_of(whole, "one", "internal"), *damaged.pages_of(whole, "two", "internal"))
    found, made = rescue(bad, tmp_path)
    assert found.unplaced == 2000
    assert lab.ask(made, "select count(*) from one union all select count(*) from two") == [(0,), (0,)]
    assert [each.lost for each in found.tables.values()] == [None, None]


@pytest.mark.fault("B6")
def test_rows_that_were_deleted_do_not_come_back_and_are_left_where_nobody_can_tell(plain: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(plain)) as connection, connection:
        connection.execute("pragma secure_delete=off")  # else Debian's SQLite writes zeros over what is deleted
        connection.execute("delete from documents where rowid < 3000")
    bad = damaged.overwrite(damaged.copied(plain, tmp_path / "bad.db"), *damaged.pages_of(plain, "documents", "internal"))
    found, made = rescue(bad, tmp_path)
    assert not any(check(found, made, plain).values())
    trunk = int.from_bytes(bad.read_bytes()[32:36], "big")
    other = tmp_path / "other"
    other.mkdir()
    worse = damaged.overwrite(damaged.copied(bad, other / "worse.db"), trunk, seed=1)
    found, made = rescue(worse, other)
    check(found, made, plain)
    assert "they may hold what was deleted" in found.notes[0]


@pytest.mark.fault("B6")
def test_a_table_without_rowids_and_a_full_text_index_are_made_anew(whole: Path, tmp_path: Path) -> None:
    leaves = damaged.pages_of(whole, "pairs", "leaf")
    numbers = [leaves[3], *damaged.pages_of(whole, "words_data"), *damaged.pages_of(whole, "words_idx")]
    found, made = rescue(damaged.overwrite(damaged.copied(whole, tmp_path / "bad.db"), *numbers), tmp_path)
    missing = check(found, made, whole)
    assert 0 < missing["pairs"] < 600
    assert missing["words"] == 0
    assert lab.ask(made, "select count(*) from words where words match 'word77'") == [(1,)]
    assert lab.ask(made, "select count(*) from users where name = 'by a trigger'") == [(0,)]


@pytest.mark.fault("B6")
def test_a_file_that_is_cut_keeps_what_stands_before_the_cut(whole: Path, tmp_path: Path) -> None:
    bad = damaged.copied(whole, tmp_path / "bad.db")
    with open(bad, "r+b") as file:
        file.truncate(whole.stat().st_size * 2 // 3 - 100)
    with closing(sqlite3.connect(bad)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("select count(*) from users").fetchone()  # no SQLite even opens it
    found, made = rescue(bad, tmp_path)
    missing = check(found, made, whole)
    assert "it ends after" in found.damages[0]
    assert missing["documents"] < damaged.DOCUMENTS


@pytest.mark.fault("B6")
def test_what_stands_only_in_the_log_is_rescued_too(plain: Path, tmp_path: Path) -> None:
    lab.tell(plain, "pragma journal_mode=wal")
    leaf = damaged.pages_of(plain, "documents", "leaf")[20]
    with closing(sqlite3.connect(plain, isolation_level=None)) as connection:
        connection.execute("pragma wal_autocheckpoint=0")
        connection.execute("insert into users (name) values ('in the log')")
        for suffix in ("", "-wal"):
            damaged.copied(Path(f"{plain}{suffix}"), tmp_path / f"bad.db{suffix}")
    found, made = rescue(damaged.overwrite(tmp_path / "bad.db", leaf), tmp_path)
    assert lab.ask(made, "select count(*) from users where name = 'in the log'") == [(1,)]
    assert found.tables["documents"].lost
    assert found.dumped.details["journal_mode"] == "wal"


@pytest.mark.fault("B6")
def test_one_whose_beginning_is_gone_is_refused(plain: Path, tmp_path: Path) -> None:
    for number, (start, count) in enumerate([(0, 100), (0, 16), (16, 2), (100, 3000)]):
        room = tmp_path / str(number)
        room.mkdir()
        bad = damaged.copied(plain, room / "bad.db")
        with open(bad, "r+b") as file:
            file.seek(start)
            file.write(b"\xff" * count)
        with pytest.raises(Refused, match="cannot be made anew from what is left: its beginning and its schema cannot be read"):
            rescue(bad, room)


def test_one_that_is_whole_is_refused_and_nothing_is_made(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"nothing is wrong with .*whole\.db") as error:
        rescue(whole, tmp_path)
    assert error.value.next == "storekeeper examine tests --store main"
    assert list((tmp_path / "rescued").iterdir()) == []


def test_one_that_is_written_to_all_the_time_is_not_read(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rawcopy.copy_file

    def copy(source: Path, target: Path) -> int:
        size = real(source, target)
        lab.tell(source, "insert into users (name) values ('meanwhile')")
        return size

    monkeypatch.setattr(rawfiles.rawcopy, "copy_file", copy)
    with pytest.raises(Failed, match="was written to while its bytes were copied: stop what uses it"):
        lab.store_at(plain, tmp_path).rescue(StoreFolder(tmp_path, None, lambda _: None), tmp_path)
    assert not (tmp_path / "damaged.sqlite").exists()


@pytest.mark.fault("B6")
def test_whatever_pages_are_lost_no_row_is_invented_and_no_loss_is_hidden(whole: Path, tmp_path: Path) -> None:
    draw, rescued = random.Random(11), 0
    (size,) = lab.ask(whole, "pragma page_size")[0]
    last = whole.stat().st_size // size
    overflow = _overflow(whole)
    for number in range(12):
        room = tmp_path / str(number)
        room.mkdir()
        pages = [page for page in draw.sample(range(2, last), draw.choice([1, 2, 6])) if page not in overflow]
        bad = damaged.overwrite(damaged.copied(whole, room / "bad.db"), *pages, seed=draw.choice([None, number]))
        if pages:
            found, made = rescue(bad, room)
            check(found, made, whole)
            rescued += 1
    assert rescued > 6


def _overflow(path: Path) -> set[int]:
    """Pages that hold the ends of long rows: SQLite has no checksum by which another content could be told."""
    known = {page for name in _trees(path) for page in damaged.pages_of(path, name)}
    (size,) = lab.ask(path, "pragma page_size")[0]
    return set(range(2, path.stat().st_size // size + 1)) - known


def _trees(path: Path) -> list[str]:
    return [name for (name,) in lab.ask(path, "select name from sqlite_master where rootpage > 0")]


@pytest.mark.fault("B6")
def test_a_page_that_was_written_to_the_wrong_place_is_not_believed(plain: Path, tmp_path: Path) -> None:
    leaves, others = damaged.pages_of(plain, "users", "leaf"), damaged.pages_of(plain, "notes", "leaf")
    bad = damaged.copied(plain, tmp_path / "bad.db")
    with open(bad, "r+b") as file:
        file.seek((others[8] - 1) * 4096)
        page = file.read(4096)
        file.seek((leaves[1] - 1) * 4096)
        file.write(page)
    found, made = rescue(bad, tmp_path)
    missing = check(found, made, plain)
    assert 0 < missing["users"] < 300
    assert found.tables["users"].lost is None

"""What is counted, digested and checked in a SQLite file: everything an application stores, whatever it is called and whatever it holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Refused, Severity
from storekeeper.stores import databases
from storekeeper.stores.sqlite import contents
from tests.harness import sqlite as lab
from tests.harness.proving import content_of_copy
from tests.stores import walk


def build(path: Path, *statements: str, rows: dict[str, list[tuple]] | None = None) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        for insert, values in (rows or {}).items():
            connection.execute("begin")
            connection.executemany(insert, values)
            connection.execute("commit")
    return path


def digests(path: Path) -> dict[str, str]:
    with closing(databases.open_read_only(path)) as connection:
        return dict(contents.read(connection).digests)


def by_hand(rows: list[tuple]) -> str:
    """The digest as its documentation says, written without looking at the code."""
    out = b""
    for row in rows:
        for value in row:
            if value is None:
                out += b"n0:"
            elif isinstance(value, int):
                out += b"i8:" + value.to_bytes(8, "big", signed=True)
            elif isinstance(value, float):
                out += b"r8:" + struct.pack(">d", value)
            elif isinstance(value, str):
                out += b"t" + str(len(value.encode())).encode() + b":" + value.encode()
            else:
                out += b"b" + str(len(value)).encode() + b":" + value
    return f"sha256:{hashlib.sha256(out).hexdigest()}"


def test_a_digest_can_be_computed_again_from_its_documentation(tmp_path: Path) -> None:
    rows = [
        (1, None, "", b""),
        (2, 1.0, "ä\x00b", b"\x00\xff\x00"),
        (3, -(2**63), "1", b"1"),
        (4, 2**63 - 1, "x" * 70000, os.urandom(70000)),
    ]
    path = build(
        tmp_path / "a.db", "create table t (id integer primary key, a, b text, c blob)", rows={"insert into t values (?, ?, ?, ?)": rows}
    )
    assert digests(path)["t"] == by_hand(rows)


def test_values_that_only_their_type_tells_apart_have_different_digests(tmp_path: Path) -> None:
    found = []
    for number, value in enumerate([1, 1.0, "1", b"1", None, "", b"", "n0:", b"n0:", 0.0, -0.0, "1\x00", float("inf")]):
        path = build(tmp_path / f"{number}.db", "create table t (a)", rows={"insert into t values (?)": [(value,)]})
        found.append(digests(path)["t"])
    assert len(set(found)) == len(found)


def test_rows_are_read_in_the_order_of_the_table_whatever_index_covers_them(tmp_path: Path) -> None:
    rows = [(number, f"{(number * 7919) % 1000:04}") for number in range(1000)]
    insert = {"insert into t values (?, ?)": rows}
    plain = build(tmp_path / "plain.db", "create table t (id integer primary key, a)", rows=insert)
    covered = build(tmp_path / "covered.db", "create table t (id integer primary key, a)", "create index by_a on t (a)", rows=insert)
    assert digests(plain)["t"] == digests(covered)["t"] == by_hand(rows)


def test_a_table_without_rowid_is_read_by_its_primary_key(tmp_path: Path) -> None:
    rows = [("b", 2), ("a", 1), ("c", 3)]
    path = build(
        tmp_path / "a.db",
        "create table t (k text primary key, v) without rowid",
        "create index by_v on t (v desc)",
        rows={"insert into t values (?, ?)": rows},
    )
    assert digests(path)["t"] == by_hand(sorted(rows))
    assert lab.ask(path, "select * from t not indexed") == sorted(rows, key=lambda row: -row[1])  # the control: not by itself
    double = build(
        tmp_path / "b.db",
        "create table t (b, a text collate nocase, c, primary key (a desc, b)) without rowid",
        "create index by_c on t (c)",
        rows={"insert into t values (?, ?, ?)": [(2, "x", 1), (1, "X", 2), (1, "a", 3)]},
    )
    assert digests(double)["t"] == by_hand([(1, "a", 3), (1, "X", 2), (2, "x", 1)])


HOSTILE = ['a"b', "a'b", "a b", "a;drop table t", "--", "select", "ünï", "[x]", "a\nb", "%s{0}?", " "]


def test_hostile_table_and_column_names_are_names(tmp_path: Path) -> None:
    live = tmp_path / "live.db"
    for name in HOSTILE:
        quoted = databases.quoted(name)
        build(live, f"create table {quoted} ({quoted}, rowid, oid, _rowid_)", f"insert into {quoted} values (1, 2, 3, 4)")
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    assert record.counts == dict.fromkeys(sorted(HOSTILE), 1)
    store.verify(folder, record)
    (tmp_path / "scratch").mkdir()
    assert content_of_copy(store, folder, record, tmp_path / "scratch").digests == dict(record.digests)
    assert os.listdir(tmp_path / "scratch") == []


def test_text_that_is_no_utf8_and_blobs_with_nul_survive_a_backup_and_a_restore(tmp_path: Path) -> None:
    live = build(
        tmp_path / "live.db",
        "create table t (id integer primary key, a text, b blob)",
        "insert into t values (1, cast(x'ff00fe' as text), x'0001ff00')",
    )
    with closing(sqlite3.connect(live)) as connection, pytest.raises(sqlite3.OperationalError, match="decode"):  # the control
        connection.execute("select a from t").fetchall()
    store, log = lab.store_at(live, tmp_path), walk.Journal()
    folder, record = walk.take(store, tmp_path / "set")
    before = digests(live)
    lab.tell(live, "update t set a = 'other'")
    assert digests(live)["t"] != before["t"]
    place = store.place("0011aabb", None)
    store.stage(folder, record, place)
    store.switch(place, log)
    assert digests(live) == before == dict(record.digests)
    assert lab.ask(live, "select hex(a), hex(b) from t") == [("FF00FE", "0001FF00")]


def test_full_text_tables_are_covered_by_their_shadow_tables_and_sequences_count(tmp_path: Path) -> None:
    live = build(
        tmp_path / "live.db",
        "create virtual table search using fts5 (body)",
        "insert into search values ('what is in it')",
        "create table t (id integer primary key autoincrement)",
        "insert into t default values",
        "analyze",
    )
    _, record = walk.take(lab.store_at(live, tmp_path), tmp_path / "set")
    assert "search" not in record.counts
    assert {"search_content", "search_data", "sqlite_sequence", "t"} <= set(record.counts)
    assert not [name for name in record.counts if name.startswith("sqlite_stat")]
    before = digests(live)
    lab.tell(live, "update sqlite_sequence set seq = 7")
    lab.tell(live, "update search_content set c0 = 'something else'")
    changed = {name for name, digest in digests(live).items() if digest != before[name]}
    assert changed == {"sqlite_sequence", "search_content"}


@pytest.mark.parametrize(
    "statement",
    ["create view v as select 1", "create index i on papers (body)", "pragma user_version = 7", "pragma application_id = 7",
     "create trigger r after insert on papers begin select 1; end", "alter table papers add column extra"],
)  # fmt: skip
def test_whatever_is_no_row_is_in_the_digest_of_the_schema(tmp_path: Path, statement: str) -> None:
    live = lab.make(tmp_path / "live.db", 3)
    before = digests(live)[contents.SCHEMA]
    lab.tell(live, "analyze")
    assert digests(live)[contents.SCHEMA] == before
    lab.tell(live, statement)
    assert digests(live)[contents.SCHEMA] != before


# --- damage


def test_an_index_that_lost_an_entry_is_found_although_quick_check_finds_nothing(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 100)
    build(
        live,
        "pragma writable_schema=on",
        "update sqlite_master set sql = 'create index by_title on papers (title) where id <> 7' where name = 'by_title'",
    )
    build(live, "reindex")
    build(
        live,
        "pragma writable_schema=on",
        "update sqlite_master set sql = 'create index by_title on papers (title)' where name = 'by_title'",
    )
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    assert lab.ask(live, "pragma quick_check") == [("ok",)]
    with pytest.raises(Failed, match=r"damaged.*missing from index by_title"):
        store.verify(folder, record)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Failed, match="damaged"):
        content_of_copy(store, folder, record, tmp_path / "scratch")
    assert os.listdir(tmp_path / "scratch") == []


def test_a_key_that_leads_nowhere_is_backed_up_with_a_warning_and_a_new_one_is_damage(tmp_path: Path) -> None:
    live = build(
        tmp_path / "live.db",
        "create table parent (id integer primary key)",
        "create table child (id integer primary key, parent references parent (id))",
        "create table odd (id integer primary key, parent references parent (missing))",
        "insert into parent values (1)",
        "insert into child values (1, 1), (2, 99), (3, 98)",
        "insert into odd values (1, 1)",
    )
    store = lab.store_at(live, tmp_path)
    taken = walk.take_whole(store, tmp_path / "set")
    assert lab.ask(live, "pragma integrity_check") == [("ok",)]  # it does not look at keys
    assert taken.record.details["dangling"] == {"child": 2, "odd": 'foreign key mismatch - "odd" referencing "parent"'}
    assert [problem.severity for problem in taken.problems] == [Severity.WARNING, Severity.WARNING]
    assert "2 rows of child" in taken.problems[0].message
    store.verify(taken.folder, taken.record)
    record = replace(taken.record, details={**taken.record.details, "dangling": {}})
    with pytest.raises(Failed, match="dangling"):
        store.verify(taken.folder, record)


def test_a_truncated_a_swapped_and_a_flipped_artefact_are_all_found(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 3000)
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    artefact = folder / "database.sqlite"
    good = artefact.read_bytes()
    bad = {
        "truncated": good[: len(good) // 2],
        "a page less": good[:-4096],
        "no header": b"\0" * 100 + good[100:],
        "flipped": good[: 8192 + 20] + bytes([good[8192 + 20] ^ 0xFF] * 60) + good[8192 + 80 :],
        "empty": b"",
        "another": lab.make(tmp_path / "other.db", 5).read_bytes().replace(b"papers", b"pamphl"),
    }
    found = set()
    for what, data in bad.items():
        artefact.unlink()
        artefact.write_bytes(data)
        try:
            store.verify(folder, record)
        except Failed:
            found.add(what)
    assert found == set(bad)
    artefact.write_bytes(good)
    store.verify(folder, record)
    artefact.unlink()
    with pytest.raises(Failed, match="unable to open"):
        store.verify(folder, record)


def test_reading_an_artefact_leaves_nothing_beside_it(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 30, mode="wal")
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    (tmp_path / "scratch").mkdir()
    store.verify(folder, record)
    content_of_copy(store, folder, record, tmp_path / "scratch")
    store.foresee(folder, record, None)
    store.stage(folder, record, store.place("0011aabb", None))
    assert lab.ask(folder / "database.sqlite", "select count(*) from papers") == [(30,)]  # nor does the sqlite3 of a person
    assert os.listdir(folder) == ["database.sqlite"]
    walk.check_sums(folder, record)


def test_a_live_file_that_is_damaged_is_refused_as_the_target_of_a_restore(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 30)
    store = lab.store_at(live, tmp_path)
    folder, record = walk.take(store, tmp_path / "set")
    live.write_bytes(b"no database " * 1000)
    with pytest.raises(Refused, match=r"damaged.*not touched"):
        store.foresee(folder, record, None)
    shutil.copy(folder / "database.sqlite", tmp_path / "torn.db")
    assert live.read_bytes() == b"no database " * 1000


def test_a_probe_notices_rows_and_tables_that_are_not_the_sets(tmp_path: Path) -> None:
    live = lab.make(tmp_path / "live.db", 30)
    store = lab.store_at(live, tmp_path)
    _, record = walk.take(store, tmp_path / "set")
    place = store.place("0011aabb", None)
    store.probe(place, record)
    lab.tell(live, "delete from papers where id = 1")
    with pytest.raises(Failed, match="papers differs"):
        store.probe(place, record)
    with lab.program(lab.OPENER, live):
        store.probe(place, record)  # somebody has it open, and may have written since
        lab.tell(live, "alter table papers rename to pamphlets")
        with pytest.raises(Failed, match="no table papers"):
            store.probe(place, record)


MEMORY = """
    import resource, sys
    from contextlib import closing
    from pathlib import Path
    from storekeeper.stores import databases
    from storekeeper.stores.sqlite import contents
    with closing(databases.open_read_only(Path(sys.argv[1]))) as connection:
        contents.counts(connection)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = contents.read(connection)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(found.counts["papers"], after - before, flush=True)
"""


def test_memory_stays_flat_over_a_million_rows(tmp_path: Path) -> None:
    live = build(
        tmp_path / "live.db",
        "create table papers (id integer primary key, title text, body blob)",
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000000)"
        " insert into papers select i, 'title ' || i, zeroblob(20) from n",
    )
    with lab.program(MEMORY, live) as program:
        rows, grown_kb = map(int, program.first.split())
    assert rows == 1_000_000
    assert grown_kb < 16_000

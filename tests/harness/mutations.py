"""One small change to what a live store holds, of which no count tells: a row, a float of a vector, a byte of a file, an id."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from storekeeper.sets.context import Context
from storekeeper.stack.model import AnyStore, ChromaModel, FilesModel, SqliteModel, Stack
from storekeeper.stores.chroma.catalogue import open_catalogue
from storekeeper.stores.chroma.rows import CollectionRows
from tests.harness.chroma import execute
from tests.harness.postgresql import Server, reachable_directory, start_server
from tests.harness.stacks import open_context

Mutation = Callable[[random.Random], None]
ROWS, DIMENSION = 200, 8
TABLE = """
create extension vector;
create table chunks (id int primary key, body text, number double precision, raw bytea, v vector(8));
insert into chunks
    select i, md5(i::text), i / 7.0, decode(md5(i::text), 'hex'), array(select sin(i * n) from generate_series(1, 8) n)::vector
    from generate_series(1, 200) i;
select lo_from_bytea(77, convert_to(repeat('large', 5000), 'UTF8'));
"""

# What a database holds beside its rows, and one change of each, of which no row and no count tells.
SHAPE = """
create sequence numbers; create function answer() returns int language sql as 'select 41'; create type mood as enum ('sad');
create table shaped (id int generated always as identity, body text); create index shaped_body on shaped (body);
create materialized view filled as select 1 as one with no data;
"""
CHANGES_OF_SHAPE = (
    "select setval('numbers', 999)",
    "create or replace function answer() returns int language sql as 'select 42'",
    "alter table shaped alter column body set default 'x'",
    "drop index shaped_body",
    "alter table shaped add check (body <> 'no')",
    "grant select on shaped to public",
    "alter table shaped enable row level security",
    "alter type mood add value 'happy'",
    "alter table shaped alter column id restart with 77",
    "refresh materialized view filled",
    "alter table shaped set unlogged",
)


@dataclass(frozen=True)
class Mutable:
    """A stack of one store, and the ways to change what that store holds; of a database also its server."""

    context: Context
    mutations: Sequence[Mutation]
    server: Server | None = None


def _stack(room: Path, declared: AnyStore, mutations: Sequence[Mutation], scratch: Path | None = None) -> Mutable:
    for folder in ("private", "state"):
        (room / folder).mkdir(mode=0o700)
    return Mutable(open_context(room, Stack(stack="demo", stores={"held": declared}), scratch=scratch), mutations)


@contextmanager
def mutable(kind: str, room: Path) -> Iterator[Mutable]:
    with ExitStack() as opened:
        if kind == "postgresql":
            scratch = reachable_directory()
            opened.callback(shutil.rmtree, scratch)
            server = opened.enter_context(start_server(major=18))
            yield replace(_stack(room, server.declared("postgres"), _of_rows(server), scratch), server=server)
        elif kind == "chroma":
            execute(room / "live", "load(collection('papers', sync=100), 450, 8)")
            yield _stack(room, ChromaModel(kind="chroma", path=room / "live"), _of_vectors(room / "live"))
        elif kind == "sqlite":
            yield _stack(room, SqliteModel(kind="sqlite", path=room / "live.db"), _of_tables(room / "live.db"))
        else:
            yield _stack(room, FilesModel(kind="files", path=room / "live"), _of_files(room / "live"))


def _of_rows(server: Server) -> Sequence[Mutation]:
    server.run(TABLE)

    def one(statement: str) -> Mutation:
        def change(chance: random.Random) -> None:
            number = server.ask(f"select id from chunks order by id offset {chance.randrange(ROWS)} limit 1")
            server.run(statement.format(id=number, n=chance.randrange(ROWS)))

        return change

    def float_of_a_vector(chance: random.Random) -> None:
        number, place = chance.randrange(ROWS), chance.randrange(DIMENSION)
        text = server.ask(f"select v::text from chunks order by id offset {number} limit 1")
        values = [float(word) for word in text.strip("[]").split(",")]
        values[place] = _next_float(values[place])
        server.run(f"update chunks set v = '{values}' where v::text = '{text}'")

    return (
        one("update chunks set body = body || ' ' where id = {id}"),
        float_of_a_vector,
        one("select lo_put(77, {n}, set_byte(lo_get(77, {n}, 1), 0, (get_byte(lo_get(77, {n}, 1), 0) + 1) % 256))"),
        one("update chunks set raw = set_byte(raw, 3, (get_byte(raw, 3) + 1) % 256) where id = {id}"),
        one("update chunks set id = (select max(id) + 1 from chunks) where id = {id}"),
        one("update chunks set number = number + 1e-12 * (1 + abs(number)) where id = {id}"),
        one("update chunks a set body = b.body || a.body from chunks b where a.id = {id} and b.id = (select max(id) from chunks)"),
    )


def _of_tables(path: Path) -> Sequence[Mutation]:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table documents (id integer primary key, title text, score real, raw blob, any)")
        rows = [(number, f"title {number}", number / 7, os.urandom(16), number) for number in range(1, ROWS + 1)]
        database.executemany("insert into documents values (?, ?, ?, ?, ?)", rows)

    def one(statement: str) -> Mutation:
        def change(chance: random.Random) -> None:
            with closing(sqlite3.connect(path)) as database, database:
                changed = database.execute(statement, {"n": chance.randrange(ROWS), "raw": chance.randbytes(16), "score": chance.random()})
                assert changed.rowcount == 1

        return change

    this = "where rowid = (select rowid from documents limit 1 offset :n)"
    return (
        one(f"update documents set title = title || char(8203) {this}"),
        one(f"update documents set score = score * (1 + 1e-15) + 1e-300 + :score * 1e-9 {this}"),
        one(f"update documents set raw = :raw {this}"),
        one(f"update documents set id = (select max(id) + 1 from documents) {this}"),
        one(f"update documents set any = case typeof(any) when 'integer' then cast(any as text) else cast(any as integer) end {this}"),
        one(f"update documents set title = case when title is null then '' else null end {this}"),
    )


def _of_vectors(directory: Path) -> Sequence[Mutation]:
    catalogue = directory / "chroma.sqlite3"

    def one(statement: str) -> Mutation:
        def change(chance: random.Random) -> None:
            with closing(sqlite3.connect(catalogue)) as database, database:
                changed = database.execute(statement, {"n": chance.randrange(40), "page": chance.randrange(10**9)})
                assert changed.rowcount == 1

        return change

    def float_in_the_index(chance: random.Random) -> None:
        with open_catalogue(directory, sealed=True) as found:
            [collection] = found.collections()
            with CollectionRows(found, collection) as rows:
                vectors = [row.vector for row in rows if row.vector is not None and not row.pending]
        assert collection.vectors is not None
        vector = chance.choice(vectors)
        _change_a_float(directory / collection.vectors.id / "data_level0.bin", vector, chance)

    def float_in_the_queue(chance: random.Random) -> None:
        with closing(sqlite3.connect(catalogue)) as database, database:
            waiting = database.execute("select seq_id, vector from embeddings_queue where vector is not null").fetchall()
            number, vector = chance.choice(waiting)
            database.execute("update embeddings_queue set vector = ? where seq_id = ?", (_with_another_float(vector, chance), number))

    key = "where rowid = (select rowid from embedding_metadata where key = '{}' limit 1 offset :n)"
    return (
        float_in_the_index,
        float_in_the_queue,
        one("update embedding_metadata set string_value = string_value || ' ' || :page " + key.format("chroma:document")),
        one("update embedding_metadata set string_value = 'doc-' || :page " + key.format("doc_id")),
        one("update embedding_metadata set int_value = :page + 100 " + key.format("page")),
    )


def _of_files(root: Path) -> Sequence[Mutation]:
    for number in range(40):
        path = root / f"folder-{number % 4}/file-{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(500 + 97 * number))
    (root / "link").symlink_to("folder-1")

    def any_file(chance: random.Random) -> Path:
        return chance.choice(sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()))

    def a_byte(chance: random.Random) -> None:
        path = any_file(chance)
        status, data = path.stat(), bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def a_name(chance: random.Random) -> None:
        path = any_file(chance)
        path.rename(path.with_name(f"{path.name}{chance.randrange(10)}"))

    def a_mode(chance: random.Random) -> None:
        path = any_file(chance)
        path.chmod(path.stat().st_mode ^ 0o001)

    def a_time(chance: random.Random) -> None:
        path = any_file(chance)
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 1_000_000_000 - chance.randrange(1000)))

    def a_target(chance: random.Random) -> None:
        (root / "link").unlink()
        (root / "link").symlink_to(f"folder-{chance.randrange(10**8):08}")

    return (a_byte, a_name, a_mode, a_time, a_target)


def _next_float(number: float) -> float:
    """The next number that 32 bits can hold."""
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    return float(struct.unpack("<f", struct.pack("<I", bits + 1))[0])


def _with_another_float(vector: bytes, chance: random.Random) -> bytes:
    place = 4 * chance.randrange(len(vector) // 4)
    (number,) = struct.unpack_from("<f", vector, place)
    return vector[:place] + struct.pack("<f", _next_float(number)) + vector[place + 4 :]


def _change_a_float(path: Path, vector: bytes, chance: random.Random) -> None:
    data = path.read_bytes()
    assert data.count(vector) == 1
    path.write_bytes(data.replace(vector, _with_another_float(vector, chance)))

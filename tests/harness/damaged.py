"""A real SQLite database of many kinds of tables, and what a disk does to it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

DOCUMENTS = 4000
TABLES = ("users", "documents", "pairs", "notes", "words", "sqlite_sequence")
_SCHEMA = """
    create table users (id integer primary key autoincrement, name text not null);
    create table documents (id text primary key, user_id integer references users (id), size real, body blob);
    create index by_user on documents (user_id);
    create table pairs (a text, b integer, c, primary key (b, a)) without rowid;
    create table notes (number integer, doubled as (number * 2) virtual, kept as (number + 1) stored, note text);
    create virtual table words using fts5 (body);
    create view everybody as select name from users;
"""


def make(path: Path, **pragmas: object) -> Path:
    """Rows that are long and short, typed and not, with gaps, deleted ones, and columns that came later."""
    draw = random.Random(7)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, value in pragmas.items():
            connection.execute(f"pragma {name}={value!r}")
        connection.executescript(_SCHEMA)
        connection.execute("begin")
        connection.executemany("insert into users (name) values (?)", ((f"user é {n}",) for n in range(500)))
        documents = ((_name(n), n % 500 + 1, n / 3, draw.randbytes(9000 if n % 100 == 0 else 40)) for n in range(DOCUMENTS + 400))
        connection.executemany("insert into documents values (?, ?, ?, ?)", documents)
        connection.executemany("insert into pairs values (?, ?, ?)", ((f"a{n}", n, n * 1.5) for n in range(3000)))
        notes = ((n * 7 - 5000, n, f"note {n}") for n in range(2000))
        connection.executemany("insert into notes (rowid, number, note) values (?, ?, ?)", notes)
        connection.execute("insert into notes (number, note) values (1, cast(x'ff00fe' as text))")
        connection.executemany("insert into words values (?)", ((f"word{n} common",) for n in range(500)))
        connection.execute("delete from documents where rowid between 1000 and 1399")
        connection.execute("alter table notes add column later text default 'it''s later'")
        connection.execute("create trigger watch after insert on notes begin insert into users (name) values ('by a trigger'); end")
        connection.execute("commit")
    return path


def rows(path: Path) -> dict[str, Counter[tuple[object, ...]]]:
    """All rows by table, texts as their bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return {table: Counter(connection.execute(f"select * from {table}").fetchall()) for table in TABLES}


def pages_of(path: Path, name: str, kind: str = "") -> list[int]:
    """The numbers of the pages of a table or index, as SQLite's own program tells them: all, or the `leaf` or `internal` ones."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = ?", (name,)).fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    data, waiting, found = path.read_bytes(), [root], []
    while waiting:
        number = waiting.pop()
        page = data[(number - 1) * size : number * size]
        is_leaf = page[0] in (0x0D, 0x0A)
        if kind in ("", "leaf" if is_leaf else "internal"):
            found.append(number)
        if not is_leaf:
            cells = int.from_bytes(page[3:5], "big")
            starts = [int.from_bytes(page[12 + 2 * each : 14 + 2 * each], "big") for each in range(cells)]
            waiting += [int.from_bytes(page[start : start + 4], "big") for start in starts] + [int.from_bytes(page[8:12], "big")]
    return sorted(found)


def overwrite(path: Path, *numbers: int, seed: int | None = None) -> Path:
    """Pages that a disk has lost: zeros, or with a seed whatever stood there before."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        (size,) = connection.execute("pragma page_size").fetchone()
    with open(path, "r+b") as file:
        for number in numbers:
            file.seek((number - 1) * size)
            file.write(bytes(size) if seed is None else random.Random(seed + number).randbytes(size))
    return path


def copied(path: Path, target: Path) -> Path:
    return Path(shutil.copy(path, target))


def _name(number: int) -> str:
    return f"doc-{number:05}"

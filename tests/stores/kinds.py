"""Every kind of store with real live data, so that one suite holds all of them to the same contract."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from storekeeper.stack.model import AnyStore, ChromaModel, FilesModel, SqliteModel
from storekeeper.stores.identities import CollectionSource, PatternSource, RowsSource, Source, SqlSource
from storekeeper.stores.protocol import Store
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from tests.harness import chroma as chroma_harness
from tests.harness import postgresql as postgresql_harness


@dataclass(frozen=True)
class Live:
    """One store with live data of its own. `content` reads it by means that are not the store's own code."""

    store: Store
    room: Path  # for sets and scratch directories
    content: Callable[[], Any]
    change: Callable[[], None]
    remove: Callable[[], None]
    place: Source  # what holds documents, of which `change` removes or adds some


class Kind(Protocol):
    """Makes live stores; what is dear to start (a server) is started once and stopped by `close`."""

    def make(self, room: Path) -> Live: ...

    def close(self) -> None: ...


class Files:
    def make(self, room: Path) -> Live:
        root = room / "live"
        make_tree(root)
        declared = FilesModel(kind="files", path=root, include=("raw_pdfs", "processed/markdown"))
        return Live(
            _open("papers", declared, room),
            room,
            partial(_covered_of, root),
            partial(_change_tree, root),
            partial(shutil.rmtree, root),
            PatternSource("raw_pdfs/{id}_paper.pdf"),
        )

    def close(self) -> None:
        """Nothing was started."""


class Sqlite:
    def make(self, room: Path) -> Live:
        path = room / "live.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("create table documents (id integer primary key, title text)")
            connection.executemany("insert into documents (title) values (?)", [(f"title {number}",) for number in range(500)])
        return Live(
            _open("main", SqliteModel(kind="sqlite", path=path), room),
            room,
            partial(_rows, path),
            partial(_change_rows, path),
            path.unlink,
            RowsSource("documents", "id"),
        )

    def close(self) -> None:
        """Nothing was started."""


class Chroma:
    """Two directories are loaded once, by Chroma; each test gets a copy, which no program has open."""

    def __init__(self, room: Path) -> None:
        self._states = (room / "first", room / "second")
        for state, count in zip(self._states, (300, 450), strict=True):
            chroma_harness.execute(state, "load(collection('papers', sync=100), arguments['count'], 8)", count=count)

    def make(self, room: Path) -> Live:
        path = room / "vectors"
        shutil.copytree(self._states[0], path)
        store = _open("vectors", ChromaModel(kind="chroma", path=path), room)
        place = CollectionSource("papers", "doc_id")
        return Live(store, room, partial(_ids, path), partial(self._change, path), partial(shutil.rmtree, path), place)

    def close(self) -> None:
        """Nothing was started."""

    def _change(self, path: Path) -> None:
        shutil.rmtree(path)
        shutil.copytree(self._states[1], path)


class Postgresql:
    def __init__(self) -> None:
        self._open = ExitStack()
        self._server = self._open.enter_context(postgresql_harness.start_server())
        self._around = self._open.enter_context(postgresql_harness.surroundings())
        self._numbers = itertools.count()

    def make(self, room: Path) -> Live:
        name = f"kind_{next(self._numbers)}"
        self._server.run(f"create database {name}")
        self._server.run("create table documents (id int primary key, title text)", name)
        self._server.run("insert into documents select n, 'title ' || n from generate_series(1, 500) n", name)
        place = self._around.scratch / name
        place.mkdir(mode=0o711)
        return Live(
            open_store("metadata", self._server.declared(name), self._around),
            place,
            lambda: self._server.ask("select string_agg(documents::text, ';' order by id) from documents", name),
            lambda: self._server.run("delete from documents where id > 450; update documents set title = 'changed' where id = 1", name),
            lambda: self._server.run(f"drop database {name}"),
            SqlSource("select id from documents", ("id",)),
        )

    def close(self) -> None:
        self._open.close()


KINDS = ("files", "sqlite", "chroma", "postgresql")


@contextmanager
def opened_kind(name: str, room: Path) -> Iterator[Kind]:
    made: Kind = {"files": Files, "sqlite": Sqlite, "chroma": partial(Chroma, room), "postgresql": Postgresql}[name]()
    try:
        yield made
    finally:
        made.close()


def make_tree(root: Path) -> None:
    (root / "raw_pdfs" / "deep" / "er").mkdir(parents=True)
    (root / "processed" / "markdown").mkdir(parents=True)
    (root / "processed" / "metadata").mkdir()
    for number in range(40):
        (root / "raw_pdfs" / f"{number}_paper.pdf").write_bytes(f"pdf {number} ".encode() * 500)
        (root / "processed" / "markdown" / f"{number}.md").write_text(f"# {number}\n")
    (root / "raw_pdfs" / "deep" / "er" / "x.pdf").write_bytes(b"deep")
    (root / "processed" / "metadata" / "not-covered.json").write_text("{}")
    os.chmod(root / "raw_pdfs" / "deep", 0o750)


def tree_of(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path below a root with its type, mode, owner, times and contents; without what a restore keeps there."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        inner = str(path.relative_to(root))
        if ".storekeeper-" in inner:
            continue
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        # The directories above covered entries are not the store's: their times change with what comes and goes in them.
        moment = None if path.is_dir() and inner == "processed" else status.st_mtime_ns
        found[inner] = (oct(status.st_mode), status.st_uid, status.st_gid, moment, what)
    return found


def _covered_of(root: Path) -> dict[str, tuple[Any, ...]]:
    return {inner: what for inner, what in tree_of(root).items() if not inner.startswith("processed/metadata")}


def _change_tree(root: Path) -> None:
    (root / "raw_pdfs" / "0_paper.pdf").write_bytes(b"rewritten")
    (root / "raw_pdfs" / "1_paper.pdf").unlink()
    (root / "processed" / "markdown" / "new.md").write_text("new")


def _rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("select * from documents order by id").fetchall()


def _change_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("delete from documents where id > 450")
        connection.execute("update documents set title = 'changed' where id = 1")


def _ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{path / 'chroma.sqlite3'}?mode=ro", uri=True)) as connection:
        return [
            row[0] for row in connection.execute("select embedding_id from embeddings union select id from embeddings_queue order by 1")
        ]


def _open(name: str, declared: AnyStore, room: Path) -> Store:
    """Nobody is asked who has files open: in a container some processes may not be looked at."""
    for folder in ("private", "scratch"):
        (room / folder).mkdir(mode=0o700)
    return open_store(name, declared, Surroundings("tested", room / "private", room / "scratch", nobody_uses=True))

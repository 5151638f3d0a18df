"""What a whole backup of real stores leaves to others, as the kernel sees it: low ranks everywhere but where writers wait."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.host import hashing, load
from storekeeper.host.load import Bucket, Limits
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import ChromaModel, FilesModel, SqliteModel, Stack
from storekeeper.stores import folder, rawcopy
from storekeeper.stores.lockholder import LockHolder
from tests.harness.chroma import execute
from tests.harness.postgresql import Server, reachable_directory, start_server
from tests.harness.program import Program
from tests.harness.stacks import in_child, open_context

NICE = 10
_WRAPPER = """#!/bin/sh
echo "$(cut -d' ' -f19 /proc/$$/stat) $*" >>"{log}"
exec "{real}" "$@"
"""
_LOAD_CHROMA = 'load(collection("papers"), 3000, 16)'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as running:
        running.run("create database app")
        running.run("create table papers as select n as id, md5(n::text) as title from generate_series(1, 20000) n", "app")
        yield running


class Watch:
    """Notes the rank of whatever thread copies, hashes or holds a lock, and which of them did so while a writer would have waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranks: dict[str, set[int]] = {}
        self.holders: set[int] = set()
        self.spent = {"free": 0, "locked": 0}
        self.locked = 0
        self._patch = monkeypatch
        for module, name in ((rawcopy, "_copy"), (hashing.Hashers, "_hash"), (folder, "sha256_of"), (load, "spend")):
            self._note(module, name)
        self._watch_locks()

    def paced(self) -> None:
        """Count what goes through the bucket, which never waits."""
        watch = self

        class Counting(Bucket):
            def take(self, count: int) -> None:
                watch.spent["locked" if watch.locked else "free"] += count

        self._patch.setattr(load, "Bucket", Counting)

    def _note(self, owner: object, name: str) -> None:
        real = getattr(owner, name)

        def noting(*given: object, **named: object) -> object:
            where = f"{name} {'locked' if self.locked else 'free'}"
            self.ranks.setdefault(where, set()).add(os.getpriority(os.PRIO_PROCESS, 0))
            return real(*given, **named)

        self._patch.setattr(owner, name, noting)

    def _watch_locks(self) -> None:
        take, release = LockHolder.take, LockHolder.release

        def taking(holder: LockHolder, wait_s: float) -> object:
            taken = take(holder, wait_s)
            self.locked += 1
            process = holder._process
            assert process is not None
            self.holders.add(_niceness_of(process.pid))
            return taken

        def releasing(holder: LockHolder) -> None:
            release(holder)
            self.locked -= 1

        self._patch.setattr(LockHolder, "take", taking)
        self._patch.setattr(LockHolder, "release", releasing)


def _niceness_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("load") / "vectors"
    execute(directory, _LOAD_CHROMA)
    return directory


def stack_at(root: Path, vectors: Path) -> Stack:
    """A database that is copied under its lock, a directory of Chroma, and files."""
    (root / "private").mkdir(mode=0o700)
    (root / "papers").mkdir()
    (root / "papers" / "a.pdf").write_bytes(os.urandom(2_000_000))
    with closing(sqlite3.connect(root / "main.db")) as database, database:
        database.execute("create table papers (id integer primary key, body blob)")
        database.executemany("insert into papers (body) values (?)", [(os.urandom(5000),) for _ in range(200)])
    return Stack(
        stack="demo",
        stores={
            "main": SqliteModel(kind="sqlite", path=root / "main.db"),
            "vectors": ChromaModel(kind="chroma", path=vectors),
            "papers": FilesModel(kind="files", path=root / "papers"),
        },
    )


def watched(root: Path, vectors: Path, limits: Limits, *, too_early: bool = False, never_hurried: bool = False) -> dict[str, object]:
    """What was seen of one backup, in a process that may be lowered for good."""

    def backup() -> None:
        with pytest.MonkeyPatch.context() as patch:
            watch = Watch(patch)
            if limits.max_rate is not None:
                watch.paced()
            if never_hurried:
                patch.setattr(load, "hurry", threading.Lock)  # a block that changes nothing
            with load.limited(limits):
                if too_early:
                    load.lower()
                entry = take_set(open_context(root, stack_at(root, vectors)), purpose="backup")
            seen = {"ranks": {name: sorted(found) for name, found in watch.ranks.items()}, "holders": sorted(watch.holders)}
            (root / "seen").write_text(json.dumps({**seen, "spent": watch.spent, "bytes": entry.bytes}))

    assert in_child(backup) == 0
    found = json.loads((root / "seen").read_text())
    assert isinstance(found, dict)
    return found


def test_copies_and_sums_rank_low_and_what_writers_wait_for_does_not(tmp_path: Path, vectors: Path) -> None:
    seen = watched(tmp_path, vectors, Limits(nice=NICE))
    ranks = seen["ranks"]
    assert isinstance(ranks, dict)
    assert ranks["_copy locked"] == [0], "the copy of main.db, for which its writers wait"
    assert seen["holders"] == [0]
    assert ranks["_copy free"] == [NICE], "the first pass of vectors, before any lock"
    assert ranks["_hash free"] == [NICE], "the first pass's sums, and those of the set that is read back"
    assert ranks["sha256_of free"] == [NICE]


def test_without_waiting_for_the_release_the_copy_under_the_lock_ranks_low(tmp_path: Path, vectors: Path) -> None:
    seen = watched(tmp_path, vectors, Limits(nice=NICE), too_early=True)
    ranks = seen["ranks"]
    assert isinstance(ranks, dict)
    assert ranks["_copy locked"] == [NICE], "writers wait for a copy that everybody else goes before"
    assert seen["holders"] == [NICE]


def test_a_declared_rate_counts_all_that_is_copied_and_read_back_and_nothing_under_a_lock(tmp_path: Path, vectors: Path) -> None:
    seen = watched(tmp_path, vectors, Limits(max_rate=1 << 20))
    spent = seen["spent"]
    assert isinstance(spent, dict)
    assert spent["locked"] == 0
    assert spent["free"] >= 2 * int(str(seen["bytes"])), "each byte of the set is at least hashed once and read back once"


def test_without_the_hurry_the_copy_under_the_lock_is_paced(tmp_path: Path, vectors: Path) -> None:
    seen = watched(tmp_path, vectors, Limits(max_rate=1 << 20), never_hurried=True)
    spent = seen["spent"]
    assert isinstance(spent, dict)
    assert spent["locked"] >= (tmp_path / "main.db").stat().st_size, "writers would have waited a second for each megabyte"


def _declared(server: Server, programs: Path, load_of: str) -> str:
    words = f"kind: postgresql, database: app, user: postgres, host: {server.socket}, port: {server.port}, programs: {programs}"
    return f"stack: demo\nstores:\n  rows: {{{words}}}\nbackup: {{load: {load_of}}}\n"


def _programs(server: Server, directory: Path) -> Path:
    """The server's own, of which each writes down how it ranks before it begins."""
    directory.mkdir()
    for each in server.programs.iterdir():
        if each.name in ("pg_dump", "pg_restore"):
            (directory / each.name).write_text(_WRAPPER.format(log=directory / "log", real=each))
            (directory / each.name).chmod(0o755)
        else:
            (directory / each.name).symlink_to(each)
    (directory / "log").touch()
    (directory / "log").chmod(0o666)
    return directory


@pytest.mark.parametrize(("declared", "expected"), [("{}", NICE), ("{nice: 15}", 15)])
def test_the_programs_of_a_backup_rank_as_declared_once_the_tables_are_pinned(server: Server, declared: str, expected: int) -> None:
    root = reachable_directory()
    try:
        program, programs = Program(root / "host"), _programs(server, root / "programs")
        program.declare(_declared(server, programs, declared))
        ended = program.answer("backup", "demo")
        assert ended.document["outcome"] == "ok", ended.err
        first = (programs / "log").read_text().splitlines()[0]
        assert first == "0 --version", "what is asked before the hold"
        assert _ranks_in(programs / "log", "--snapshot") == {expected}, "the dump itself"
        assert _ranks_in(programs / "log", "--file=/dev/null") == {expected}, "the archive read back"
        (programs / "log").write_text("")
        assert program.answer("verify", "demo").document["outcome"] == "ok"
        assert _ranks_in(programs / "log", "--file=/dev/null") == {expected}
        (programs / "log").write_text("")
        assert program.answer("restore", "demo", "latest", "--yes").document["outcome"] == "ok"
        assert _ranks_in(programs / "log", "") == {0}, "a restore is waited for"
    finally:
        shutil.rmtree(root)


def _ranks_in(log: Path, word: str) -> set[int]:
    return {int(line.split()[0]) for line in log.read_text().splitlines() if word in line}

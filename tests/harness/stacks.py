"""A small real stack under one directory, in which every store holds one word, so that a mix of two states is seen at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed
from storekeeper.restore.journal import Journal, Step
from storekeeper.sets.context import Context
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import Repository, SetEntry
from storekeeper.stack.model import AnyStore, ChromaModel, FilesModel, RestoreModel, SqliteModel, Stack
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server, reachable_directory

ROWS = 300
PAPERS = {"raw/a.pdf": 40_000, "raw/deep/b.pdf": 10, "notes/c.md": 3_000}


class Service:
    """A real process that does nothing, supervised by a file with its pid, so that any process can look at it and stop it."""

    def __init__(self, label: str, folder: Path) -> None:
        self._label = label
        self._file = folder / f"{label}.pid"
        self.fails_to_start = 0
        self.fails_to_stop = 0
        self.holds: Path | None = None  # a file that the process has open

    @property
    def label(self) -> str:
        return self._label

    def is_running(self) -> bool:
        return self._pid() is not None

    def started_at(self) -> datetime | None:
        return datetime.fromtimestamp(self._file.stat().st_mtime, UTC) if self.is_running() else None

    def start(self) -> None:
        if self.is_running():
            return
        if self.fails_to_start:
            self.fails_to_start -= 1
            raise Failed(f"{self.label} does not start")
        # Through a shell that ends at once: what descends from a program under test does not count as somebody else.
        words = ["sh", "-c", 'sleep 600 <"$1" >/dev/null 2>&1 & echo $!', "sh", str(self.holds or os.devnull)]
        self._file.write_text(subprocess.run(words, capture_output=True, check=True, start_new_session=True, text=True).stdout)
        while not self.is_running():
            time.sleep(0.002)  # its name stands in /proc a moment after it was started

    def stop(self) -> None:
        pid = self._pid()
        if pid is None:
            return
        if self.fails_to_stop:
            self.fails_to_stop -= 1
            raise Failed(f"{self.label} does not stop")
        os.kill(pid, signal.SIGKILL)
        while self._pid() is not None:
            time.sleep(0.005)

    @property
    def pid(self) -> int:
        return int(self._file.read_text())

    def _pid(self) -> int | None:
        """The pid of a living process; a zombie that nobody has waited for is dead."""
        try:
            pid = int(self._file.read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return None if state == "Z" or not command.startswith(b"sleep") else pid


@dataclass
class Lab:
    """A stack whose stores all hold `word`. `sides()` is what each holds now, read without the program under test."""

    root: Path
    context: Context
    readers: Mapping[str, Callable[[], str]]
    writers: Mapping[str, Callable[[str], None]]
    services: tuple[Service, ...] = ()

    def write(self, word: str) -> None:
        for write in self.writers.values():
            write(word)
        time.sleep(0.12)  # a file written to this instant is never shared between sets

    def sides(self) -> dict[str, str]:
        return {name: read() for name, read in self.readers.items()}

    def all_hold(self, word: str) -> bool:
        return set(self.sides().values()) == {word}

    def take(self, word: str) -> SetEntry:
        """Make every store hold the word, and take a set of that."""
        self.write(word)
        return take_set(self.context, purpose="backup")

    def close(self) -> None:
        for service in self.services:
            service.stop()
        shutil.rmtree(self.context.scratch)


@dataclass(frozen=True)
class Part:
    """A store of a lab: how it is declared, and how the test itself reads and writes its one word."""

    declared: AnyStore
    read: Callable[[], str]
    write: Callable[[str], None]


def make_lab(
    root: Path,
    *,
    sqlites: int = 2,
    services: int = 2,
    keep: RestoreModel | None = None,
    first: Mapping[str, Part] | None = None,
    disk: Path | None = None,
) -> Lab:
    """The stores in `first`, then SQLite databases `main`, `meta`, ... and a tree of files `papers` with two included entries.

    The repository and the state are on `disk`, when there is one.
    """
    for folder in ("live", "private", "services", "state"):
        (root / folder).mkdir(mode=0o700, exist_ok=True)
    live = root / "live"
    parts = dict(first or {})
    parts |= {name: sqlite_part(live / f"{name}.db") for name in ["main", "meta", "third"][:sqlites]}
    parts["papers"] = papers_part(live / "papers")
    running = tuple(Service(f"service-{number}", root / "services") for number in range(services))
    for service in running:
        service.start()
    stack = Stack(stack="demo", stores={name: part.declared for name, part in parts.items()}, restore=keep or RestoreModel())
    return Lab(
        root,
        open_context(root, stack, running, scratch=reachable_directory() if first else None, disk=disk),
        {name: part.read for name, part in parts.items()},
        {name: part.write for name, part in parts.items()},
        running,
    )


def sqlite_part(path: Path) -> Part:
    return Part(SqliteModel(kind="sqlite", path=path), partial(read_sqlite, path), partial(write_sqlite, path))


def papers_part(path: Path) -> Part:
    return Part(FilesModel(kind="files", path=path, include=("raw", "notes")), partial(read_papers, path), partial(write_papers, path))


def postgresql_part(server: Server, database: str = "app") -> Part:
    """A database of a real server, with a table and a sequence."""
    server.run(f"create database {database}")
    return Part(server.declared(database), partial(_read_postgresql, server, database), partial(_write_postgresql, server, database))


def chroma_part(path: Path, made: Mapping[str, Path]) -> Part:
    """An embedded Chroma directory; `made` has one for each word, which is copied into place."""
    return Part(ChromaModel(kind="chroma", path=path), partial(_read_chroma, path), partial(_write_chroma, path, made))


def open_context(
    root: Path,
    stack: Stack,
    services: tuple[Service, ...] = (),
    *,
    vouched: bool = True,
    scratch: Path | None = None,
    disk: Path | None = None,
) -> Context:
    """A context of this stack, as a new process would open it.

    With `vouched` a person has said that nobody uses the files: where tests run, not every process can be looked into.
    """
    scratch, disk = scratch or root / "scratch", disk or root
    scratch.mkdir(exist_ok=True)
    surroundings = Surroundings(stack.stack, root / "private", scratch, nobody_uses=vouched, services_stop=bool(services))
    return Context(
        stack=stack,
        stores={name: open_store(name, declared, surroundings) for name, declared in stack.stores.items()},
        services=services,
        sets=Repository.open_or_create(disk / "repository", disk / "state").stack(stack.stack),
        state=disk / "state" / stack.stack,
        scratch=scratch,
        host="here",
        progress=Progress(),
    )


def in_child(action: Callable[[], object]) -> int:
    """Run something in a forked process; returns its exit code, or minus the signal that killed it. A failure is printed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001 said, and told by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at_random(action: Callable[[], object], after_s: float) -> bool:
    """Run something in a forked process and kill it that much later; False when it had ended before."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killing(number: int, *, after: bool) -> Callable[..., None]:
    """A journal's `write` that ends its process at the line of that number, before or after it is durable."""
    real, written = Journal.write, 0

    def write(journal: Journal, step: Step, store: str | None = None, **facts: object) -> None:
        nonlocal written
        written += 1
        if written == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(journal, step, store, **facts)
        if written == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return write


EMPTY = "empty"  # the word of a store with its schema and nothing in it, as a reset leaves it


def write_sqlite(path: Path, word: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table if not exists things (id integer primary key, word text not null)")
        connection.execute("delete from things")
        connection.executemany("insert into things (word) values (?)", [(word,)] * (ROWS + len(word)))


def read_sqlite(path: Path) -> str:
    """The one word in the database; more than one, or the wrong number of rows, is a mix."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = connection.execute("select word, count(*) from things group by word").fetchall()
        try:
            whole = connection.execute("pragma integrity_check").fetchone()
        except sqlite3.DatabaseError:
            whole = None  # damaged so far that not even that ends
    if whole == ("ok",) and not found:
        return EMPTY
    return _one(
        {word for word, count in found if count == ROWS + len(word)} if whole == ("ok",) and len(found) == 1 else set(), path, found
    )


def write_papers(path: Path, word: str) -> None:
    for name, size in PAPERS.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(_paper(word, name, size))
    for other in list((path / "raw").glob("only-*")):
        other.unlink()
    (path / "raw" / f"only-{word}").write_text(word)


def read_papers(path: Path) -> str:
    """The one word of the tree, whatever notes lie beside it (tests/harness/overlap.py)."""
    files = (each for each in path.rglob("*") if each.is_file() and not each.name.startswith("note_"))
    if path.is_dir() and not any(".storekeeper-" not in str(each) for each in files):
        return EMPTY
    names = sorted(each.name.removeprefix("only-") for each in (path / "raw").glob("only-*"))
    words = {word for word in names for name, size in PAPERS.items() if (path / name).read_bytes() == _paper(word, name, size)}
    whole = len(names) == 1 and all((path / name).read_bytes() == _paper(names[0], name, size) for name, size in PAPERS.items())
    return _one(words if whole else set(), path, names)


def digest_of_tree(root: Path) -> str:
    """Every name, size, time of change and content below a directory: equal before and after means that nothing was touched."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_ino} {status.st_mtime_ns} {status.st_size}\n".encode())
        if path.is_file() and not path.is_symlink():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_postgresql(server: Server, database: str, word: str) -> None:
    server.run(
        f"drop table if exists things; create table things (id serial primary key, word text not null);"
        f"insert into things (word) select '{word}' from generate_series(1, {ROWS + len(word)})",
        database,
    )


def _read_postgresql(server: Server, database: str) -> str:
    with server.connect(database) as connection:
        found = connection.execute("select word, count(*) from things group by word").fetchall()
    if not found:
        return EMPTY
    return _one({word for word, count in found if count == ROWS + len(word)} if len(found) == 1 else set(), Path(database), found)


def _write_chroma(path: Path, made: Mapping[str, Path], word: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made[word], path)


def _read_chroma(path: Path) -> str:
    """The collection is named by the word, and the directory of vectors by the segment that the catalogue names."""
    with closing(sqlite3.connect(f"file:{path}/chroma.sqlite3?mode=ro", uri=True)) as connection:
        names = {name for (name,) in connection.execute("select name from collections")}
        segments = {name for (name,) in connection.execute("select id from segments where scope = 'VECTOR'")}
        (held,) = connection.execute("select (select count(*) from embeddings) + (select count(*) from embeddings_queue)").fetchone()
    if names and not held and not any(path.glob("*/")):
        return EMPTY
    whole = all((path / segment).is_dir() for segment in segments)
    return _one({name.partition("-")[0] for name in names} if whole else set(), path, names)


def _paper(word: str, name: str, size: int) -> bytes:
    return (f"{word} {name} ".encode() * size)[:size]


def _one(words: set[str], path: Path, found: object) -> str:
    return words.pop() if len(words) == 1 else f"MIXED {path.name}: {found}"

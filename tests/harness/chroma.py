"""Real Chroma for tests: embedded clients and servers in processes of their own, loaded fast and always with the same data."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storekeeper.stack.model import ChromaModel
from storekeeper.stores.chroma.catalogue import open_catalogue
from storekeeper.stores.chroma.hold import ChromaHold
from storekeeper.stores.chroma.rows import CollectionRows, vector_of
from storekeeper.stores.chroma.store import ChromaStore
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Dumped, Facts
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.surroundings import Surroundings
from tests.harness.proving import content_of_copy

PATIENCE_S = 60.0
_ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "ANONYMIZED_TELEMETRY": "False", "LC_ALL": "C.UTF-8"}
_PRELUDE = """
import json, sys, time
import chromadb, numpy
from chromadb.config import Settings

arguments = json.loads(sys.argv[2])
settings = Settings(anonymized_telemetry=False)
client = chromadb.PersistentClient(sys.argv[1], settings=settings)


def vectors(count, dimension, seed=1):
    return numpy.random.default_rng(seed).random((count, dimension), dtype=numpy.float32)


def collection(name, space="l2", sync=1000, ef=20, neighbours=8):
    hnsw = {"space": space, "sync_threshold": sync, "batch_size": min(100, sync), "ef_construction": ef, "max_neighbors": neighbours}
    return client.get_or_create_collection(name, embedding_function=None, configuration={"hnsw": hnsw})


def load(into, count, dimension, first=0, batch=5000, seed=1, bare=False):
    for start in range(first, first + count, batch):
        numbers = range(start, min(start + batch, first + count))
        if bare:
            into.add(ids=[f"chunk-{number:07}" for number in numbers], embeddings=vectors(len(numbers), dimension, seed + start))
            continue
        into.add(
            ids=[f"chunk-{number:07}" for number in numbers],
            embeddings=vectors(len(numbers), dimension, seed + start),
            documents=[f"text of chunk {number}" for number in numbers],
            metadatas=[{"doc_id": f"doc-{number // 20}", "page": number % 20} for number in numbers],
        )


def say(word):
    sys.stdout.write(json.dumps(word) + "\\n")
    sys.stdout.flush()
"""
_WRITER = """
target = collection("papers")
for attempt in range(100):  # a client that has just opened a directory still writes to it by itself, and refuses its own caller meanwhile
    try:
        target.modify(configuration={"hnsw": {"sync_threshold": arguments["sync"], "batch_size": min(100, arguments["sync"])}})
        break
    except chromadb.errors.InternalError as error:
        if "database is locked" not in str(error) or attempt == 99:
            raise
        time.sleep(0.05)
target = collection("papers")
batch, number, slowest = arguments["batch"], 0, 0.0
while True:
    began = time.monotonic()
    load(target, batch, arguments["dimension"], first=10_000_000 + number * batch, batch=batch, bare=True)
    number, slowest = number + 1, max(slowest, time.monotonic() - began)
    say([number, slowest])
"""


def execute(directory: Path, code: str, *, patience_s: float = PATIENCE_S * 4, **arguments: Any) -> list[Any]:
    """Run code on an embedded client in a process of its own; returns what it said (`say`)."""
    finished = subprocess.run(argv_of(directory, code, arguments), capture_output=True, env=_ENVIRONMENT, check=False, timeout=patience_s)
    if finished.returncode != 0:
        raise RuntimeError(finished.stderr.decode()[-4000:])
    return [json.loads(line) for line in finished.stdout.splitlines()]


@contextmanager
def running(directory: Path, code: str, **arguments: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The same, still running while the block does. What it says on standard error stands in the run's own."""
    process = subprocess.Popen(argv_of(directory, code, arguments), stdout=subprocess.PIPE, env=_ENVIRONMENT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Writer:
    """A client that adds batches to `papers` without pause. A batch counts when Chroma has acknowledged it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.slowest_s = 0.0
        self.acknowledged = 0
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)

    def look(self) -> int:
        """How many batches are acknowledged by now. Raises RuntimeError when the writer has failed."""
        if self._process.stdout is None or self._process.poll() is not None:
            raise RuntimeError("the writer has ended")
        for line in self._process.stdout.readlines():
            self.acknowledged, self.slowest_s = json.loads(line)
        return self.acknowledged

    def wait_for(self, more: int) -> int:
        """Wait until so many more batches are acknowledged."""
        goal, deadline = self.look() + more, time.monotonic() + PATIENCE_S
        while self.look() < goal:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the writer stands still at {self.acknowledged} batches")
            time.sleep(0.01)
        return self.acknowledged


@contextmanager
def writing(directory: Path, *, dimension: int, batch: int = 250, sync: int = 500) -> Iterator[Writer]:
    with running(directory, _WRITER, dimension=dimension, batch=batch, sync=sync) as process:
        writer = Writer(process)
        writer.wait_for(1)
        yield writer


_CLIENT = """
import chromadb, json, numpy, sys, time
from chromadb.config import Settings
client = chromadb.HttpClient("127.0.0.1", int(sys.argv[1]), settings=Settings(anonymized_telemetry=False))
papers = client.get_collection("papers", embedding_function=None)
rng, number, slowest, batch, dimension = numpy.random.default_rng(1), 0, 0.0, int(sys.argv[2]), int(sys.argv[3])
while True:
    ids = [f"new-{number}-{each}" for each in range(batch)]
    began = time.monotonic()
    papers.add(ids=ids, embeddings=rng.random((batch, dimension), dtype=numpy.float32))
    number, slowest = number + 1, max(slowest, time.monotonic() - began)
    papers.query(query_embeddings=rng.random((1, dimension), dtype=numpy.float32), n_results=3)
    sys.stdout.write(json.dumps([number, slowest]) + "\\n")
    sys.stdout.flush()
"""


@contextmanager
def writing_to(server: ServerRuntime, *, dimension: int, batch: int = 250) -> Iterator[Writer]:
    """A client of the server that adds to `papers` and queries it without pause. It ends at the first refusal, which `look` raises."""
    argv = [sys.executable, "-c", _CLIENT, str(server.port), str(batch), str(dimension)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT) as process:
        try:
            writer = Writer(process)
            writer.wait_for(1)
            yield writer
        finally:
            process.kill()


class ServerRuntime:
    """A real Chroma server on loopback, started and stopped as a supervisor would (`runtimes.protocol.Runtime`)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._started: datetime | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def label(self) -> str:
        return "the Chroma server of this test"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def started_at(self) -> datetime | None:
        return self._started if self.is_running() else None

    def start(self) -> None:
        if self.is_running():
            return
        program, where = str(Path(sys.executable).with_name("chroma")), str(self._directory)
        argv = [program, "run", "--path", where, "--host", "127.0.0.1", "--port", str(self.port)]
        self._started = datetime.now(UTC)
        self._process = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT, cwd="/", start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(self.url):
            if time.monotonic() > deadline or not self.is_running():
                raise RuntimeError("the Chroma server did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


@contextmanager
def serving(directory: Path) -> Iterator[ServerRuntime]:
    server = ServerRuntime(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Log:
    """A restore's journal in memory (`stores.protocol.SwitchLog`)."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, Facts]] = []

    def note(self, step: str, **facts: Any) -> None:
        self.notes.append((step, json.loads(json.dumps(facts))))

    def noted(self, step: str) -> Facts | None:
        return next((facts for name, facts in reversed(self.notes) if name == step), None)


class Keeper:
    """One Chroma store with a place for its sets: backs up and restores it as the verbs do."""

    def __init__(
        self, directory: Path, room: Path, *, runtime: ServerRuntime | None = None, nobody_uses: bool = False, **declared: Any
    ) -> None:
        self.directory = directory
        self.room = room
        self.scratch = room / "scratch"
        self._sets = 0
        self.previous: Path | None = None
        for each in (room, self.scratch):
            each.mkdir(exist_ok=True)
        model = ChromaModel(kind="chroma", path=directory, **declared)
        self._declared = model, Surroundings("test", room, self.scratch, nobody_uses=nobody_uses), runtime
        self.store = self.opened()

    def backup(self) -> tuple[Path, StoreRecord, Dumped]:
        """One set: all that a backup does to one store, without the read-back."""
        self._sets += 1
        folder, work = self.room / f"set-{self._sets}", self.room / f"work-{self._sets}"
        folder.mkdir()
        work.mkdir()
        hold = self.store.hold(work)
        try:
            hold.prepare()
            pinned = hold.pin()
            hold.copy()
            hold.release()
            into = StoreFolder(folder, self.previous, lambda _: None)
            self.store.begin_dump(hold, into)
            dumped = self.store.dump(hold, into)
            into.seal()
        finally:
            hold.close()
        record = self.record(hold, pinned, into, dumped)
        self.previous = folder
        return folder, record, dumped

    def record(self, hold: ChromaHold, pinned: datetime, into: StoreFolder, dumped: Dumped) -> StoreRecord:
        made = StoreRecord(
            "chroma",
            dumped.klass,
            "",
            pinned,
            hold.pause_ms,
            0.0,
            0.0,
            into.bytes,
            dumped.counts,
            dumped.digests,
            into.artefacts,
            dumped.details,
        )
        return StoreRecord.from_json(json.loads(json.dumps(made.to_json())))

    def verify(self, folder: Path, record: StoreRecord) -> None:
        """As another run of the program does, which has not seen how the set was made."""
        self.opened().verify(folder, record)

    def prove(self, folder: Path, record: StoreRecord) -> bool:
        """Whether Chroma answers what the files hold, and they are what was recorded. Raises Failed where Chroma differs."""
        scratch = self.scratch / folder.name
        scratch.mkdir()
        content = content_of_copy(self.store, folder, record, scratch)
        return content.counts == record.counts and content.digests == record.digests

    def opened(self) -> ChromaStore:
        return ChromaStore("vectors", *self._declared)


def read_whole(directory: Path) -> dict[str, tuple[int, str]]:
    """The documents of each collection, all of them read without Chroma: how many there are, and a digest of what they say."""
    found = {}
    with open_catalogue(directory, sealed=True) as catalogue:
        for collection in catalogue.collections():
            count, digest = 0, hashlib.sha256()
            with CollectionRows(catalogue, collection) as rows:
                for row in rows:
                    count += 1
                    digest.update(json.dumps([row.id, row.metadata, vector_of(row, collection).hex()], sort_keys=True).encode())
            found[collection.key] = count, digest.hexdigest()
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def argv_of(directory: Path, code: str, arguments: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), str(directory), json.dumps(arguments)]

"""Chroma directories of 50,000 vectors that are written to while they are copied. Each guard is shown to be needed in the same run."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma import checking, copying, layout
from storekeeper.stores.chroma.copying import Copy
from storekeeper.stores.chroma.hold import ChromaHold
from tests.harness.chroma import Keeper, Writer, argv_of, execute, serving, writing
from tests.harness.chroma_files import made_once
from tests.stores.walk import check_sums

VECTORS, DIMENSION, BATCH = 50_000, 16, 250
TRIALS, PROVEN = 10, 2


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = "load(collection('papers', sync=10000), arguments['count'], arguments['dimension'], bare=True)"
    return made_once(tmp_path_factory, "large", code, count=VECTORS, dimension=DIMENSION)


@pytest.fixture
def live(large: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(large, tmp_path / "store"))


@pytest.fixture
def writer(live: Path) -> Iterator[Writer]:
    with writing(live, dimension=DIMENSION, batch=BATCH) as process:
        yield process


def _loss(found: int, acknowledged: int) -> str | None:
    """What a copy lacks, in words; None when it holds every batch that was acknowledged before it, and no part of one."""
    count = found - VECTORS
    if count < acknowledged * BATCH or count % BATCH:
        return f"{count} documents of {acknowledged} batches"
    return None


def _loss_of(copy: Path, acknowledged: int) -> str | None:
    """The same for a copy of which nothing is known yet."""
    try:
        return _loss(checking.check(copy)["papers"], acknowledged)
    except Failed as error:
        return error.message


def test_every_copy_under_a_writer_is_whole_and_a_plain_copy_is_not(live: Path, writer: Writer, tmp_path: Path) -> None:
    keeper = Keeper(live, tmp_path / "room")
    for trial in range(TRIALS):
        acknowledged = writer.wait_for(2)
        folder, record, _ = keeper.backup()
        check_sums(folder, record)  # none is of the first pass where the file was copied again under the lock
        keeper.verify(folder, record)
        assert _loss(record.counts["papers"], acknowledged) is None
        if trial < PROVEN:
            assert keeper.prove(folder, record)
        shutil.rmtree(folder)
        keeper.previous = None
    # Control: the same load, the same check, a plain copy, slowed down as a larger directory would be.
    assert any(_plain_copy_breaks(live, tmp_path / f"plain-{trial}", writer) for trial in range(TRIALS)), "this load proves nothing"


def test_sqlite_newer_than_the_index_is_what_breaks_a_copy(live: Path, writer: Writer, tmp_path: Path) -> None:
    """Control of the second pass: with the first pass alone for the index, and the SQLite file under the lock, documents are lost.

    Chroma writes the index out when it wants to, so not every trial can break; one of them must.
    """
    assert any(_copy_without_a_second_pass_breaks(live, writer, tmp_path / f"copy-{trial}") for trial in range(TRIALS))


def _copy_without_a_second_pass_breaks(live: Path, writer: Writer, target: Path) -> bool:
    target.mkdir()
    Copy(live, target, with_database=True).first_pass()
    writer.wait_for(8)
    with _locked_by_another(live):
        shutil.copy(live / layout.DATABASE, target / layout.DATABASE)
    try:
        checking.check(target)
    except Failed as error:
        return "has no vector" in error.message
    return False


def test_queries_and_writes_go_on_against_a_server_that_is_backed_up(live: Path, tmp_path: Path) -> None:
    with serving(live) as server:
        keeper = Keeper(live, tmp_path / "room", url=server.url, runtime=server)
        assert list(keeper.store.preflight()) == []
        program = _client_of(server.port)
        try:
            acknowledged = 0
            for _ in range(3):
                acknowledged = _acknowledged(program, acknowledged + 2)
                folder, record, _ = keeper.backup()
                keeper.verify(folder, record)
                assert _loss(record.counts["papers"], acknowledged) is None
            assert keeper.prove(folder, record)
            _acknowledged(program, acknowledged + 2)  # it still writes, and has never been refused
        finally:
            program.kill()
            program.wait()
            _close(program)


def test_collections_made_and_deleted_while_they_are_copied_are_all_or_not_there(tmp_path: Path) -> None:
    live = tmp_path / "store"
    execute(live, "load(collection('papers'), 5000, 16)")
    keeper = Keeper(live, tmp_path / "room")
    code = """
    number = 0
    while True:
        name = f"passing-{number % 3}"
        into = collection(name, sync=100)
        load(into, 300, 8, batch=100)
        say(number)
        client.delete_collection(name)
        number += 1
    """
    with subprocess.Popen(argv_of(live, code, {}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            for _ in range(8):
                process.stdout.readline()
                folder, record, _ = keeper.backup()
                keeper.verify(folder, record)
                assert record.counts["papers"] == 5000
                passing = [count for name, count in record.counts.items() if name != "papers"]
                assert all(count in (0, 100, 200, 300) for count in passing)
        finally:
            process.kill()


def test_a_lock_that_another_tool_keeps_fails_the_store_and_nothing_hangs(live: Path, tmp_path: Path) -> None:
    hold = _hold(live, tmp_path, wait_s=0.3)
    with _locked_by_another(live):
        try:
            hold.prepare()
            with pytest.raises(Failed, match="being written by another program"):
                hold.pin()
        finally:
            hold.close()
    assert not hold.directory.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_writers_go_on_when_the_program_is_killed_or_stopped_while_it_holds_the_lock(
    how: signal.Signals, live: Path, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    program = f"""
import sys, time
from pathlib import Path
from storekeeper.stores.chroma.hold import ChromaHold
hold = ChromaHold(Path({str(live)!r}), Path({str(tmp_path / "work")!r}), cap_s=1.5)
hold.prepare(); hold.pin(); print("held", flush=True); time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                _write(live, wait_s=0)  # control: it is held
            process.send_signal(how)
            _write(live, wait_s=30)
        finally:
            process.kill()


def test_a_copy_that_takes_longer_than_the_cap_fails_with_the_seconds_it_needed(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = _hold(live, tmp_path, cap_s=0.2)
    try:
        hold.prepare()
        hold.pin()
        monkeypatch.setattr(Copy, "under_lock", lambda _: time.sleep(0.6))
        hold.copy()
        _write(live, wait_s=0)  # the lock is gone: what was copied since is worthless
        with pytest.raises(Failed, match=r"locked for 0\.2 s at most, but 0\.[6-9] s were needed"):
            hold.release()
    finally:
        hold.close()


def test_an_index_that_is_never_whole_fails_the_store_in_bounded_time(live: Path, tmp_path: Path) -> None:
    """What a crash in the middle of writing leaves: vectors that the map does not know."""
    pickle = next(live.glob(f"*/{layout.PICKLE}"))
    os.truncate(pickle, 20)
    (tmp_path / "copy").mkdir()
    copy = Copy(live, tmp_path / "copy", with_database=True)
    copy.first_pass()
    with pytest.raises(Failed, match="did not come to rest"):
        copy.under_lock(patience_s=0.3)


def test_an_index_that_is_being_written_is_waited_for(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is written last: until it is, new vectors stand beside an old map."""
    vectors, pickle = next(live.glob(f"*/{layout.VECTORS}")), next(live.glob(f"*/{layout.PICKLE}"))
    (tmp_path / "copy").mkdir()
    copy = Copy(live, tmp_path / "copy", with_database=True)
    copy.first_pass()
    os.utime(vectors)
    waits: list[float] = []
    sleep = time.sleep

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            os.utime(pickle)
        sleep(seconds)

    monkeypatch.setattr(copying.time, "sleep", wait)
    copy.under_lock()
    assert len(waits) >= 20


def _hold(live: Path, tmp_path: Path, **limits: float) -> ChromaHold:
    (tmp_path / "work").mkdir()
    return ChromaHold(live, tmp_path / "work", **limits)


def _write(directory: Path, wait_s: float) -> None:
    connection = sqlite3.connect(directory / layout.DATABASE, timeout=wait_s)
    try:
        with connection:
            connection.execute("insert into maintenance_log values (null, 1, 'test')")
    finally:
        connection.close()


@contextmanager
def _locked_by_another(directory: Path) -> Iterator[None]:
    """In a process of its own: in this one, the next close of the file would drop the lock (fcntl(2))."""
    code = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate'); "
    code += "print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, directory / layout.DATABASE], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield
        finally:
            process.kill()


def _plain_copy_breaks(source: Path, target: Path, writer: Writer) -> bool:
    """`cp -r` that comes to the index first, with a little time between files; whether the result is any less than a backup."""
    acknowledged = writer.look()
    target.mkdir()
    for path in sorted(source.rglob("*"), key=lambda each: (each.name == layout.DATABASE, each)):
        if path.name.endswith(("-journal", "-wal", "-shm")):
            continue
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copy(path, target / path.relative_to(source))
            writer.wait_for(2)
    loss = _loss_of(target, acknowledged)
    shutil.rmtree(target)
    return loss is not None


def _client_of(port: int) -> subprocess.Popen[bytes]:
    code = f"""
import chromadb, json, numpy, sys
from chromadb.config import Settings
client = chromadb.HttpClient("127.0.0.1", {port}, settings=Settings(anonymized_telemetry=False))
papers = client.get_collection("papers", embedding_function=None)
rng = numpy.random.default_rng(1)
number = 0
while True:
    papers.add(ids=[f"new-{{number}}-{{i}}" for i in range({BATCH})], embeddings=rng.random(({BATCH}, {DIMENSION}), dtype=numpy.float32))
    papers.query(query_embeddings=rng.random((1, {DIMENSION}), dtype=numpy.float32), n_results=3)
    number += 1
    print(number, flush=True)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _acknowledged(program: subprocess.Popen[bytes], goal: int) -> int:
    """Read what the client says until it has had so many batches acknowledged."""
    found = 0
    while found < goal:
        line = program.stdout.readline() if program.stdout is not None else b""
        assert line, "the client has ended"
        found = int(line)
    return found


def _close(program: subprocess.Popen[bytes]) -> None:
    if program.stdout is not None:
        program.stdout.close()

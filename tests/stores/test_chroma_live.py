"""Chroma directories of 50,000 vectors that are written to while they are copied. Each guard is shown to be needed in the same run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed
from storekeeper.stores.chroma import checking, copying, layout
from storekeeper.stores.chroma.copying import Copy
from storekeeper.stores.chroma.dumping import CONTENT
from storekeeper.stores.chroma.hold import ChromaHold
from tests.harness.campaign import Campaign
from tests.harness.chroma import Keeper, Writer, argv_of, execute, read_whole, serving, writing, writing_to
from tests.harness.chroma_files import locked_by_another, made_once, write_to
from tests.stores.walk import check_sums

VECTORS, DIMENSION, BATCH = 50_000, 16, 250
TRIALS, PROVEN = 10, 1


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


def _copies_under_load(
    live: Path, room: Path, trials: int, written: Callable[[], int], plain: Callable[[Path], bool]
) -> tuple[list[str], int]:
    """What is lost in copies of ours, and in how many of as many plain copies under the same load something is."""
    keeper, lost = Keeper(live, room), []
    for trial in range(trials):
        acknowledged = written()
        folder, record, _ = keeper.backup()
        check_sums(folder, record)  # none is of the first pass where the file was copied again under the lock
        keeper.verify(folder, record)
        lost += [loss] if (loss := _loss(record.counts["papers"], acknowledged)) is not None else []
        if trial < PROVEN:
            assert keeper.prove(folder, record)
        shutil.rmtree(folder)
        keeper.previous = None
    return lost, sum(plain(room / f"plain-{trial}") for trial in range(trials))


def _refuse_toys(broken: int) -> None:
    """A load under which a plain copy is as good as ours says nothing about ours."""
    if not broken:
        pytest.fail("no plain copy broke: this load proves nothing")


@pytest.mark.fault("J12")
def test_every_copy_under_a_writer_is_whole_and_a_plain_copy_is_not(live: Path, writer: Writer, tmp_path: Path, campaign: Campaign) -> None:
    """Control: the same load, the same check, a plain copy, slowed down as a larger directory would be."""
    trials = campaign.trials(reduced=4, full=20)
    lost, broken = _copies_under_load(
        live, tmp_path / "room", trials, lambda: writer.wait_for(2), lambda target: _plain_copy_breaks(live, target, writer)
    )
    campaign.found(trials, f"copies of {VECTORS:,} vectors under a writer", f"{len(lost)} lack something; of as many plain copies {broken}")
    _refuse_toys(broken)
    assert lost == []


@pytest.mark.fault("J12")
@pytest.mark.control("J12")
def test_the_same_on_a_small_directory_at_rest_looks_as_well_and_is_refused_as_a_proof(tmp_path: Path) -> None:
    live = tmp_path / "store"
    execute(live, "load(collection('papers'), 1000, 16, bare=True)")

    def plain(target: Path) -> bool:
        shutil.copytree(live, target)
        return checking.check(target)["papers"] != 1000

    keeper = Keeper(live, tmp_path / "room")
    folder, record, _ = keeper.backup()
    keeper.verify(folder, record)
    assert record.counts["papers"] == 1000, "our copy is whole"
    broken = sum(plain(tmp_path / f"plain-{trial}") for trial in range(5))
    assert broken == 0, "and so is each plain one: without the refusal this run would count as a proof"
    with pytest.raises(pytest.fail.Exception, match="proves nothing"):
        _refuse_toys(broken)


def test_sqlite_newer_than_the_index_is_what_breaks_a_copy(live: Path, writer: Writer, tmp_path: Path) -> None:
    """Control of the second pass: with the first pass alone for the index, and the SQLite file under the lock, documents are lost.

    Chroma writes the index out when it wants to, so not every trial can break; one of them must.
    """
    assert any(_copy_without_a_second_pass_breaks(live, writer, tmp_path / f"copy-{trial}") for trial in range(TRIALS))


def _copy_without_a_second_pass_breaks(live: Path, writer: Writer, target: Path) -> bool:
    target.mkdir()
    Copy(live, target, with_database=True).first_pass()
    writer.wait_for(8)
    with locked_by_another(live):
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
        with writing_to(server, dimension=DIMENSION, batch=BATCH) as writer:
            for _ in range(3):
                acknowledged = writer.wait_for(2)
                folder, record, _ = keeper.backup()
                keeper.verify(folder, record)
                assert _loss(record.counts["papers"], acknowledged) is None
            assert keeper.prove(folder, record)
            writer.wait_for(2)  # it still writes, and has never been refused


_PASSING = """
number = 0
while True:
    name = f"passing-{number % 3}"
    into = collection(name, sync=100)
    load(into, 300, 8, batch=100)
    say(number)
    client.delete_collection(name)
    number += 1
"""


@contextmanager
def _collections_come_and_go(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """A directory, and what waits until another collection was made."""
    live = tmp_path / "store"
    execute(live, "load(collection('papers'), 5000, 16)")
    with subprocess.Popen(argv_of(live, _PASSING, {}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield live, process.stdout.readline
        finally:
            process.kill()


@pytest.mark.fault("J10")
def test_collections_made_and_deleted_while_they_are_copied_are_all_or_not_there(tmp_path: Path, campaign: Campaign) -> None:
    trials, states, wrong = campaign.trials(reduced=6, full=20), set(), []
    with _collections_come_and_go(tmp_path) as (live, wait):
        keeper = Keeper(live, tmp_path / "room")
        for _ in range(trials):
            assert wait()
            folder, record, _ = keeper.backup()
            keeper.verify(folder, record)
            passing = {name: count for name, count in record.counts.items() if name != "papers"}
            listed = {name: count for name, (count, _) in read_whole(folder / CONTENT).items()}
            states.add(tuple(sorted(passing.items())))
            if listed != record.counts or record.counts["papers"] != 5000 or not set(passing.values()) <= {0, 100, 200, 300}:
                wrong.append(record.counts)
    campaign.found(
        trials, f"copies while collections come and go ({len(states)} states of them seen)", f"{len(wrong)} with half a collection"
    )
    assert wrong == []
    assert len(states) > 2, "nothing was made or deleted meanwhile: this run proves nothing"


@pytest.mark.control("J10")
def test_control_a_plain_copy_holds_collections_whose_files_are_not_there(tmp_path: Path) -> None:
    with _collections_come_and_go(tmp_path) as (live, wait):
        assert any(_lists_what_it_lacks(live, tmp_path / f"plain-{trial}", wait) for trial in range(30))


def _lists_what_it_lacks(live: Path, target: Path, wait: Callable[[], bytes]) -> bool:
    """`cp -r` that comes to the index first, and to SQLite when another collection was made."""
    target.mkdir()
    for path in [path for path in live.iterdir() if path.is_dir()]:
        with suppress(shutil.Error, FileNotFoundError):
            shutil.copytree(path, target / path.name)
    wait()
    shutil.copy(live / layout.DATABASE, target / layout.DATABASE)
    try:
        checking.check(target)
    except Failed as error:
        return "is missing" in error.message or "has no vector" in error.message
    finally:
        shutil.rmtree(target)
    return False


def test_a_copy_that_takes_longer_than_the_cap_fails_with_the_seconds_it_needed(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = _hold(live, tmp_path, cap_s=0.2)
    try:
        hold.prepare()
        hold.pin()
        monkeypatch.setattr(Copy, "under_lock", lambda _: time.sleep(0.6))
        hold.copy()
        write_to(live, wait_s=0)  # the lock is gone: what was copied since is worthless
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

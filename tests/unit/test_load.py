"""What a run leaves to others: the rank of its threads, the bytes a second of its loops, and what is declared of both."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

import pytest

from storekeeper.host import load
from storekeeper.host.aside import Aside
from storekeeper.host.hashing import Hashers
from storekeeper.host.load import Bucket, Limits
from storekeeper.stack.loader import StackFileErrors, check_text
from storekeeper.stores import rawcopy
from tests.harness.stacks import in_child

RATE = 1_000_000
LOWEST = (2, 7)  # the best-effort class, its last rank
STACK = "stack: notes\nstores:\n  papers: {kind: files, path: /srv/papers}\nbackup: "


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def bucket(time: Time, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """That of the runs of this test."""
    made = Bucket(RATE, time.read, time.sleep)
    monkeypatch.setattr(load, "Bucket", lambda _: made)
    return made


def ranks() -> tuple[int, tuple[int, int]]:
    """The calling thread's niceness, and its class and rank for the disk, as the kernel has them."""
    number = {"x86_64": 252, "aarch64": 31, "riscv64": 31}[os.uname().machine]
    stored = ctypes.CDLL(None).syscall(number, 1, 0)
    return os.getpriority(os.PRIO_PROCESS, 0), (stored >> 13, stored & 0x1FFF)


def test_no_second_has_more_bytes_than_the_rate_and_one_burst(time: Time) -> None:
    bucket, moved = Bucket(RATE, time.read, time.sleep), []
    for number in range(400):
        bucket.take(1 + number * 7919 % 120_000)
        moved.append((time.now, 1 + number * 7919 % 120_000))
        if number % 50 == 0:
            time.now += 3.0  # a pause saves nothing up
    for began, _ in moved:
        within = sum(count for at, count in moved if began < at <= began + 1.0)
        assert within <= RATE * 1.25 + 120_000


def test_the_first_bytes_after_a_pause_wait_for_nothing_but_what_is_above_the_burst(time: Time) -> None:
    bucket = Bucket(RATE, time.read, time.sleep)
    bucket.take(RATE // 4)
    assert time.now == 1000.0
    bucket.take(RATE)
    assert time.now == 1001.0


def test_several_threads_share_one_bucket() -> None:
    waited, lock = [], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            waited.append(seconds)

    bucket = Bucket(RATE, lambda: 0.0, sleep)
    threads = [threading.Thread(target=bucket.take, args=(RATE,)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(waited) == [number + 0.75 for number in range(8)], "the clock stood: each waits for all before it"


def test_the_copy_and_the_hash_of_a_file_are_paced_in_pieces(tmp_path: Path, time: Time, bucket: Bucket) -> None:
    (tmp_path / "source").write_bytes(os.urandom(3 * RATE))
    with load.limited(Limits(max_rate=RATE)):
        assert load.piece(1 << 30) == RATE // 4
        rawcopy.copy_file(tmp_path / "source", tmp_path / "target")
        copied = time.now - 1000.0
        with Hashers(threads=1) as hashers:
            hashers.start(os.open(tmp_path / "target", os.O_RDONLY)).result(lambda _: None)
    assert copied == pytest.approx(2.75)
    assert time.now - 1000.0 == pytest.approx(5.75)


def test_without_a_declared_rate_nothing_waits_and_pieces_are_whole(time: Time, bucket: Bucket) -> None:
    with load.limited(Limits(nice=10)):
        load.spend(1 << 40)
        assert load.piece(1 << 30) == 1 << 30
    load.spend(1 << 40)
    assert time.now == 1000.0


def test_in_a_hurry_nothing_waits_and_afterwards_all_does_again(time: Time, bucket: Bucket) -> None:
    with load.limited(Limits(max_rate=RATE)):
        with load.hurry():
            load.spend(100 * RATE)
            assert load.piece(1 << 30) == 1 << 30
        assert time.now == 1000.0
        load.spend(2 * RATE)
    assert time.now > 1001.0


def test_a_thread_is_lowered_and_its_caller_is_not() -> None:
    with load.limited(Limits(nice=10)):
        with load.lowered_threads(1) as threads:
            assert threads.submit(ranks).result() == (10, LOWEST)
        with Aside() as aside:
            assert aside.do(ranks) == (10, LOWEST)
        assert os.getpriority(os.PRIO_PROCESS, 0) == 0


def test_a_thread_that_ranks_lower_already_is_never_raised() -> None:
    def nicest() -> int:
        os.setpriority(os.PRIO_PROCESS, 0, 15)
        load.lower()
        return os.getpriority(os.PRIO_PROCESS, 0)

    with load.limited(Limits(nice=10)), Aside() as aside:
        assert aside.do(nicest) == 15


def test_niceness_0_leaves_both_ranks_alone() -> None:
    before = ranks()
    with load.limited(Limits(nice=0)), load.lowered_threads(1) as threads:
        assert threads.submit(ranks).result() == before


def test_what_a_lowered_thread_starts_is_lowered_too() -> None:
    def child() -> None:
        with load.limited(Limits(nice=12)):
            load.lower()
            with load.lowered_threads(1) as threads:
                assert threads.submit(ranks).result() == (12, LOWEST)
            assert in_child(lambda: os._exit(os.getpriority(os.PRIO_PROCESS, 0))) == 12

    assert in_child(child) == 0


def test_a_long_copy_aside_ends_when_its_caller_is_stopped() -> None:
    """A signal reaches the caller only, who waits: without the word to give up, the thread would end its work first."""
    spent = 0

    def copy() -> None:
        nonlocal spent
        while spent < 20_000_000:
            load.spend(1)
            spent += 1
            if spent == 5:
                os.kill(os.getpid(), signal.SIGUSR1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt), Aside() as aside:
            aside.do(copy)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert 5 <= spent < 20_000_000


@pytest.mark.parametrize(("text", "rate"), [("50MB", 50_000_000), ("100kB", 100_000), ("2GB", 2_000_000_000)])
def test_a_declared_load_is_read_and_written_back(text: str, rate: int) -> None:
    stack = check_text(f"{STACK}{{load: {{nice: 19, max_rate: {text}}}}}\n", "notes.yml")
    assert (stack.backup.load.nice, stack.backup.load.max_rate) == (19, rate)
    assert stack.model_dump(mode="json")["backup"]["load"] == {"nice": 19, "max_rate": text}
    assert type(stack).model_validate_json(stack.model_dump_json()) == stack


def test_what_is_left_out_means_low_rank_and_no_limit() -> None:
    stack = check_text(f"{STACK}{{}}\n", "notes.yml")
    assert (stack.backup.load.nice, stack.backup.load.max_rate) == (10, None)


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ("{load: 10}", "expected a mapping such as {nice: 10, max_rate: 50MB}, found the number 10"),
        ("{load: {nice: -5}}", "expected 0 or more, found the number -5"),
        ("{load: {nice: 20}}", "expected at most 19, found the number 20"),
        ("{load: {nice: low}}", 'expected a number, found "low"'),
        ("{load: {max_rate: 50}}", "expected bytes a second such as 50MB, at least 100kB, found the number 50"),
        ("{load: {max_rate: 50 MiB/s}}", 'expected bytes a second such as 50MB, at least 100kB, found "50 MiB/s"'),
        ("{load: {max_rate: 99kB}}", 'expected bytes a second such as 50MB, at least 100kB, found "99kB"'),
        ("{load: {rate: 50MB}}", 'unknown key "rate"'),
    ],
)
def test_a_mistake_in_it_is_said_in_words(declared: str, sentence: str) -> None:
    with pytest.raises(StackFileErrors) as caught:
        check_text(f"{STACK}{declared}\n", "notes.yml")
    (mistake,) = caught.value.mistakes
    assert sentence in str(mistake)

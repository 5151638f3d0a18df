"""Threads that nobody waits for any more: they stop in their loops, and with the programs that they wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from storekeeper.host import load
from storekeeper.host.aside import Aside
from storekeeper.host.giving_up import GivenUp, ending, heed
from storekeeper.host.processes import Command, ProgramFailed, reading, run, writing
from storekeeper.host.waiting import result_of

SLEEP = Command(["/bin/sleep", "60"])


def left(*actions: Callable[[], object], after: float = 0.0) -> Future[object]:
    """The last of the actions of a thread whose caller was told to stop while it was at the first."""
    aside = Aside()
    begun = [aside.begin(action) for action in actions]
    try:
        with aside:
            time.sleep(after)
            assert not begun[0].done()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return begun[-1]


def read_all() -> None:
    with reading(SLEEP) as chunks:
        list(chunks)


def write_all() -> None:
    with writing(SLEEP) as sink:
        while True:
            sink.write(b"x" * 65536)  # more than the pipe holds: the thread waits for the program


@pytest.mark.fault("A3")
@pytest.mark.parametrize("wait", [read_all, write_all, lambda: run(SLEEP)], ids=["reading", "writing", "run"])
def test_a_thread_that_waits_for_a_program_comes_to_its_end_when_it_is_given_up(wait) -> None:
    began = time.monotonic()
    waiting = left(wait, after=0.3)
    assert time.monotonic() - began < 30, "sixty seconds is how long the program would have taken"
    assert isinstance(waiting.exception(), ProgramFailed)


@pytest.mark.control("A3")
def test_control_a_program_that_the_thread_did_not_name_is_waited_for() -> None:
    """What `ending` is for: without it the thread would sleep on."""
    seconds = 1.5
    began = time.monotonic()
    left(lambda: time.sleep(seconds))
    assert time.monotonic() - began >= seconds


def test_what_was_not_begun_yet_never_is(tmp_path: Path) -> None:
    second = left(lambda: time.sleep(0.2), (tmp_path / "made").touch)
    assert second.cancelled()
    assert not (tmp_path / "made").exists()


def test_a_loop_and_a_program_begun_afterwards_end_at_once() -> None:
    def go_on() -> str:
        while True:
            try:
                load.spend(1)
            except GivenUp:
                break
        with pytest.raises(GivenUp), ending(lambda: None):
            pass
        return "ended"

    with Aside() as aside:
        looping = aside.begin(go_on)
        time.sleep(0.05)
        aside.give_up()
        aside.give_up()
    assert looping.result() == "ended"
    heed()  # and nothing of it is the caller's


def test_what_a_thread_has_done_is_told_while_it_is_waited_for() -> None:
    told: list[int] = []
    done = [0]

    def count() -> str:
        for _ in range(4):
            time.sleep(0.1)
            done[0] += 25
        return "all"

    with Aside() as aside:
        assert result_of(aside.begin(count), lambda: done[0], told.append) == "all"
    assert sum(told) == 100
    assert len(told) > 1


def test_an_error_of_the_thread_is_raised_to_whoever_waits() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), Aside() as aside:
        result_of(aside.begin(fail), lambda: 0, lambda _: None)

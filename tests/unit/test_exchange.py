"""Switching one directory entry: killed before any step it can be finished or undone, because inodes say what names do not."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores.exchange import switch_entry, switch_entry_back
from tests.stores.walk import Crash, Journal


class Entry:
    """An entry with a live and a staged side, each a directory with one file, and the journal of its switch."""

    def __init__(self, room: Path, *, live: bool = True) -> None:
        self.names = {name: room / name / "entry" for name in ("live", "stage", "old")}
        for name, path in self.names.items():
            path.parent.mkdir(parents=True)
            if name == "stage" or (name == "live" and live):
                path.mkdir()
                (path / "side").write_text("new" if name == "stage" else "old")
        self.journal = Journal()

    def run(self, step: Callable[..., None]) -> None:
        step(self.names["live"], self.names["stage"], self.names["old"], self.journal, "entry")

    def found(self) -> dict[str, str]:
        return {name: (path / "side").read_text() for name, path in self.names.items() if path.exists()}


def dying(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The `number`-th change of a name, or note, does not happen any more, and nothing after it."""
    count = iter(range(1_000_000))

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            if next(count) == number:
                raise Crash
            return real(*words, **more)

        return call

    monkeypatch.setattr(os, "rename", wrapped(os.rename))
    monkeypatch.setattr(durable, "exchange", wrapped(durable.exchange))
    monkeypatch.setattr(Journal, "note", wrapped(Journal.note))


def cannot_exchange(first: Path, second: Path) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("live", [True, False], ids=["something is live", "nothing is live"])
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("steps", list(itertools.product(["switch", "back"], repeat=3)), ids=" then ".join)
def test_killed_twice_at_any_steps_it_ends_on_the_side_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool, exchanges: bool, steps: tuple[str, str, str]
) -> None:
    """The first two runs are killed, at every pair of their steps; the third ends, and is repeated."""
    first, second, last = (switch_entry if step == "switch" else switch_entry_back for step in steps)
    expected = {
        "switch": {"live": "new", "old": "old"} if live else {"live": "new"},
        "back": {"live": "old", "stage": "new"} if live else {"stage": "new"},
    }[steps[2]]
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a kill takes nothing that was written
    if not exchanges:
        monkeypatch.setattr(durable, "exchange", cannot_exchange)
    killed = 0
    for numbers in itertools.product(range(6), repeat=2):
        entry = Entry(tmp_path / "-".join(map(str, numbers)), live=live)
        if steps[0] == "back":
            entry.run(switch_entry)
        for step, number in zip((first, second), numbers, strict=True):
            with monkeypatch.context() as death:
                dying(death, number)
                try:
                    entry.run(step)
                except Crash:
                    killed += 1
        if entry.journal.noted("entry") is None and steps[2] == "back":
            continue  # nothing was begun, so there is nothing to go back from
        for _ in range(2):
            entry.run(last)
            assert entry.found() == expected, f"killed at steps {numbers}"
    assert killed > 6, "a run that was never interrupted proves nothing"


def test_control_without_the_note_a_second_run_would_undo_the_first(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    durable.exchange(entry.names["stage"], entry.names["live"])
    entry.run(switch_entry)
    assert entry.found()["live"] == "old", "its first note comes after the exchange, and takes the old side for the staged one"


def test_an_entry_whose_staged_side_is_gone_fails_and_is_not_emptied(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    entry.journal.note("entry", incoming=1, live=2)
    with pytest.raises(Failed, match=r"neither .* is what was staged"):
        entry.run(switch_entry)
    assert entry.found() == {"live": "old", "stage": "new"}


def test_an_old_side_that_is_gone_fails_the_way_back_and_keeps_what_is_live(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    entry.run(switch_entry)
    (entry.names["old"] / "side").unlink()
    entry.names["old"].rmdir()
    with pytest.raises(Failed, match="is neither at"):
        entry.run(switch_entry_back)
    assert entry.found() == {"live": "new"}

"""The journal: what was acknowledged is there after a crash, what was torn is not, and damage is never guessed around."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from storekeeper.host import locks
from storekeeper.outcomes import Failed, Refused
from storekeeper.restore.journal import Journal, Step, StoreLog, journals, refuse_unfinished, unfinished

FACTS = {"purpose": "restore", "stack": "demo", "stores": ["main"]}
HOLDS = """
import sys
from pathlib import Path
from storekeeper.host import locks

with locks.hold(Path(sys.argv[1]), "restore of demo"):
    print("held", flush=True)
    sys.stdin.read()
"""


def begin(state: Path) -> Journal:
    return Journal.create(state, FACTS)


def reopened(journal: Journal) -> Journal:
    return Journal.open(journal.path)


def test_a_journal_says_again_what_was_written_to_it(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.write(Step.PLACED, "main", place={"stage": "/a", "name": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"})
    journal.write(Step.SWITCHING, "main")
    again = reopened(journal)
    assert again.token == journal.token
    assert again.begun["stack"] == "demo"
    assert again.noted(Step.PLACED, "main") == {"place": {"stage": "/a", "name": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}}
    assert again.stores(Step.SWITCHING) == ["main"]
    assert again.noted(Step.SWITCHED, "main") is None
    assert not again.is_closed


def test_the_journal_and_its_folder_are_private(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_last_line_that_a_power_cut_tore_is_dropped_and_the_next_line_takes_its_place(tmp_path: Path, kept: int) -> None:
    journal = begin(tmp_path)
    whole = journal.path.stat().st_size
    journal.write(Step.SWITCHING, "main")
    os.truncate(journal.path, min(whole + kept, journal.path.stat().st_size - 1))
    torn = reopened(journal)
    assert torn.stores(Step.SWITCHING) == []
    torn.write(Step.ABANDONING, why="it was interrupted")
    assert reopened(journal).noted(Step.ABANDONING) == {"why": "it was interrupted"}


def test_a_last_line_whose_beginning_never_reached_the_disk_is_dropped(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with open(journal.path, "ab") as file:
        file.write(b"\0" * 40 + b'"main"}\n')
    assert reopened(journal).stores(Step.SWITCHING) == []


def test_reading_a_torn_journal_changes_nothing_on_disk(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with open(journal.path, "ab") as file:
        file.write(b'{"step":"swit')
    before = journal.path.read_bytes()
    unfinished(tmp_path)
    assert journal.path.read_bytes() == before


def test_control_appending_after_a_torn_line_would_lose_the_new_line(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with open(journal.path, "ab") as file:
        file.write(b'{"step":"swit')
        file.write(b'{"at":"2025-01-09T03:00:00Z","facts":{},"step":"going_back","store":null}\n')
    assert reopened(journal).noted(Step.GOING_BACK) is None


def test_damage_before_the_last_line_is_said_and_not_skipped(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.write(Step.SWITCHING, "main")
    journal.write(Step.SWITCHED, "main", ms=1.0)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1].replace(b"switching", b"switchinh") + lines[2])
    with pytest.raises(Failed, match="damaged in line 2"):
        unfinished(tmp_path)


def test_a_journal_of_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    first = json.loads(journal.path.read_bytes())
    first["facts"]["format"] = 2
    journal.path.write_text(json.dumps(first) + "\n" + '{"step":"teleporting"}\n' + "{}\n")
    with pytest.raises(Refused, match="has format 2, this version reads up to 1"):
        unfinished(tmp_path)


def test_a_second_walk_cannot_begin_while_one_is_unfinished(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    with pytest.raises(Refused, match="is unfinished") as refused:
        begin(tmp_path)
    assert refused.value.next == "storekeeper resume demo"
    journal.write(Step.CLOSED, result="done")
    begin(tmp_path)


def test_a_walk_that_another_run_is_at_work_on_is_not_to_be_resumed(tmp_path: Path) -> None:
    begin(tmp_path)
    with locks.hold(locks.lock_in(tmp_path), "restore of demo"), pytest.raises(Refused, match="is unfinished"):
        begin(tmp_path)  # this run has the lock: nobody else is at work
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, locks.lock_in(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match="is at work, nothing else can be done before it ends") as refused:
            refuse_unfinished(journals(tmp_path))
        assert refused.value.next == "storekeeper jobs demo"
        holder.communicate()
    with pytest.raises(Refused, match="is unfinished"):
        refuse_unfinished(journals(tmp_path))


def test_two_unfinished_journals_are_damage(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    (journal.path.parent / "0123abcd.jsonl").write_bytes(journal.path.read_bytes())
    with pytest.raises(Failed, match="2 journals are unfinished"):
        unfinished(tmp_path)


def test_a_crash_before_the_first_line_leaves_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "0123abcd.jsonl").touch()
    assert unfinished(tmp_path) is None
    begin(tmp_path)


def test_journals_are_in_the_order_in_which_they_were_begun_whatever_their_tokens(tmp_path: Path) -> None:
    tokens = []
    for _ in range(6):
        journal = begin(tmp_path)
        journal.write(Step.CLOSED, result="done")
        tokens.append(journal.token)
    assert [journal.token for journal in journals(tmp_path)] == tokens


def test_a_store_finds_its_own_last_note_and_no_neighbours(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    StoreLog(journal, "main").note("renamed", first=1)
    StoreLog(journal, "main").note("renamed", first=2)
    StoreLog(journal, "vectors").note("exchanged")
    again = reopened(journal)
    assert StoreLog(again, "main").noted("renamed") == {"first": 2}
    assert StoreLog(again, "main").noted("exchanged") is None


def test_on_the_way_back_a_store_finds_what_it_noted_on_the_way_there(tmp_path: Path) -> None:
    there = begin(tmp_path)
    StoreLog(there, "main").note("renamed", by="restore")
    there.write(Step.CLOSED, result="done")
    back = Journal.create(tmp_path, {**FACTS, "purpose": "back", "undoes": there.token})
    log = StoreLog(back, "main", before=there)
    assert log.noted("renamed") == {"by": "restore"}
    log.note("renamed", by="back")
    assert log.noted("renamed") == {"by": "back"}
    assert StoreLog(there, "main").noted("renamed") == {"by": "restore"}


def test_every_acknowledged_line_survives_kill_9(tmp_path: Path) -> None:
    """The child tells each acknowledged line through a pipe until it is killed: none of them may be missing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        journal = begin(tmp_path)
        for number in range(100_000):
            journal.write(Step.NOTE, "main", note=str(number), facts={})
            os.write(write, b".")
        os._exit(1)
    os.close(write)
    told = 0
    while told < 50:
        told += len(os.read(read, 1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told += len(os.read(read, 1 << 20))
    os.close(read)
    journal = unfinished(tmp_path)
    assert journal is not None
    assert len(list(journal.notes("main"))) >= told


def test_a_line_that_did_not_fit_on_the_disk_is_replaced_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begin(tmp_path)
    whole = os.pwrite

    def half(descriptor: int, line: bytes, offset: int) -> int:
        whole(descriptor, line[:10], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        journal.write(Step.SWITCHING, "main")
    monkeypatch.undo()
    journal.write(Step.GOING_BACK, why="the disk is full")
    assert reopened(journal).noted(Step.GOING_BACK) == {"why": "the disk is full"}
    assert reopened(journal).stores(Step.SWITCHING) == []


def test_a_line_is_durable_before_write_returns_the_file_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    journal = begin(tmp_path)
    assert str(journal.path.parent) in synced
    assert str(journal.path) in synced
    synced.clear()
    journal.write(Step.SWITCHING, "main")
    assert synced == [str(journal.path)]

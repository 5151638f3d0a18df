"""Ten thousand sets, tens of thousands of files, two hundred databases: what is counted is work and memory, never seconds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.repository import multiply
from storekeeper import __version__
from storekeeper.sets.listing import COPY, Listing
from storekeeper.sets.repository import Repository, StackSets
from storekeeper.verbs.documents import describe_set, described_sets, told_of
from tests.harness.campaign import Campaign
from tests.harness.program import CHECKOUT, Program
from tests.harness.sets import START, tampered

_FLAT = 8_000  # kilobytes that the tenfold may take more
_LINES = 25_000  # of text, one line a set, which is laid out as one table
HEAD = f"storekeeper {__version__} listing 1\n".encode()


def peak(program: Program, *words: str) -> int:
    """Kilobytes that a command took at most; it must end well."""
    with open(program.root / "out", "wb") as out:
        process = subprocess.Popen(program.argv(*words), stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=CHECKOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 4), (words, process.returncode)
    return used.ru_maxrss


def kept_by(action: Callable[[], object]) -> int:
    """Kilobytes of what an action gives back, while it is kept. Not of the process: what that has freed before is used again unseen."""
    tracemalloc.start()
    try:
        kept = action()
        size, _ = tracemalloc.get_traced_memory()
        assert kept
        return size // 1024
    finally:
        tracemalloc.stop()


def with_sets(root: Path, count: int) -> Program:
    """A stack of that many sets, all but one without their files, made long enough ago to be believed."""
    program = Program(root)
    program.declare_small()
    assert program.run("backup", "demo").code == 0
    multiply(program.repository / "demo", count)
    return program


def opened(program: Program) -> StackSets:
    return Repository.open(program.repository, program.state).stack("demo")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this moment count as old ones: nothing here is written in the moment in which it is read."""
    monkeypatch.setattr("storekeeper.sets.listing._GRAIN_NS", 0)


@pytest.mark.fault("J30")
@pytest.mark.usefixtures("settled")
def test_of_very_many_sets_each_manifest_is_read_once_and_again_only_when_it_changed(tmp_path: Path, campaign: Campaign):
    count = campaign.trials(reduced=1_000, full=10_000)
    program = with_sets(tmp_path, count)
    sets = opened(program)
    first, second = Listing(sets, told_of), Listing(sets, told_of)
    campaign.found(count, "sets listed", f"{first.reads / count:g} reads a set the first time, {second.reads / count:g} afterwards")
    assert (first.reads, second.reads, len(second)) == (count, 0, count)
    assert [each.entry for each in second] == sets.entries()
    assert list(described_sets(second)) == [describe_set(entry) for entry in sets.entries()]

    some = sets.entries()[count // 2]
    sets.records.add(some.id, "verify", "failed", START, reason="papers: rot")
    third = Listing(sets, told_of)
    assert third.reads == 1
    assert next(each.entry for each in third if each.entry.id == some.id).state == "damaged"
    other = sets.entries()[0]
    tampered(other.path / "manifest.json").write_bytes(b"{}")
    shutil.rmtree(sets.entries()[1].path)
    fourth = Listing(sets, told_of)
    assert (fourth.reads, len(fourth)) == (1, count - 1)
    assert [each.entry for each in fourth] == sets.entries()


@pytest.mark.fault("J30")
@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "rubbish", [b"", b"\0" * 5_000, b"storekeeper 0.1.0 listing 1\n", b"storekeeper 0.1.0 listing 1\n\0\0\0\t\n{}\n", None]
)
def test_a_copy_that_is_no_copy_is_made_anew(tmp_path: Path, rubbish: bytes | None):
    program = with_sets(tmp_path, 20)
    sets = opened(program)
    truth = [each.entry for each in Listing(sets, told_of)]
    copy = sets.state / COPY
    copy.write_bytes(copy.read_bytes()[:-200] if rubbish is None else rubbish)
    again = Listing(sets, told_of)
    assert 0 < again.reads <= 20
    assert [each.entry for each in again] == truth
    assert Listing(sets, told_of).reads == 0


@pytest.mark.fault("J30")
@pytest.mark.usefixtures("settled")
def test_nothing_that_matters_rests_on_the_copy(tmp_path: Path):
    """One that lies shows a wrong line; what is restored, verified, kept or removed is decided from the sets."""
    program = with_sets(tmp_path, 6)
    sets = opened(program)
    Listing(sets, told_of)
    newest = sets.entries()[-1]
    copy = sets.state / COPY
    copy.write_bytes(copy.read_bytes().replace(b'["verified"', b'["damaged"'))
    assert {each.entry.state for each in Listing(sets, told_of)} == {"damaged"}, "the lie"
    assert sets.resolve("latest").entry.id == newest.id
    assert sets.newest_usable() == newest
    assert {entry.state for entry in sets.entries()} == {"verified"}
    copy.unlink()
    copy.symlink_to("/etc/passwd")
    assert {each.entry.state for each in Listing(sets, told_of)} == {"verified"}, "a link is not followed"


@pytest.mark.fault("J30")
@pytest.mark.control("J30")
def test_the_memory_of_a_list_and_a_status_does_not_grow_with_the_sets(tmp_path: Path, campaign: Campaign):
    """The control: all of them held as what they are told as takes more than the bound."""
    count = campaign.trials(reduced=4_000, full=10_000)
    grown = {}
    for words in (("list", "demo", "--json"), ("status", "demo"), ("list", "demo")):
        grown[words] = 0
    few, many = with_sets(tmp_path / "few", count // 10), with_sets(tmp_path / "many", count)
    for words in grown:
        grown[words] = peak(many, *words) - peak(few, *words)
    told = ", ".join(f"{' '.join(words)} {max(0, kilobytes) / 1000:.1f} MB" for words, kilobytes in grown.items())
    campaign.found(count, f"sets against {count // 10:,}, memory more", told)
    assert all(kilobytes < (_LINES if words == ("list", "demo") else _FLAT) for words, kilobytes in grown.items()), grown
    assert kept_by(lambda: [describe_set(entry) for entry in opened(many).entries()]) > _FLAT
    assert len(json.loads(many.run("list", "demo", "--json").out)["result"]["sets"]) == count


@pytest.mark.fault("J30")
def test_the_memory_of_every_verb_does_not_grow_with_the_files(tmp_path: Path, campaign: Campaign):
    count = campaign.trials(reduced=1_000, full=30_000)
    peaks = {}
    for files in (count // 10, count):
        program = Program(tmp_path / str(files))
        papers = program.root / "live/papers"
        for number in range(files):
            if number % 1_000 == 0:
                (papers / f"{number // 1_000:05}").mkdir(parents=True)
            (papers / f"{number // 1_000:05}/{number}.txt").write_bytes(b"%d" % number)
        program.declare(f"stack: demo\nstores:\n  papers: {{kind: files, path: {papers}}}\n")
        vouched = ("--yes", "--nobody-uses", "papers")
        for words in (("backup", "demo"), ("verify", "demo"), ("prove", "demo"), ("restore", "demo", "latest", *vouched)):
            peaks[words[0], files] = peak(program, *words)
        assert sum(1 for path in papers.rglob("*.txt")) == files
        shutil.rmtree(program.root)
    grown = {verb: peaks[verb, count] - peaks[verb, count // 10] for verb, _ in peaks}
    told = ", ".join(f"{verb} {max(0, kilobytes) / 1000:.1f} MB" for verb, kilobytes in grown.items())
    campaign.found(count, f"files against {count // 10:,}, memory more", told)
    assert all(kilobytes < 3 * _FLAT for kilobytes in grown.values()), grown


@pytest.mark.fault("J30")
def test_two_hundred_databases_of_one_stack_are_one_set(tmp_path: Path, campaign: Campaign):
    count = campaign.trials(reduced=40, full=200)
    program = Program(tmp_path)
    live = program.root / "live"
    live.mkdir()
    for number in range(count):
        with closing(sqlite3.connect(live / f"{number}.db")) as database, database:
            if number % 2:
                database.execute("pragma journal_mode = wal")
            database.execute("create table notes (id integer primary key)")
            database.executemany("insert into notes values (?)", ((row,) for row in range(number + 1)))
    stores = "".join(f"  s{number}: {{kind: sqlite, path: {live}/{number}.db}}\n" for number in range(count))
    program.declare(f"stack: demo\nstores:\n{stores}")
    ended = program.answer("backup", "demo")
    assert ended.code == 0, ended.out
    found = {name: store["counts"]["notes"] for name, store in ended.document["result"]["set"]["stores"].items()}
    campaign.found(count, "databases of one stack", f"{len(found)} in one set")
    assert found == {f"s{number}": number + 1 for number in range(count)}
    assert program.answer("verify", "demo").code == 0

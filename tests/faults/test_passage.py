"""A set on its way to another host: whole there or not at all, whatever becomes of the stream, and whoever wrote it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from storekeeper.sets.manifest import MANIFEST
from tests.harness.program import Ended, Program

CUT = "the set was cut off on its way: nothing of it is kept"


@pytest.fixture
def source(tmp_path: Path) -> Program:
    """A host with one set."""
    (tmp_path / "source").mkdir()
    program = Program(tmp_path / "source")
    program.declare_small()
    program.grow(300_000)
    assert program.answer("backup", "demo").code == 0
    return program


@pytest.fixture
def target(tmp_path: Path) -> Program:
    """A host with the same stack, other data and no set."""
    (tmp_path / "target").mkdir()
    program = Program(tmp_path / "target")
    program.declare_small()
    return program


def send(program: Program, *words: str) -> bytes:
    done = subprocess.run(program.argv("send", "demo", *words, "--quiet"), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def receive(program: Program, stream: bytes) -> Ended:
    done = subprocess.run(program.argv("receive", "demo", "--json"), input=stream, capture_output=True, check=False)
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def nothing_is_kept(program: Program) -> bool:
    folder = program.repository / "demo"
    return not folder.exists() or not [each for each in folder.iterdir() if each.name not in (".records", ".trash")]


def lines(*documents: object) -> bytes:
    """A stream of these lines, with the end that belongs to it."""
    parts = [document if isinstance(document, bytes) else json.dumps(document).encode() + b"\n" for document in documents]
    whole = b"".join(parts)
    return whole + json.dumps({"end": hashlib.sha256(whole).hexdigest()}).encode() + b"\n"


LABEL = {"format": 1, "stack": "demo", "id": "20260101T030000Z-000007", "bytes": 10}


def test_a_set_that_was_sent_is_a_set_there_with_its_time_and_restores_there(source: Program, target: Program) -> None:
    received = receive(target, send(source))
    assert received.code == 0, received.err
    there = received.document["result"]["set"]
    here = source.answer("list", "demo").document["result"]["sets"][0]
    assert there["state"] == "verified"
    assert there["id"].split("-")[0] == here["id"].split("-")[0]
    for name, store in here["stores"].items():
        assert {key: store[key] for key in ("counts", "digests")} == {key: there["stores"][name][key] for key in ("counts", "digests")}
    target.run("verify", "demo")
    restored = target.run("restore", "demo", "latest", "--yes", "--nobody-uses", "papers")
    assert restored.code == 0, restored.err
    assert target.live() == source.live()


def test_it_takes_the_next_number_there_and_the_newest_usable_is_sent_when_none_is_named(source: Program, target: Program) -> None:
    target.answer("backup", "demo")
    first = source.newest().name
    source.answer("backup", "demo")
    assert receive(target, send(source, first)).document["result"]["set"]["sequence"] == 2
    assert receive(target, send(source)).document["result"]["set"]["sequence"] == 3
    assert [state for _, state in target.sets()] == ["verified"] * 3


def test_what_is_sent_goes_to_no_terminal_and_no_document(source: Program) -> None:
    refused = source.answer("send", "demo")
    assert (refused.code, refused.document["outcome"]) == (2, "refused")
    assert "where a document has no place" in refused.document["problems"][0]["message"]


def test_a_stream_that_is_cut_off_anywhere_leaves_nothing(source: Program, target: Program) -> None:
    stream = send(source)
    ends = [0, 1, 40, len(stream) - 1, len(stream) - 80, *range(0, len(stream), max(1, len(stream) // 25))]
    for end in ends:
        cut = receive(target, stream[:end])
        assert cut.code == 1, end
        assert CUT in cut.document["problems"][0]["message"], end
        assert nothing_is_kept(target), end
    assert receive(target, stream).code == 0


def test_a_byte_that_was_altered_anywhere_is_found(source: Program, target: Program) -> None:
    stream = send(source)
    for at in range(60, len(stream), max(1, len(stream) // 30)):
        altered = bytearray(stream)
        altered[at] ^= 1
        found = receive(target, bytes(altered))
        assert found.code in (1, 2), at
        assert nothing_is_kept(target), at


def test_control_a_stream_whose_sums_fit_what_was_altered_is_caught_by_the_manifest(source: Program, target: Program) -> None:
    stream = bytearray(send(source))
    at = stream.rindex(b'{"end"')
    stream[at - 5] ^= 1  # in the last file
    body = bytes(stream[:at])
    found = receive(target, body + json.dumps({"end": hashlib.sha256(body).hexdigest()}).encode() + b"\n")
    assert found.code == 1
    assert "could not be read back" in found.document["problems"][0]["message"]
    assert nothing_is_kept(target)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/outside", "main/../../outside", "", ".", "main//x", ".records/x", "main/\0x", "a" * 5000, 7]
)
def test_a_path_that_is_none_of_a_sets_is_refused_and_nothing_is_written_there(target: Program, path: object) -> None:
    before = sorted(each for each in target.root.rglob("*") if target.repository not in each.parents)
    found = receive(target, lines(LABEL, {"path": path, "size": 1}, b"x"))
    assert found.code in (1, 2)
    assert nothing_is_kept(target)
    left = sorted(each for each in target.root.rglob("*") if target.repository not in each.parents)
    assert [each for each in left if each not in before and "state" not in str(each)] in ([], [target.repository])


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (lines({**LABEL, "stack": "other"}), "what is sent is a set of 'other', not of demo"),
        (lines({**LABEL, "format": 2}), "has the format 2, this program reads 1"),
        (lines({**LABEL, "bytes": 1 << 60}), "needs"),
        (lines({**LABEL, "id": "yesterday"}), "is no set's id"),
        (lines(LABEL), "has no manifest"),
        (lines(LABEL, {"path": MANIFEST, "size": 2}, b"{}"), "manifest.json"),
        (lines(LABEL, {"path": MANIFEST, "size": 1 << 40}), "more than the"),
        (lines(LABEL, {"path": "main/a", "size": 1}, b"x", {"path": "main/a", "size": 1}, b"y"), "twice"),
        (lines(LABEL, {"path": "main/a", "size": 1}, b"x", {"path": "main/a/b", "size": 1}, b"y"), "twice"),
        (b"a text of somebody's\n", "what is sent is no set"),
        (b"[]\n", "what is sent is no set"),
        (b"\xff" * 100_000, CUT),
        (b"", CUT),
    ],
)
def test_what_is_no_set_is_refused_in_a_sentence(target: Program, stream: bytes, sentence: str) -> None:
    found = receive(target, stream)
    assert found.code in (1, 2)
    assert sentence in found.document["problems"][0]["message"]
    assert "Traceback" not in found.err
    assert nothing_is_kept(target)


def test_a_stack_with_other_stores_takes_no_set(source: Program, target: Program) -> None:
    live = target.root / "live/demo"
    target.declare(f"stack: demo\nstores:\n  rows: {{kind: sqlite, path: {live}/main.db}}\n")
    found = receive(target, send(source))
    assert found.code == 2
    assert "the set holds main (sqlite), papers (files); declared here are rows (sqlite)" in found.document["problems"][0]["message"]
    assert nothing_is_kept(target)


def test_a_reader_that_goes_away_ends_the_sender_in_a_sentence(source: Program) -> None:
    source.grow(8_000_000)
    source.answer("backup", "demo")
    with subprocess.Popen(source.argv("send", "demo"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        assert sender.stderr is not None
        sender.stdout.read(1000)
        sender.stdout.close()
        told = sender.stderr.read().decode()
    assert sender.returncode == 1
    assert "whoever took it went away" in told
    assert "Traceback" not in told

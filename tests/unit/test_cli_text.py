"""What people read: 80 columns, colour as a help and never the only signal, progress that does not flood a log."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest

from storekeeper.cli.progress import LineProgress, PlainProgress
from storekeeper.cli.render.layout import Cell, Paint, pasteable, printable, size, span, table, wrapped
from storekeeper.cli.render.restore import plan as restore_plan
from storekeeper.cli.render.sets import listing, prune
from storekeeper.cli.render.status import status
from tests.harness.program import CHECKOUT, Program

_COLOUR = re.compile(r"\x1b\[([0-9;]*)m")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Program:
    program = Program(tmp_path_factory.mktemp("text"))
    program.declare_small()
    assert program.run("backup", "demo").code == 0
    assert program.run("prove", "demo").code == 0
    assert program.run("backup", "demo").code == 0
    return program


def on_terminal(program: Program, *words: str, environment: dict[str, str] | None = None) -> str:
    """What a command prints where standard output and standard error are a terminal."""
    master, slave = pty.openpty()
    shown = io.BytesIO()

    def read() -> None:
        try:
            while data := os.read(master, 4096):
                shown.write(data)
        except OSError:
            pass  # its last user closed the terminal

    reader = threading.Thread(target=read)
    reader.start()
    base = {"PATH": os.environ["PATH"], "TERM": "xterm"}
    subprocess.run(
        program.argv(*words),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        check=False,
        cwd=CHECKOUT,
        env={**base, **(environment or {})},
    )
    os.close(slave)
    reader.join()
    os.close(master)
    return shown.getvalue().decode().replace("\r\n", "\n")


def test_colour_is_for_terminals_and_can_be_declined(program):
    assert _COLOUR.search(on_terminal(program, "list", "demo"))
    assert not _COLOUR.search(on_terminal(program, "list", "demo", environment={"NO_COLOR": "1"}))
    assert not _COLOUR.search(on_terminal(program, "list", "demo", environment={"TERM": "dumb"}))
    assert not _COLOUR.search(on_terminal(program, "list", "demo", "--color", "never"))
    assert not _COLOUR.search(program.run("list", "demo").out)
    assert _COLOUR.search(program.run("list", "demo", "--color=always").out)
    assert not _COLOUR.search(program.run("list", "demo", "--json", "--color=always").out), "a document is never coloured"


def test_colour_says_nothing_that_the_words_do_not(program):
    plain = program.run("list", "demo").out
    assert _COLOUR.sub("", program.run("list", "demo", "--color=always").out) == plain


def test_what_is_not_proven_is_never_green():
    document = {
        "stack": "demo",
        "result": {
            "sets": [
                {"id": state, "state": state, "bytes": 1, "stores": {}, "proven_at": proven_at, "pinned": False}
                for state in ("verified", "proven", "damaged", "unprovable", "incomplete")
                for proven_at in (None, "2025-01-09T04:00:00Z")
            ]
        },
    }
    lines = listing(document, Paint(on=True))[3:]
    assert len(lines) == 10
    for line in lines:
        assert ("\x1b[32m" in line) is line.split()[0].startswith("proven"), line


def test_an_unproven_store_is_not_green_on_the_screen_of_truth():
    stack = {
        "stores": {"main": {"kind": "sqlite", "state": None, "bytes": 5, "counts": {"a": 1}, "as_of": None, "last_proof": None}},
        "last_backup": None,
        "next_run": None,
        "backups": {"usable": 1, "proven": 0, "bytes": 5, "free": 5},
    }
    document = {"host": "prod", "result": {"stacks": {"demo": stack}}, "problems": []}
    (row,) = [line for line in status(document, Paint(on=True)) if "sqlite" in line]
    assert "never" in row
    assert "\x1b[32m" not in row


@pytest.mark.parametrize(
    "words",
    [
        ("list", "demo"),
        ("verify", "demo", "--all"),
        ("prune", "demo", "--dry-run"),
        ("restore", "demo", "latest", "--plan"),
        ("status",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_text_fits_eighty_columns(program, words):
    ended = program.run(*words)
    assert ended.out
    # Paths and commands to paste are not broken, whatever their length.
    long = [line for line in ended.out.splitlines() if len(line) > 80 and str(program.root) not in line]
    assert long == []


def test_the_reasons_of_retention_are_wrapped_beside_their_set():
    reasons = ["younger than 30 days", "one of the newest 3", "the newest of its day", "the newest of its week", "the newest of its month"]
    result = {"kept": [{"id": "20250109T030000Z-000001", "reasons": reasons}], "removed": [], "bytes_freed": 0, "dry_run": True}
    lines = prune({"stack": "demo", "outcome": "ok", "result": result}, Paint())
    assert max(len(line) for line in lines) <= 80
    assert " ".join(" ".join(lines).split()).count("the newest of its month") == 1


def test_an_error_on_a_terminal_is_a_block_with_the_command_to_paste(program):
    shown = on_terminal(program, "backup", "dem", "--color=never")
    lines = shown.splitlines()
    assert lines[1].startswith("refused  dem: there is no stack dem in")
    assert lines[-1] == "         next: did you mean demo?"


def test_a_mistyped_verb_takes_two_lines(program):
    assert on_terminal(program, "bakup", "--color=never").splitlines() == [
        'refused  there is no verb "bakup"',
        "         next: storekeeper backup --help",
    ]


def test_elsewhere_an_error_is_one_line(program):
    ended = program.run("backup", "dem")
    assert len(ended.complaints) == 1
    assert ended.out == ""


def test_what_a_terminal_would_obey_is_not_passed_on():
    assert printable("a\x1b[2Jb\x07\u202ec") == "a?[2Jb??c"
    assert printable("zwei\nZeilen, größer") == "zwei\nZeilen, größer"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (412_000_000, "412 MB"),
        (999_600_000, "1.0 GB"),
        (2_900_000_000, "2.9 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_have_three_digits(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10.0, "10 s"),
        (41, "41 s"),
        (60, "1 m"),
        (3600, "1 h"),
        (14280, "3 h 58 m"),
        (172_799, "47 h 59 m"),
        (172_800, "2 d"),
        (-5, "0 s"),
    ],
)
def test_lengths_of_time_have_two_units(seconds, said):
    assert span(seconds) == said


def test_a_table_is_aligned_with_and_without_colour():
    rows = [["set", "size"], ["a", Cell("5 B", right=True)], [Cell("proven", "proven"), Cell("412 MB", right=True)]]
    plain = table(rows, Paint())
    assert plain == ["set       size", "a          5 B", "proven  412 MB"]
    assert [_COLOUR.sub("", line) for line in table(rows, Paint(on=True))] == plain


def test_a_command_to_paste_is_quoted_and_a_sentence_is_left_alone():
    config = Path("/srv/my etc")
    assert pasteable("storekeeper list demo", config) == "storekeeper --config '/srv/my etc' list demo"
    assert pasteable("storekeeper list demo", None) == "storekeeper list demo"
    assert pasteable("chmod 600 /x", config) == "chmod 600 /x"


def test_wrapping_keeps_the_lines_that_the_writer_broke():
    assert wrapped("one\n    two", "  ") == ["  one", "      two"]


def test_progress_elsewhere_is_a_line_a_step_and_one_at_the_end():
    lines: list[str] = []
    progress = PlainProgress(lines.append, "demo", "backup")
    progress.step("main", "dumping", 2_900_000_000)
    for _ in range(10_000):
        progress.advance(1000)
    progress.step(None, "publishing")
    progress.end()
    progress.end()
    assert lines[:2] == ["demo: backup: main: dumping (2.9 GB)\n", "demo: backup: publishing\n"]
    assert len(lines) == 3


def test_a_step_that_takes_long_is_reminded_of():
    reminded = threading.Event()
    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line)
        if "10 kB" in line:
            reminded.set()

    progress = PlainProgress(write, "demo", "backup", remind=0.01)
    progress.step("main", "dumping", 20_000)
    progress.advance(10_000)
    assert reminded.wait(30)
    progress.end()
    assert any(line.startswith("demo: backup: main: dumping, 10 kB of 20 kB") for line in lines)


def test_progress_on_a_terminal_is_one_line_redrawn():
    drawn: list[str] = []
    progress = LineProgress(drawn.append)
    progress.step("main", "dumping", 100)
    for _ in range(100):
        progress.advance(1)
    progress.end()
    text = "".join(drawn)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert all(len(part) <= 79 for part in text.replace("\x1b[K", "").replace("\n", "").split("\r"))
    assert "100 B of 100 B" in text


def test_the_plan_of_a_document_says_which_services_are_stopped_meanwhile() -> None:
    place = {"place": "main/query", "store": "main", "now": 0, "after": 1, "change": "put back", "differs": []}
    found = {"set": "20260101T000000Z-000001", "document": "d", "rule": "r", "places": [place], "stores": {}}
    document = {"stack": "demo", "host": "prod", "verb": "restore", "problems": []}
    for services, said in (([], []), (["backend", "worker"], ["  stopped meanwhile: backend, worker"])):
        lines = restore_plan({**document, "result": {"plan": {**found, "services": services}}}, Paint(on=False))
        assert [line for line in lines if "stopped" in line] == said

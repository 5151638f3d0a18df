"""What is typed: options before and after the verb, mistakes, help, the version."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storekeeper import __version__
from storekeeper.cli import help as help_text
from storekeeper.cli.catalogue import BY_NAME, VERBS, Takes
from storekeeper.cli.words import HelpAsked, Usage, read
from storekeeper.host import clock
from tests.harness.program import CHECKOUT, Program, run_plainly

_GLOBALS = [
    (["--config", "/srv/etc"], lambda options: options.config == Path("/srv/etc")),
    (["--config=/srv/etc"], lambda options: options.config == Path("/srv/etc")),
    (["--json"], lambda options: options.json),
    (["--color", "never"], lambda options: options.color == "never"),
    (["--color=always"], lambda options: options.color == "always"),
    (["--quiet"], lambda options: options.quiet),
    (["-q"], lambda options: options.quiet),
    (["--debug"], lambda options: options.debug),
]


@pytest.mark.parametrize(("words", "is_taken"), _GLOBALS, ids=[" ".join(words) for words, _ in _GLOBALS])
def test_an_option_of_every_verb_counts_before_and_after_the_verb(words, is_taken):
    assert is_taken(read([*words, "backup", "demo"]).options)
    assert is_taken(read(["backup", *words, "demo"]).options)
    assert is_taken(read(["backup", "demo", *words]).options)
    assert not is_taken(read(["backup", "demo"]).options)


def test_control_the_usual_way_with_argparse_forgets_an_option_before_the_verb():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    verb = parser.add_subparsers(dest="verb").add_parser("backup")
    verb.add_argument("--json", action="store_true")
    assert parser.parse_args(["--json", "backup"]).json is False  # the second default wins, without a word
    assert read(["--json", "backup", "demo"]).options.json is True


def test_the_last_of_two_says_what_holds():
    assert read(["--color", "always", "list", "demo", "--color", "never"]).options.color == "never"


def test_the_configuration_of_the_environment_gives_way_to_the_one_typed(monkeypatch):
    monkeypatch.setenv("STOREKEEPER_CONFIG", "/srv/environment")
    assert read(["list", "demo"]).options.config == Path("/srv/environment")
    assert read(["list", "demo", "--config", "/srv/typed"]).options.config == Path("/srv/typed")
    monkeypatch.delenv("STOREKEEPER_CONFIG")
    assert read(["list", "demo"]).options.config == Path("/etc/storekeeper")


@pytest.mark.parametrize("place", range(1, 4))
def test_an_argument_is_found_on_either_side_of_an_option(place):
    words = ["verify", "demo", "latest"]
    words.insert(place, "--json")
    assert (read(words).stack, read(words).set) == ("demo", "latest")


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("bakup", "backup"), ("restor", "restore"), ("stauts", "status"), ("xyzzy", None), ("back\x1b[31mup", "backup")],
)
def test_a_mistyped_verb_is_told_with_the_nearest_one_in_two_lines(typed, nearest):
    with pytest.raises(Usage) as caught:
        read([typed, "demo"])
    assert caught.value.next == (f"storekeeper {nearest} --help" if nearest else "storekeeper --help")
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["backup"],
        ["backup", "demo", "more"],
        ["backup", "--all", "demo"],
        ["list", "demo", "--js"],  # no guessing of options
        ["restore", "demo"],
        ["restore", "demo", "latest", "--back"],
        ["verify", "demo", "latest", "--all"],
        ["verify", "demo", "--read-subset", "8/7"],
        ["verify", "demo", "--read-subset", "0/7"],
        ["verify", "demo", "-rf"],
        ["--color", "pink", "list", "demo"],
        ["--config"],
        ["--config", "", "list", "demo"],
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_words_that_make_no_sense_are_refused(words):
    with pytest.raises(Usage):
        read(words)


def test_a_value_typed_for_an_option_that_does_not_exist_is_not_repeated():
    with pytest.raises(Usage) as caught:
        read(["backup", "demo", "--password=canary-hunter2"])
    assert "canary" not in caught.value.message
    assert "--password" in caught.value.message


def test_the_help_of_the_program_fits_a_screen():
    lines = help_text.of_program().splitlines()
    assert len(lines) <= 48
    assert max(len(line) for line in lines) <= 80
    assert all(any(line.strip().startswith(verb.name) for line in lines) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_says_what_it_does_its_exit_codes_and_two_examples(verb):
    text = help_text.of_verb(verb)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert " ".join(text.split()).count(verb.sentence) == 1
    assert all(f"{code}  " in text for code in verb.exits)
    assert len(verb.examples) == 2
    assert all(command in text for command, _ in verb.examples)
    for flag in (flag for option in verb.options for flag in option.flags):
        assert flag in text


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["backup", "--help"], ["--json", "backup", "demo", "-h"]], ids=" ".join)
def test_help_is_given_wherever_it_is_asked_for(words):
    with pytest.raises(HelpAsked) as caught:
        read(words)
    assert caught.value.verb is (BY_NAME["backup"] if "backup" in words else None)


def test_every_option_that_repeats_is_kept_in_its_order():
    words = read(["restore", "demo", "latest", "--only", "b", "--yes", "--only", "a"])
    assert words.only == ("b", "a")
    assert read(["verify", "demo", "--read-subset", "2/7"]).read_subset == (2, 7)
    assert all(option.takes is Takes.STORE for verb in VERBS for option in verb.options if option.repeats)


def test_the_version_is_told_before_anything_is_loaded():
    code = (
        "import sys; before = set(sys.modules); from storekeeper.cli.main import main; code = main(['--version']);"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('_')), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    version, loaded = done.stdout.splitlines()
    assert version == f"storekeeper {__version__}"
    assert loaded == "['storekeeper', 'storekeeper.cli', 'storekeeper.cli.main'] 0"
    assert run_plainly("--json", "--version").out == f"storekeeper {__version__}\n"
    assert run_plainly("-V").out == f"storekeeper {__version__}\n"


_RULE = """consistency:
  documents:
    authority: {store: main, query: "select id from documents"}
    replicas: [{store: main, rows: [{table: documents, key: id}]}]
queries:
  recent_chats: {store: main, query: "select id, title from documents order by id desc", limit: 10}
migration: {upgrade: {run: [ls, "{main}"]}}
"""


def test_the_examples_of_the_help_work_as_they_stand(tmp_path, monkeypatch):
    program = Program(tmp_path)
    program.declare_small("maestro", _RULE)
    with monkeypatch.context() as at_that_time:
        at_that_time.setattr(clock, "now", lambda: datetime(2025, 1, 9, 3, 0, 0, tzinfo=UTC))
        _back_up_here(program, at_that_time)
    assert program.run("restore", "maestro", "latest", "--yes").code == 0
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "storekeeper").write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n')
    (folder / "storekeeper").chmod(0o755)
    (folder / "ssh").write_text('#!/bin/sh\nshift\nexec "$@"\n')  # every host of an example is this one
    (folder / "ssh").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "STOREKEEPER_CONFIG": str(program.config)}
    for command, _ in (example for verb in VERBS for example in verb.examples):
        if " evict " in command or " recover " in command:
            continue  # tests/docs/test_care.py and tests/consistency/test_recover.py type them, where a lock is held and a file is damaged
        here = command.replace("/etc/bash_completion.d", str(tmp_path))
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", here],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode in (0, 4), f"{command}: {done.stdout}{done.stderr}"


def _back_up_here(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from storekeeper.cli.main import main  # noqa: PLC0415

    assert main(["--config", str(program.config), "--quiet", "backup", "maestro"]) == 0

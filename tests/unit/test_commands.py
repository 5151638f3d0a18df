"""A declared command of the application: what it is told, how it is bounded, and what is told of it when it fails."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused
from storekeeper.runtimes.commands import carry_out, refuse_unless_there
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.loader import check_text
from storekeeper.stack.mistakes import StackFileErrors

CANARY = "canary:s3cret/%x"
STORES = "stack: demo\nstores: {main: {kind: sqlite, path: /srv/main.db}, papers: {kind: files, path: /srv/papers}}\n"


def command(*words: str, **more: Any) -> DeclaredCommand:
    return DeclaredCommand(run=words, **more)


def test_words_go_to_the_program_as_they_are_and_never_to_a_shell(tmp_path: Path) -> None:
    told = tmp_path / "told"
    words = ("$(id)", "a b", "{main}", "{nosuch}", "*", "; false")
    script = 'printf "%s\\n" "$@" "$PLACE" "$HOME" >"$TOLD"; env | cut -d= -f1 | sort >>"$TOLD"; pwd >>"$TOLD"'
    declared = command("sh", "-c", script, "sh", *words, environment={"TOLD": str(told), "PLACE": "at {main}"}, directory=tmp_path)
    carry_out(declared, {"main": "/srv/it's here.db"}, {"PGPASSFILE": "/nowhere"}, [])
    lines = told.read_text().splitlines()
    assert lines[:7] == ["$(id)", "a b", "/srv/it's here.db", "{nosuch}", "*", "; false", "at /srv/it's here.db"]
    assert set(lines[8:-1]) - {"_", "SHLVL", "OLDPWD"} == {"HOME", "LC_ALL", "PATH", "PGPASSFILE", "PLACE", "PWD", "TOLD"}
    assert lines[-1] == str(tmp_path)


@pytest.mark.parametrize("stream", ["", ">&2"], ids=["standard output", "standard error"])
def test_a_declared_secret_is_taken_out_of_what_is_told(stream: str) -> None:
    script = f"echo connecting with {CANARY} and canary%3As3cret%2F%25x {stream}; exit 1"
    with pytest.raises(Failed) as failed:
        carry_out(command("sh", "-c", script), {}, {}, [CANARY])
    said = failed.value.message.partition("ended with")[2]
    assert said == " 1: connecting with [taken out] and [taken out]"


def test_a_secret_is_taken_out_also_where_its_beginning_would_be_cut_off() -> None:
    script = f"printf '{CANARY}%0{1000 - len(CANARY) // 2}d' 0; exit 1"
    with pytest.raises(Failed) as failed:
        carry_out(command("sh", "-c", script), {}, {}, [CANARY])
    assert CANARY[-len(CANARY) // 2 :] not in failed.value.message.partition("ended with")[2]


def test_nothing_is_told_where_a_secret_cannot_be_read() -> None:
    with pytest.raises(Failed, match="what it said is not told, because a secret of the stack cannot be read") as failed:
        carry_out(command("sh", "-c", "echo some words; exit 1"), {}, {}, None)
    assert "1: some words" not in failed.value.message


def test_a_command_that_hangs_is_ended_with_all_that_it_started() -> None:
    marker = "86399.25"
    started = time.monotonic()
    with pytest.raises(Failed, match="did not end within 1 s"):
        carry_out(command("sh", "-c", f"sleep {marker} & wait", timeout=timedelta(seconds=1)), {}, {}, [])
    assert time.monotonic() - started < 60
    alive = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in alive if line.split(b"\0")[:2] == [b"sleep", marker.encode()]]


def test_a_command_that_is_not_there_is_refused_and_one_that_is_is_not(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    refuse_unless_there(command("true"))
    for refused in (
        command("no-such-program"),
        command("./tool", directory=tmp_path),  # not executable
        command("true", directory=tmp_path / "gone"),
        command("true", user="nosuchuser"),
    ):
        with pytest.raises(Refused):
            refuse_unless_there(refused)
    (tmp_path / "tool").chmod(0o755)
    refuse_unless_there(command("./tool", directory=tmp_path))


def test_only_root_runs_a_command_as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(Refused, match="only root can run it as root"):
        refuse_unless_there(command("true", user="root"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("after_reset: [{run: [migrate, '{mian}']}]", "{mian} names no store; there are main, papers"),
        ("after_reset: [{run: []}]", "run"),
        ("after_reset: [{run: alembic upgrade head}]", "a list of words such as [alembic, upgrade, head]"),
        ("after_reset: [{run: [x], environment: {PGPASSWORD: y}}]", "a password is handed on by storekeeper itself"),
        ("after_reset: [{run: [x], timeout: 0m}]", "a duration"),
        ("after_reset: [{run: [x], user: 'a b'}]", "the name of a user of the system"),
        ("after_reset: [{run: [x], shell: true}]", "shell"),
        ("reset: {keep: [main]}", "a mapping such as {main: [alembic_version]}"),
        ("reset: {keep: {mian: [x]}}", "there is no store mian"),
        ("reset: {keep: {papers: [x]}}", "a files store has no tables whose rows could stay"),
        ("reset: {schema: migration}", "nothing is declared that makes the schema: it needs `migration: {upgrade: ...}`"),
        ("reset: {schema: migration}\nmigration: {current: {run: [x]}}", "nothing is declared that makes the schema"),
        (
            "reset: {schema: migration}\nmigration: {upgrade: {run: [x, '{main}', '{to}'], arguments: [to]}}",
            "`migration.upgrade` takes words that are typed (to), and a reset has none to give it",
        ),
        (
            "reset: {schema: migration}\nmigration: {upgrade: {run: [x, '{papers}']}}",
            "`migration.upgrade` is told of no PostgreSQL or SQLite store, so there is no schema that it could make",
        ),
        (
            "reset: {schema: migration, keep: {main: [versions]}}\nmigration: {upgrade: {run: [x, '{main}']}}",
            "rows cannot stay in tables that the migrations make anew: leave `keep` out, or take the live schema",
        ),
        ("reset: {schema: migrations}", "live"),
        ("reset: {made_by: migration}", "made_by"),
        ("reset: {shema: migration}", "schema"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_where_it_stands(more: str, said: str) -> None:
    with pytest.raises(StackFileErrors) as errors:
        check_text(STORES + more + "\n", "demo.yml")
    assert said in str(errors.value) or any(said in problem.message for problem in errors.value.problems())


def test_a_declaration_is_read_with_its_defaults() -> None:
    commands = "after_reset: [{run: [alembic, upgrade, head], user: maestro, environment: {DB: '{main}'}}]\n"
    stack = check_text(STORES + commands + "reset: {keep: {main: [alembic_version]}}\n", "demo.yml")
    (found,) = stack.after_reset
    assert (found.run, found.user, found.timeout, found.names()) == (
        ("alembic", "upgrade", "head"),
        "maestro",
        timedelta(hours=1),
        ["main"],
    )
    assert stack.reset.keep == {"main": ("alembic_version",)}
    assert (stack.reset.made_by, stack.left_bare, stack.once_emptied) == ("live", (), (found,))


def test_migrations_that_make_the_schema_come_first_and_only_the_databases_that_they_are_told_of_are_left_bare() -> None:
    upgrade = "migration: {upgrade: {run: [alembic, upgrade, head], environment: {DB: '{main}', PAPERS: '{papers}'}}}\n"
    stack = check_text(STORES + upgrade + "reset: {schema: migration}\nafter_reset: [{run: [x]}]\n", "demo.yml")
    assert stack.left_bare == ("main",)
    assert [command.run[0] for command in stack.once_emptied] == ["alembic", "x"]

"""Which documents a recovery loses, by the rules of the stack: told before it, and found by the check after it. And the page about it."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import damaged
from tests.harness.markdown import blocks
from tests.harness.program import CHECKOUT, Program, hold_to

DOCUMENTS = 600
STACK = """
stack: maestro
stores:
  main: {{kind: sqlite, path: {live}/main.db}}
  papers: {{kind: files, path: {live}/papers}}
consistency:
  documents:
    authority: {{store: main, query: "select id from documents"}}
    replicas: [{{store: papers, pattern: "{{id}}.md"}}]
"""


@pytest.fixture
def host(tmp_path: Path) -> Program:
    """A proven set of documents with a file each; then a page in the middle of their table is lost."""
    program = Program(tmp_path)
    live = tmp_path / "live"
    (live / "papers").mkdir(parents=True)
    with closing(sqlite3.connect(live / "main.db")) as connection, connection:
        connection.execute("create table documents (id text primary key, title text)")
        connection.executemany("insert into documents values (?, ?)", ((f"doc-{n:04}", "t" * 150) for n in range(DOCUMENTS)))
    for number in range(DOCUMENTS):
        (live / f"papers/doc-{number:04}.md").write_text("text", encoding="utf-8")
    program.declare(STACK.format(live=live), "maestro")
    hold_to(program.answer("backup", "maestro"), 0, "ok")
    hold_to(program.answer("prove", "maestro"), 0, "ok")
    leaves = damaged.pages_of(live / "main.db", "documents", "leaf")
    damaged.overwrite(live / "main.db", leaves[len(leaves) // 2])
    return program


def test_the_documents_that_a_set_holds_and_the_rescued_rows_do_not_are_named(host: Program) -> None:
    words = ("recover", "maestro", "--store", "main", "--nobody-uses", "main")
    planned = hold_to(host.answer(*words, "--plan"), 4, "warning", "documents that set")["result"]["plan"]["rescued"]
    table, (lost,) = planned["tables"]["documents"], planned["documents"]
    assert 0 < table["lost"] == DOCUMENTS - table["rows"] == lost["count"]
    assert (lost["rule"], lost["place"], lost["set"], table["in_set"]) == ("documents", "main/query", planned["proven_set"], DOCUMENTS)
    with closing(sqlite3.connect(host.root / "live/main.db")) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("select count(title) from documents not indexed").fetchone()

    done = hold_to(host.answer(*words, "--yes"), 4, "warning", "holds more than can be rescued")["result"]
    assert done["rescued"] == planned
    assert done["agreements"]["documents"]["counts"]["orphan"] == lost["count"], "the check finds their files"
    with closing(sqlite3.connect(host.root / "live/main.db")) as connection:
        there = {name for (name,) in connection.execute("select id from documents")}
    assert not there & set(lost["samples"])
    assert len(there) == table["rows"]


def test_without_a_yes_it_is_refused_and_on_a_terminal_the_tables_are_shown(host: Program) -> None:
    hold_to(host.answer("recover", "maestro", "--store", "main", "--nobody-uses", "main"), 2, "refused", "nobody is there to be asked")
    hold_to(host.answer("recover", "maestro", "--plan"), 2, "refused", "recover takes the damaged store")
    hold_to(host.answer("recover", "maestro", "--store", "maim", "--plan"), 2, "refused", "there is no store")
    text = host.run("recover", "maestro", "--store", "main", "--plan", "--nobody-uses", "main").out
    assert "recovery of main, nothing was changed yet" in text
    assert "documents" in text
    assert "damaged: " in text


def test_every_command_of_the_page_works_in_its_order(host: Program, tmp_path: Path) -> None:
    before = (tmp_path / "live/main.db").read_bytes()
    typed = tmp_path / "storekeeper"
    vouch = 'case "$1" in recover|restore) set -- "$@" --nobody-uses main;; esac'
    typed.write_text(f'#!/bin/sh\n{vouch}\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n', encoding="utf-8")
    typed.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "STOREKEEPER_CONFIG": str(host.config)}
    commands = [line for block in blocks(CHECKOUT / "docs/recover.md", "sh") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 4), f"{command}: {done.stdout}{done.stderr}"
    assert (tmp_path / "live/main.db").read_bytes() == before

"""The page about looking after the stores, typed from its first command to its last on a small Maestro."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from storekeeper.stores.examination import KINDS
from tests.harness import maestro
from tests.harness.maestro import Document, Maestro
from tests.harness.markdown import blocks
from tests.harness.program import CHECKOUT, Program
from tests.harness.sqlite import READER, program

PAGE = CHECKOUT / "docs/care.md"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The application as the stack file of the project declares it, with the query of the page beside."""
    application = Maestro(tmp_path / "srv")
    application.make([*maestro.documents(3), Document("begun", "2", "pending")])
    with maestro.database(application.main) as main:
        chats = [(number, number % 3 + 1, f"chat {number}", f"2025-01-0{number} 10:00:00") for number in range(1, 6)]
        main.executemany("insert into chats values (?, ?, ?, ?)", chats)
        main.executemany("insert into migration_history values (?, ?)", [("001", "2024-01-01"), ("002", "2024-06-01")])
    host = Program(tmp_path)
    declared = json.loads(application.stack_file())
    declared["queries"].update(yaml.safe_load(blocks(PAGE, "yaml")[0])["queries"])
    host.declare(json.dumps(declared), "maestro")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/storekeeper").write_text(
        f'#!/bin/sh\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n', encoding="utf-8"
    )
    (tmp_path / "bin/storekeeper").chmod(0o755)
    return tmp_path


def typed(home: Path, text: str) -> str:
    environment = {"PATH": f"{home}/bin:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8", "STOREKEEPER_CONFIG": f"{home}/etc"}
    words = ["bash", "-c", f"set -euo pipefail\n{text}"]
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), f"{text}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_of_the_page_works_in_its_order(home: Path) -> None:
    asked, looked, evicted, migrations = blocks(PAGE, "sh")
    said = typed(home, asked)
    assert "recent_chats" in said
    assert re.search(r"completed +3\n +pending +1\n", said)
    (document,) = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    assert [row[1] for row in document["result"]["rows"]] == ["chat 5", "chat 4", "chat 3"]
    assert document["result"]["more"] is True
    assert " 3  chat 3" in said, "the chats of user 1"
    with program(READER, home / "srv/data/maestro.db") as reader:
        name = Path(f"/proc/{reader.pid}/comm").read_text().strip()
        told = typed(home, looked)
        assert re.search(rf"{reader.pid}  {name} +the read lock", told)
        assert json.loads(told.splitlines()[-1])["result"]["stores"]["main"]["counts"]["chats"] == 5
        assert "has ended" in typed(home, evicted.replace("4711 python3", f"{reader.pid} {name}"))
    assert "migrations 2 applied, newest 002" in typed(home, migrations)


def test_the_page_names_every_kind_of_flaw() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{kind}`" in text for kind in KINDS)

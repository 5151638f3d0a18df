"""The table of what people did by hand: each command on its right side, typed in its order on a small Maestro under its own stack file."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.harness import maestro
from tests.harness.maestro import Document, Maestro, database
from tests.harness.program import Program

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/by_hand.md"
ABSTRACT = "PID PROGRAM"  # what nobody can type as it stands
REFERENCE = (
    *("reset-db --stats", "reset-db --check", "reset-db --backup", "--force", "reset-db --help"),
    *("check-document", "cleanup-document", "check-user", "cleanup-user", "system-status", "cleanup-all"),
    *("docker compose down", "docker cp", "create-user", ".tables", "COUNT(*)", "integrity_check", "fuser", ".dump", ".backup"),
    *("migration_history", "run_migrations.py", "test_database.py", "documents by status", "recent chats", "user activity"),
)


def rows() -> list[tuple[str, str]]:
    lines = PAGE.read_text(encoding="utf-8").replace("\\|", "&").splitlines()
    found = [line.strip("|").split("|") for line in lines if line.startswith("| ") and not line.startswith("| by hand")]
    return [(left.strip(), right.strip()) for left, right in found]


def test_the_table_has_every_command_of_the_guides() -> None:
    left = " ".join(left for left, _ in rows())
    assert [command for command in REFERENCE if command not in left] == []
    assert all(right for _, right in rows())


def test_every_command_of_the_table_works_in_its_order(tmp_path: Path) -> None:
    application = Maestro(tmp_path / "srv/maestro")
    application.make([*maestro.documents(12), Document("4711", "2")])
    with database(application.main) as main:
        main.execute("insert into migration_history values ('0007', '2026-01-01')")
    runner = application.root / "maestro_backend/venv/bin/python"  # stands for the application's interpreter with its migrations
    runner.parent.mkdir(parents=True)
    runner.write_text('#!/bin/sh\nsqlite3 -bail "${DATABASE_URL#sqlite:///}" "alter table documents add column seen text"\n')
    runner.chmod(0o755)
    application.delete_row("doc-00003")
    program = Program(tmp_path / "host")
    program.declare(json.dumps(json.loads(application.stack_file())), "maestro")
    (tmp_path / "bin").mkdir()
    typed = tmp_path / "bin/storekeeper"
    typed.write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n', encoding="utf-8")
    typed.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "STOREKEEPER_CONFIG": str(program.config),
    }
    commands = [command for _, right in rows() for command in re.findall(r"`(storekeeper [^`]*)`", right) if ABSTRACT not in command]
    assert len(commands) >= 20
    said = {}
    for command in commands:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 3 if "status" in command else 0, 4, 2 if "recover" in command else 0), (
            f"{command}: {done.stdout}{done.stderr}"
        )
        said[command] = done.stdout + (done.stderr if "recover" in command else "")
    assert "6 orphan" in said["storekeeper check maestro"]
    assert "nothing is wrong with" in said["storekeeper recover maestro --store main --plan"]
    assert "whole" in said["storekeeper history maestro 4711"]
    assert "completed" in said["storekeeper query maestro documents_by_status"]
    assert "0007" in said["storekeeper status maestro --live"]
    assert "stamp: done on what is live" in said["storekeeper migrate maestro stamp 0008 --yes"]
    assert "0008" in said["storekeeper migrate maestro current"]
    assert "the copy came out well" in said["storekeeper migrate maestro test"]

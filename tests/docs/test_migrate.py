"""The page about migrations, typed from its first command to its last on a small Maestro."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from storekeeper.stack.loader import load_stack
from tests.harness import maestro
from tests.harness.maestro import Maestro, database
from tests.harness.markdown import blocks
from tests.harness.program import Program

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/migrate.md"
UPGRADE = "alter table documents add column seen text;\ninsert into migration_history values ('0007', '2026-02-01');\n"
pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3")


def test_every_command_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    application = Maestro(tmp_path / "srv/maestro")
    application.make(maestro.documents(12))
    (application.root / "migrations").mkdir()
    (application.root / "migrations/0007_seen.sql").write_text(UPGRADE, encoding="utf-8")
    with database(application.main) as main:
        main.execute("insert into migration_history values ('0006', '2026-01-01')")
    program = Program(tmp_path / "host")
    (declared,) = blocks(PAGE, "yaml")
    found = yaml.safe_load(declared.replace("/srv/maestro", str(application.root)))
    program.declare(json.dumps({**json.loads(application.stack_file()), **found}), "maestro")
    (tmp_path / "bin").mkdir()
    typed = tmp_path / "bin/storekeeper"
    typed.write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n', encoding="utf-8")
    typed.chmod(0o755)
    commands = "\n".join(blocks(PAGE, "sh")).replace("/srv/maestro", str(application.root))
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "STOREKEEPER_CONFIG": str(program.config),
    }
    done = subprocess.run(
        ["bash", "-c", f"set -uo pipefail\n{commands}"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("applied|")] == ["applied|0007", "applied|0006"], done.stdout + done.stderr
    assert any("upgrade, nothing was run yet" in line for line in lines)
    assert any("test: the copy came out well" in line for line in lines)
    assert any("upgrade: done on what is live" in line for line in lines)
    assert any("stamp: done on what is live" in line for line in lines)


def test_the_example_of_alembic_is_a_stack_file(tmp_path: Path) -> None:
    application = Maestro(tmp_path / "srv/maestro")
    program = Program(tmp_path / "host")
    (declared,) = blocks(PAGE, "text")
    program.declare(json.dumps({**json.loads(application.stack_file()), **yaml.safe_load(declared)}), "maestro")
    migration = load_stack(program.config / "stacks/maestro.yml").migration
    assert migration is not None
    assert migration.downgrade is not None
    assert migration.downgrade.arguments == ("revision",)

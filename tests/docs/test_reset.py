"""The page about a reset, typed from its first command to its last on a small Maestro."""

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

from tests.harness import maestro
from tests.harness.maestro import Maestro, database
from tests.harness.markdown import blocks
from tests.harness.program import Program

UPGRADE = "alter table documents add column seen text;\ninsert into migration_history values ('0007', '2026-02-01');\n"
CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/reset.md"
pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3")


def test_every_command_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    application = Maestro(tmp_path / "srv/maestro")
    application.make(maestro.documents(12))
    with database(application.main) as main:
        main.execute("insert into migration_history values ('0007', '2026-01-01')")
    program = Program(tmp_path / "host")
    declared, _ = blocks(PAGE, "yaml")
    program.declare(json.dumps({**json.loads(application.stack_file()), **yaml.safe_load(declared)}), "maestro")
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
    assert [line for line in lines if line.startswith(("documents|", "users|"))] == ["documents|0", "users|1", "documents|12"], done.stderr
    assert any("reset of all stores, nothing was changed yet" in line for line in lines)
    assert any("all stores are empty" in line for line in lines)
    assert any("the old sides are live again" in line for line in lines)


def test_the_declaration_of_a_schema_that_migrations_make_does_what_the_page_says(tmp_path: Path) -> None:
    application = Maestro(tmp_path / "srv/maestro")
    application.make(maestro.documents(12))
    (application.root / "migrations").mkdir()
    with database(application.main) as main:
        main.execute("insert into migration_history values ('0006', '2026-01-01')")
        schema = ";\n".join(sql for (sql,) in main.execute("select sql from sqlite_master where sql is not null order by rowid"))
    (application.root / "migrations/0001_first.sql").write_text(f"{schema};\n", encoding="utf-8")
    (application.root / "migrations/0007_seen.sql").write_text(UPGRADE, encoding="utf-8")
    program = Program(tmp_path / "host")
    _, declared = blocks(PAGE, "yaml")
    found = yaml.safe_load(declared.replace("/srv/maestro", str(application.root)))
    program.declare(json.dumps({**json.loads(application.stack_file()), **found}), "maestro")
    vouched = [word for name in ("main", "metadata", "vectors", "papers") for word in ("--nobody-uses", name)]
    assert program.run("backup", "maestro").code in (0, 4)
    plan = program.run("reset", "maestro", "--plan", *vouched)
    assert "main: it is left without any table, and the migrations make its schema" in plan.err
    done = program.run("reset", "maestro", "--yes", *vouched)
    assert done.code == 4, done.err
    assert "before the reset its schema was at 0006, the last of 1; the migrations have made 0007, the last of 1" in done.err
    assert "the schema of main was made by sh -c cat " in done.out
    assert ": 0007, the last of 1\n" in done.out
    with database(application.main) as main:
        assert main.execute("select count(seen) from documents").fetchall() == [(0,)]

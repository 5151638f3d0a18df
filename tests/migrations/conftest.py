"""A stack of two databases and a tree of files, whose application has migrations: numbered SQL files for the first database."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.stack.migrations import ASKING, Migration
from storekeeper.verbs.migrate import ask, migrate
from storekeeper.verbs.prove import prove
from storekeeper.verbs.report import Report
from tests.harness import numbered
from tests.harness.restoring import LIVE
from tests.harness.stacks import Lab, make_lab

APPLIED = {"store": "main", "query": "select version from migrations order by version desc"}


@dataclass
class Application:
    """The stack with its migrations. Every store holds LIVE, which the newest set holds too, and is proven to."""

    lab: Lab
    folder: Path

    @property
    def main(self) -> Path:
        return self.lab.root / "live/main.db"

    def declare(self, **commands: Any) -> None:
        """The application's own commands, and others instead."""
        declared = {
            "applied": APPLIED,
            "upgrade": numbered.command(self.folder, "upgrade"),
            "downgrade": numbered.command(self.folder, "downgrade", "{version}", arguments=("version",)),
            "stamp": numbered.command(self.folder, "stamp", "{version}", arguments=("version",)),
            "current": numbered.command(self.folder, "current"),
            "history": numbered.command(self.folder, "history"),
            **commands,
        }
        found = Migration.model_validate_json(json.dumps({key: value for key, value in declared.items() if value is not None}))
        self.lab.context = replace(self.lab.context, stack=self.lab.context.stack.model_copy(update={"migration": found}))

    def migration(self, name: str, up: str, down: str = "") -> None:
        (self.folder / f"{name}.sql").write_text(up, encoding="utf-8")
        (self.folder / f"{name}.down.sql").write_text(down, encoding="utf-8")

    def backup(self) -> None:
        """A proven set of what is live now."""
        self.lab.take(LIVE)
        prove(self.lab.context)

    def migrate(self, action: str = "upgrade", *values: str, plan: bool = False) -> Report:
        if action in ASKING:
            return ask(self.lab.context, action, values)
        return migrate(self.lab.context, action, values, plan=plan)

    def back_to_the_first(self) -> None:
        """As it was before the second migration, by hand."""
        with closing(sqlite3.connect(self.main)) as connection, connection:
            if "seen" in self.columns():
                connection.execute("alter table things drop column seen")
            connection.execute("delete from migrations where version > '0001'")

    def applied(self) -> list[str]:
        return [str(row[0]) for row in self.ask("select version from migrations order by version")]

    def columns(self) -> list[str]:
        return [str(row[0]) for row in self.ask("select name from pragma_table_info('things')")]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.main}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()


def script(text: str, **more: object) -> Mapping[str, object]:
    """A command that is a Python program, given the path of `main`."""
    return {"run": [sys.executable, "-c", text, "{main}"], **more}


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    lab = make_lab(tmp_path, sqlites=2, services=2)
    lab.write(LIVE)
    made = Application(lab, tmp_path / "migrations")
    made.folder.mkdir()
    made.migration("0001_first", "create table notes (id integer primary key, text text)", "drop table notes")
    with closing(sqlite3.connect(made.main)) as connection, connection:
        connection.execute("create table notes (id integer primary key, text text)")
        connection.execute(numbered.TABLE)
        connection.execute("insert into migrations values ('0001', '2026-01-01')")
    made.migration(
        "0002_seen", "alter table things add column seen text;\nupdate things set seen = 'no'", "alter table things drop column seen"
    )
    made.declare()
    made.backup()
    yield made
    lab.close()

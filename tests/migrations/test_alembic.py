"""Alembic itself, declared as docs/migrate.md says, and nothing of Storekeeper's in the application."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed
from tests.harness.alembic_project import NOT_SEEN, SEEN, Project
from tests.migrations.conftest import Application


@pytest.fixture
def project(application: Application, tmp_path: Path) -> Project:
    """The application at its first revision; the second is not applied yet."""
    made = Project(tmp_path / "application")
    made.revision("0001", None, "pass")
    made.revision("0002", "0001", SEEN, NOT_SEEN)
    with closing(sqlite3.connect(application.main)) as connection, connection:
        connection.execute("create table alembic_version (version_num varchar(32) not null primary key)")
        connection.execute("insert into alembic_version values ('0001')")
    application.declare(
        applied={"store": "main", "query": "select version_num from alembic_version"},
        upgrade=made.command("upgrade", "head"),
        downgrade=made.command("downgrade", "{revision}", arguments=["revision"]),
        stamp=made.command("stamp", "{revision}", arguments=["revision"]),
        current=made.command("current"),
        history=made.command("history"),
    )
    application.backup()
    return made


def version(application: Application) -> list[tuple[Any, ...]]:
    return application.ask("select version_num from alembic_version")


@pytest.mark.usefixtures("project")
def test_every_command_of_alembic_has_its_way(application: Application) -> None:
    assert "0001" in application.migrate("current").result["output"]
    assert "0001 -> 0002" in application.migrate("history").result["output"]
    report = application.migrate("upgrade")
    assert report.result["trial"]["applied"] == report.result["applied"] == {"newest": "0002", "count": 1}
    assert "seen" in application.columns()
    application.backup()
    application.migrate("downgrade", "0001")
    assert (version(application), "seen" in application.columns()) == ([("0001",)], False)
    application.backup()
    application.migrate("stamp", "0002")
    assert (version(application), "seen" in application.columns()) == ([("0002",)], False)


@pytest.mark.usefixtures("project")
def test_an_upgrade_of_what_is_up_to_date_touches_nothing_live(application: Application) -> None:
    application.migrate("upgrade")
    application.backup()
    before = os.stat(application.main)
    report = application.migrate("upgrade")
    assert "it changes nothing on a copy at the same migration" in report.problems[-1].message
    after = os.stat(application.main)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_revision_that_fails_ends_on_the_copy_with_what_alembic_says(application: Application, project: Project) -> None:
    project.revision("0003", "0002", "op.execute('insert into nowhere values (1)')")
    before = application.main.read_bytes()
    with pytest.raises(Failed, match=r"on a copy of set .* no such table: nowhere.*; the live data was not touched"):
        application.migrate("upgrade")
    assert application.main.read_bytes() == before

"""All stores of a small Maestro are emptied together, or none of them: real SQLite, real Chroma, real files."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.consistency.conftest import HEALTHY, WIDE
from tests.harness import chroma
from tests.harness.maestro import COLLECTIONS, FOLDERS, Document, Maestro, database
from tests.harness.program import Program, hold_to

VOUCHED = ("--nobody-uses", "main", "--nobody-uses", "metadata", "--nobody-uses", "vectors", "--nobody-uses", "papers")
_ASK = """
say(collection(arguments["name"]).get(include=["embeddings", "documents"])["ids"])
"""


@pytest.fixture
def stack(program: Program, application: Maestro) -> Callable[..., None]:
    """Declare the shipped stack with more keys; `migration_history` has a row, which stays."""
    with database(application.main) as main:
        main.execute("insert into migration_history values ('0007', '2026-01-01')")

    def declare(**more: Any) -> None:
        declared = json.loads(application.stack_file(brake=WIDE))
        program.declare(json.dumps({**declared, "reset": {"keep": {"main": ["migration_history"]}}, **more}), "maestro")

    declare()
    assert program.answer("backup", "maestro").code in (0, 4)
    return declare


def contents(application: Maestro) -> dict[str, Any]:
    """What the stores hold, by means that are not the product's."""
    found: dict[str, Any] = {}
    for path in (application.main, application.metadata):
        with closing(sqlite3.connect(path)) as connection:
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            found[path.name] = {name: sorted(connection.execute(f'select * from "{name}"').fetchall(), key=str) for name in names}
    found["chroma"] = {name: sorted(chroma.execute(application.vectors, _ASK, name=name)[0]) for name in COLLECTIONS}
    found["files"] = {
        folder: {path.name: path.read_bytes() for path in sorted((application.papers / folder).iterdir()) if path.is_file()}
        for folder in FOLDERS
    }
    return found


def schema(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select type, name, tbl_name, sql from sqlite_master order by 1, 2").fetchall()


def reset(program: Program, *more: str) -> Any:
    return program.answer("reset", "maestro", "--yes", *VOUCHED, *more)


def test_a_reset_empties_all_stores_keeps_their_schema_and_goes_back(
    program: Program, application: Maestro, stack: Callable[..., None]
) -> None:
    before, schemas = contents(application), {path: schema(path) for path in (application.main, application.metadata)}
    folders = {folder: os.stat(application.papers / folder) for folder in FOLDERS}
    document = hold_to(reset(program), 0, "ok", "the rows of migration_history stay")
    told = document["result"]["agreements"]["documents"]
    assert (told["outcome"], told["documents"]) == ("ok", 0)
    result = document["result"]
    assert result["set"] is None
    assert result["back"].endswith("restore maestro --back")
    assert result["stores"]["main"]["counts"]["migration_history"] == 1
    assert sum(result["stores"]["main"]["counts"].values()) == 1
    after = contents(application)
    assert after["maestro.db"].pop("migration_history") == [("0007", "2026-01-01")]
    assert not any(rows for table in (after["maestro.db"], after["metadata.db"]) for rows in table.values())
    assert after["chroma"] == {name: [] for name in COLLECTIONS}
    assert after["files"] == {folder: {} for folder in FOLDERS}
    assert {path: schema(path) for path in schemas} == schemas
    for folder, status in folders.items():
        now = os.stat(application.papers / folder)
        assert (now.st_mode, now.st_uid, now.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    application.add([Document("anew")])
    assert len(contents(application)["chroma"][COLLECTIONS[0]]) == 3
    back = program.answer("restore", "maestro", "--back", "--yes", *VOUCHED)
    assert back.code in (0, 4), back.err
    assert contents(application) == before


def test_a_plan_says_what_would_be_empty_and_changes_nothing(program: Program, application: Maestro, stack: Callable[..., None]) -> None:
    stack(after_reset=[{"run": ["true", "{main}"]}])
    before, scratch = contents(application), sorted(os.listdir(program.root))
    plan = hold_to(program.answer("reset", "maestro", "--plan", *VOUCHED), 0, "ok", "before services start: true {main}")["result"]["plan"]
    assert plan["set"] is None
    assert plan["stores"]["main"]["counts_now"]["documents"] == len(HEALTHY)
    assert plan["stores"]["main"]["counts_after"] == {
        "chats": 0, "document_group_association": 0, "documents": 0, "migration_history": 1, "users": 0,
    }  # fmt: skip
    assert plan["stores"]["vectors"]["counts_after"] == dict.fromkeys(COLLECTIONS, 0)
    assert plan["stores"]["papers"]["counts_after"] == {"files": 0, "bytes": 0}
    assert contents(application) == before
    assert sorted(os.listdir(program.root)) == scratch
    shown = program.run("reset", "maestro", "--plan", *VOUCHED)
    assert "reset of all stores, nothing was changed yet" in shown.out


def test_on_a_host_without_any_set_the_safety_set_is_the_first_and_a_plan_leaves_no_trace(program: Program) -> None:
    program.declare_small("small")
    words = ("reset", "small", "--nobody-uses", "main", "--nobody-uses", "papers")
    plan = hold_to(program.answer(*words, "--plan"), 0, "ok")["result"]["plan"]
    assert plan["stores"]["main"]["counts_after"] == {"documents": 0}
    assert not program.repository.exists()
    assert not list(program.state.rglob("journals"))
    result = hold_to(program.answer(*words, "--yes"), 0, "ok")["result"]
    assert program.rows("small") == 0
    sets = program.answer("list", "small").document["result"]["sets"]
    assert [each["id"] for each in sets] == [result["safety_set"]]
    assert program.answer("restore", "small", "--back", "--yes", *words[2:]).code in (0, 4)
    assert program.rows("small") == 40


def test_an_unresolved_target_is_refused_and_nothing_is_touched(program: Program, application: Maestro, stack: Callable[..., None]) -> None:
    before, sets = contents(application), program.answer("list", "maestro").document["result"]["sets"]
    host = os.uname().nodename
    for words, said in (
        (("nosuch", "--yes"), "nosuch"),
        ((f"maestro@{host}", "--yes"), "maestro"),
        (("maestro", "--confirm", "maestro@elsewhere"), f"this is maestro@{host}: nothing was changed"),
        (("maestro", "--confirm", f"other@{host}"), "nothing was changed"),
        (("maestro",), "nobody is there to be asked"),
        (("maestro", "--yes", "--accept-unreadable", "nosuch"), "nosuch"),
    ):
        hold_to(program.answer("reset", *words, *VOUCHED), 2, "refused", said)
    assert contents(application) == before
    assert program.answer("list", "maestro").document["result"]["sets"] == sets


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ({"run": ["true"], "user": "nosuchuser"}, "this system has no user nosuchuser"),
        ({"run": ["true"], "directory": "/nonexistent/place"}, "its directory /nonexistent/place is not there"),
        ({"run": ["no-such-program"]}, "there is no program no-such-program"),
        ({"run": ["./missing"], "directory": "/usr"}, "there is no program ./missing as seen from /usr"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused_before_anything_is_done(
    program: Program, application: Maestro, stack: Callable[..., None], command: dict[str, Any], said: str
) -> None:
    stack(after_reset=[command])
    sets = program.answer("list", "maestro").document["result"]["sets"]
    before = contents(application)
    hold_to(reset(program), 2, "refused", said)
    hold_to(program.answer("reset", "maestro", "--plan", *VOUCHED), 2, "refused", said)
    assert contents(application) == before
    assert program.answer("list", "maestro").document["result"]["sets"] == sets


def test_a_kept_table_that_is_not_there_is_refused(program: Program, application: Maestro, stack: Callable[..., None]) -> None:
    stack(reset={"keep": {"main": ["alembic_version"]}})
    before = contents(application)
    hold_to(reset(program), 2, "refused", "the rows of alembic_version are to be kept, and there is no such table")
    assert contents(application) == before


def test_a_store_that_cannot_be_read_is_reset_by_the_schema_of_the_newest_good_set_and_brought_back_bit_by_bit(
    program: Program, application: Maestro, stack: Callable[..., None]
) -> None:
    damaged = b"this is no database" * 500
    application.metadata.write_bytes(damaged)
    assert reset(program).code == 2
    assert application.metadata.read_bytes() == damaged
    document = hold_to(reset(program, "--accept-unreadable", "metadata"), 4, "warning", "its schema is taken from set")
    assert document["result"]["stores"]["metadata"]["counts"] == {"processed_documents": 0}
    with closing(sqlite3.connect(application.metadata)) as connection:
        assert connection.execute("select count(*) from processed_documents").fetchone() == (0,)
    assert program.answer("restore", "maestro", "--back", "--yes", *VOUCHED).code in (0, 4)
    assert application.metadata.read_bytes() == damaged


def test_disagreement_after_a_reset_is_a_warning(program: Program, application: Maestro, stack: Callable[..., None]) -> None:
    stack(reset={"keep": {"main": ["documents"]}})
    assert "missing" in json.dumps(hold_to(reset(program), 4, "warning")["problems"])


def test_the_backup_after_a_reset_is_published_and_a_loss_later_is_not(
    program: Program, application: Maestro, stack: Callable[..., None]
) -> None:
    assert reset(program).code == 0
    hold_to(program.answer("backup", "maestro"), 4, "warning", "holds")
    application.add([Document(f"new-{number}") for number in range(30)])
    assert program.answer("backup", "maestro").code in (0, 4)
    with database(application.main) as main:
        for table in ("document_group_association", "documents", "migration_history"):
            main.execute(f"delete from {table}")
    hold_to(program.answer("backup", "maestro"), 1, "failed", "nothing was published")

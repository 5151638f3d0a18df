"""Sets whose every checksum agrees and that do not restore here: told from damage, and never from good ones."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.cli.main import main
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.sets import manifest as module
from storekeeper.sets.manifest import BadManifest, read_manifest
from storekeeper.stack.model import SqliteModel
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from tests.harness.database_program import DatabaseProgram, database_program, programs_with
from tests.harness.postgresql import Server, programs_of
from tests.harness.proving import content_of_copy
from tests.harness.sets import open_sets, publish, tampered, write_source
from tests.stores.walk import take

# A rule that a live database keeps, and that no restore can keep: `a` is filled before the table that its rule looks into.
EMPTY = "drop schema public cascade; create schema public;"
EXTENDED = "create extension vector; create table v (v vector(2)); insert into v values ('[1,2]');"
UNRESTORABLE = """
create table b (n int); create table a (n int);
create function known(n int) returns boolean language sql as 'select exists (select from public.b where b.n = $1)';
insert into b values (1); insert into a values (1); alter table a add check (known(n));
"""


@pytest.fixture
def program(tmp_path: Path, server: Server) -> Iterator[DatabaseProgram]:
    with database_program(tmp_path, server) as made:
        yield made


def answer(program: DatabaseProgram, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object], str]:
    code = main(["--config", str(program.config), "--json", *words])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def states(program: DatabaseProgram, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _, document, _ = answer(program, capsys, "list", "demo")
    return [each["state"] for each in document["result"]["sets"]]  # type: ignore[index]


@pytest.mark.fault("B10")
@pytest.mark.control("B10")
def test_a_set_that_does_not_restore_is_unprovable_though_all_of_it_is_as_it_was_written(
    program: DatabaseProgram, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: verify, which compares checksums and decodes, finds nothing wrong with it."""
    server.run(f"{EMPTY} {UNRESTORABLE}")
    assert answer(program, capsys, "backup", "demo")[0] == 0
    assert answer(program, capsys, "verify", "demo")[0] == 0
    assert states(program, capsys) == ["verified"], "the control"
    code, document, err = answer(program, capsys, "prove", "demo")
    [problem] = document["problems"]  # type: ignore[misc]
    assert (code, document["outcome"], problem["severity"], problem["store"]) == (1, "failed", "error", "rows")
    assert "check constraint" in problem["message"]
    assert "storekeeper: " in err
    assert states(program, capsys) == ["unprovable"]
    newest = document["result"]["sets"][0]["id"]  # type: ignore[index]
    code, document, _ = answer(program, capsys, "restore", "demo", newest, "--yes")
    assert (code, document["outcome"]) == (2, "refused")
    assert server.ask("select count(*) from a") == 1


@pytest.mark.fault("B10")
@pytest.mark.parametrize("lacks", ["the extension", "the server's programs", "new enough programs"])
def test_a_host_that_lacks_what_a_proof_needs_says_what_and_judges_no_set(
    program: DatabaseProgram, server: Server, capsys: pytest.CaptureFixture[str], lacks: str
) -> None:
    server.run(f"{EMPTY} {EXTENDED}")
    assert answer(program, capsys, "backup", "demo")[0] == 0
    said = take_away(program, lacks)
    code, document, err = answer(program, capsys, "prove", "demo")
    [problem] = document["problems"]  # type: ignore[misc]
    assert (code, document["outcome"]) == (3, "unknown")
    assert said[0] in problem["message"]
    assert problem["next"] == said[1]
    assert "storekeeper: " in err
    assert states(program, capsys) == ["verified"]
    program.declare_database()
    assert answer(program, capsys, "prove", "demo")[0] == 0
    assert states(program, capsys) == ["proven"]


def take_away(program: DatabaseProgram, what: str) -> tuple[str, str]:
    """What the proof will say, and the command that it will name."""
    if what == "the extension":
        program.declare_database(_without_extensions(program.folder / "pg"))
        return "extension vector", "apt-get install postgresql-18-pgvector"
    if what == "new enough programs":
        program.declare_database(programs_of(16))
        return "is only 16.", "apt-get install postgresql-client-18"
    programs = programs_with(program.folder / "bin", "exit 1")
    (programs / "initdb").unlink()
    (programs / "postgres").unlink()
    program.declare_database(programs)
    return "initdb and postgres 18", "apt-get install postgresql-18"


def _without_extensions(folder: Path) -> Path:
    """An installation whose programs are copies: they look for extensions beside themselves, and find no vector."""
    found = programs_of(18).parent  # its libraries are two directories up, where its programs look for them
    installation = folder / found.parent.name / found.name
    shutil.copytree(found, installation, symlinks=True)
    for libraries in found.parent.parent.glob(f"{found.parent.name}.libs"):
        (folder / libraries.name).symlink_to(libraries)
    for path in installation.rglob("vector*.control"):
        path.unlink()
    return installation / "bin"


# B11


@pytest.fixture
def newer(tmp_path: Path) -> tuple[Path, StoreRecord]:
    """A SQLite store of a set that says it is of a format, and by a SQLite, that nobody here knows."""
    live = tmp_path / "live.db"
    with closing(sqlite3.connect(live)) as database, database:
        database.execute("create table t (n int)")
        database.execute("insert into t values (1)")
    folder, record = take(sqlite_store(tmp_path), tmp_path / "sets")
    artefact = tampered(folder / "database.sqlite")
    data = bytearray(artefact.read_bytes())
    data[44:48] = (9).to_bytes(4, "big")  # the schema's format number, https://sqlite.org/fileformat.html section 1.3
    artefact.write_bytes(data)
    return folder, replace(record, version="99.1.0")


def sqlite_store(room: Path):
    for name in ("private", "scratch"):
        (room / name).mkdir(exist_ok=True)
    return open_store("main", SqliteModel(kind="sqlite", path=room / "live.db"), Surroundings("demo", room / "private", room / "scratch"))


@pytest.mark.fault("B11")
def test_a_database_that_a_newer_sqlite_wrote_is_refused_with_both_versions_and_not_called_damaged(
    tmp_path: Path, newer: tuple[Path, StoreRecord]
) -> None:
    folder, record = newer
    both = rf"written by SQLite 99\.1\.0, the one here is {sqlite3.sqlite_version}"
    store = sqlite_store(tmp_path)
    with pytest.raises(Refused, match=both):
        store.foresee(folder, record, None)
    with pytest.raises(Unknown, match=both):
        store.verify(folder, record)
    with pytest.raises(Unknown, match=both):
        content_of_copy(store, folder, record, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.fault("B11")
def test_a_database_of_ones_own_version_that_cannot_be_read_is_damaged(tmp_path: Path, newer: tuple[Path, StoreRecord]) -> None:
    folder, record = newer
    with pytest.raises(Failed):
        sqlite_store(tmp_path).verify(folder, replace(record, version=sqlite3.sqlite_version))


@pytest.mark.control("B11")
def test_control_a_reader_that_does_not_ask_for_the_format_reads_a_newer_manifest_as_if_it_knew_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = publish(open_sets(tmp_path), write_source(tmp_path / "source"))
    path = tampered(entry.path / "manifest.json")
    document = json.loads(path.read_text()) | {"schema": 9, "stores_that_must_not_be_restored": ["papers"]}
    document.pop("seal")
    path.write_text(json.dumps({**document, "seal": module._seal(document)}))
    with pytest.raises(Refused, match="schema 9"):
        read_manifest(path)
    assert not isinstance(BadManifest("x"), Failed)
    monkeypatch.setattr(module, "SCHEMA", 9)
    assert set(read_manifest(path).stores) == {"papers"}

"""Maestro as the project ships its stack file, at 20,000 documents on a booted server, looked after through the deploys alone.

Each test leaves the stores as it found them, and says so by the digests of all of them. The hour may strike while they run, so cron is
stopped. An embedded Chroma is changed while nobody has it open, so the backend is stopped for repairs; a reset stops it by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.guest import booted
from tests.harness.maestro import CHUNKS, COLLECTIONS, FOLDERS
from tests.harness.maestro_server import DOCUMENTS, HOME, NUMBERED, MaestroServer
from tests.harness.planting import CHUNK_PLACES, LEFTOVERS, METADATA, ORPHANS, PLACES, Finding, Planting
from tests.harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]

STRANGERS = len(PLACES)
PLANNED = ORPHANS + LEFTOVERS + STRANGERS
_PLAN = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}"
_GONE = "for name, ids in arguments['gone'].items(): collection(name).delete(ids=ids)"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MaestroServer, Planting]]:
    with booted("bookworm-py", name="maestro", number=62, in_memory=True) as guest:
        stacks = {"maestro": "inventories/stacks/maestro.yml"}
        users = {"maestro": {"home": HOME}}
        server = MaestroServer(Target(guest, tmp_path_factory.mktemp("control"), storekeeper_users=users, storekeeper_stacks=stacks))
        server.deploy("provision")
        server.deploy("site")
        guest.run("systemctl stop cron")
        planting = Planting(server.application)
        server.install(planting.plant)
        yield server, planting


@pytest.fixture
def server(running: tuple[MaestroServer, Planting]) -> MaestroServer:
    return running[0]


@pytest.fixture
def planted(running: tuple[MaestroServer, Planting]) -> Planting:
    return running[1]


@pytest.fixture
def stopped(server: MaestroServer) -> Iterator[dict[str, Any]]:
    """The backend is stopped; what the stores hold, by store."""
    server.stop()
    yield server.digests()
    server.start()


def found_on(server: MaestroServer) -> list[Finding]:
    lines = [json.loads(line) for line in server.type("check", "maestro", "--lines").splitlines()]
    return sorted((each["class"], each["place"], each["document"]) for each in lines)


def confirmed(server: MaestroServer) -> dict[str, str]:
    return {"stack": "maestro", "confirm": f"maestro@{server.target.said('uname', '-n')}"}


def test_what_is_found_is_exactly_what_was_planted(server: MaestroServer, planted: Planting) -> None:
    said = server.deploy("check").said
    counts = {kind: len(planted.of(kind)) for kind in ("orphan", "missing", "partial", "leftover", "foreign")}
    assert ", ".join(f"{count} {kind}" for kind, count in counts.items()) in said
    assert found_on(server) == sorted(planted.found)
    owned = {each for place in CHUNK_PLACES.values() for each in planted.of("foreign") if each[1] == place}
    assert owned == planted.of("foreign") != set()
    one = planted.in_flight[0]
    assert "orphan" not in server.deploy("check", stack="maestro", document=one).said, "what is being worked on is no finding"


def test_a_repair_is_planned_braked_carried_out_and_undone(server: MaestroServer, planted: Planting, stopped: dict[str, Any]) -> None:
    said = server.deploy("repair", stack="maestro", at_once="yes").said
    plan = re.findall(_PLAN, said)[0]
    refused = server.target.deploy("repair", plan=plan, **confirmed(server))
    assert refused.code == 1
    assert f"the plan removes {PLANNED} documents of documents, the brake lets 100 through" in refused.said

    done = server.deploy("repair", plan=plan, limit=str(PLANNED), **confirmed(server)).said
    removed = {"metadata": ORPHANS + LEFTOVERS + 1, "papers": 3 * (ORPHANS + LEFTOVERS + 1), "vectors": 2 * (ORPHANS + LEFTOVERS + 1)}
    assert {name: int(count) for name, count in re.findall(r"  (\w+): (\d+)$", done, re.MULTILINE)} == removed
    left = [each for each in sorted(planted.found) if each[0] not in ("orphan", "leftover")]
    assert found_on(server) == left
    assert server.strangers() == ""

    server.deploy("undo", plan=plan, **confirmed(server))
    assert server.digests() == stopped
    assert server.strangers() == "", "nothing of the repair is left"


def test_one_document_comes_out_of_a_set_and_nothing_else_is_touched(server: MaestroServer, stopped: dict[str, Any]) -> None:
    server.deploy("backup", within="1h")
    lost = NUMBERED.id
    server.application.delete_row(lost)
    server.application.delete_metadata(lost)
    for folder in FOLDERS:
        server.application.delete_file(lost, folder)
    server.execute(_GONE, gone={name: [f"{lost}_{number}" for number in range(CHUNKS)] for name in COLLECTIONS})
    assert server.type("check", "maestro", "--document", lost, "--lines") == "", "there is nothing of it anywhere"

    wanted = {"stack": "maestro", "set": "latest", "document": lost}
    planned = server.deploy("restore", plan="yes", **wanted).said
    assert len(re.findall(r" 0 +[1-9] +put back", planned)) == 1 + len(PLACES), planned
    server.deploy("restore", **{**wanted, **confirmed(server)})
    assert server.digests() == stopped
    assert server.strangers() == ""


def test_a_store_that_cannot_be_read_is_unknown_on_the_page_of_the_fleet(server: MaestroServer, planted: Planting, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    metadata = f"{HOME}/ai_researcher/data/processed/metadata.db"
    server.guest.run(f"mv {metadata} {metadata}.away")
    try:
        done = server.target.deploy("check")
        assert done.code == 1
        assert f"{METADATA} cannot be read, so nothing is known of it" in done.said
        server.target.deploy("status", report=str(page))
    finally:
        server.guest.run(f"mv {metadata}.away {metadata}")
    cells = re.findall(r'data-name="(\w+)" class="number ([\w-]*)">([^<]*)<', page.read_text(encoding="utf-8"))
    told = {(store, said): heat for store, heat, said in cells}
    assert {heat for (store, said), heat in told.items() if store == "metadata"} == {"unknown"}
    assert all(said.startswith("UNKNOWN") for store, said in told if store == "metadata")
    orphans = len([each for each in planted.of("orphan") if each[1].startswith("papers/")])
    assert told["papers", str(orphans)] == "heat-3"
    assert told["papers", "0"] == "", "0 is said where it is known"


def test_a_reset_empties_all_stores_together_and_the_way_back_returns(server: MaestroServer) -> None:
    before = server.sees()
    server.stop()
    held = server.digests()
    server.start()
    assert before[0] == DOCUMENTS - ORPHANS
    server.deploy("backup", within="1h")
    server.deploy("reset", stack="maestro")
    assert server.sees() == before, "a plan changes nothing"

    server.deploy("reset", **confirmed(server))
    assert server.sees() == [0, 0, 0], "the backend runs on the emptied stores"
    rows = f"python3 -c \"import sqlite3; print(sqlite3.connect('{HOME}/ai_researcher/data/processed/metadata.db').execute("
    assert server.guest.run(rows + "'select count(*) from processed_documents').fetchone()[0])\"").stdout.strip() == "0"
    folders = " ".join(f"{HOME}/ai_researcher/data/{folder}" for folder in FOLDERS)
    assert server.guest.run(f"find {folders} -type f").stdout == ""
    assert found_on(server) == []

    server.deploy("restore", back="yes", **confirmed(server))
    assert server.sees() == before
    server.stop()
    assert server.digests() == held
    server.start()

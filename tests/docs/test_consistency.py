"""The page about rules, typed from its first command to its last on a small Maestro, and what it shows compared with what came."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.cli.catalogue import BY_NAME
from storekeeper.consistency.findings import Class
from storekeeper.outcomes import EXIT_CODES, Outcome
from storekeeper.stack.loader import check_text, load_stack
from tests.harness import maestro
from tests.harness.maestro import SPARSE, STACK_FILE, Document, Maestro
from tests.harness.markdown import blocks

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/consistency.md"
pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3")


@dataclass(frozen=True)
class Place:
    """A home directory, an application whose stores disagree as the page says, and the program on the path."""

    home: Path
    application: Maestro

    def type(self, text: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        environment = {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8", "STOREKEEPER_CONFIG": str(self.home / "try")}
        here = text.replace("/srv/maestro", str(self.application.root))
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{here}"], cwd=self.home, env=environment, capture_output=True, text=True, check=False
        )

    def said(self, text: str) -> str:
        done = self.type(text)
        assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    program = home / "bin/storekeeper"
    program.write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {shlex.quote(sys.executable)} -m storekeeper "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    application = Maestro(home / "srv")
    broken = Document("broken", state="failed", age=timedelta(days=3))
    application.make([*maestro.documents(30), Document("4711"), broken])
    application.insert_rows([Document("fresh", state="pending")])
    application.delete_row("doc-00003")
    application.delete_file("doc-00004", "processed/markdown")
    application.delete_chunks("doc-00005", [SPARSE])
    return Place(home, application)


@pytest.fixture(scope="module")
def tutorial(place: Place) -> list[str]:
    """What each block of commands said, in their order, as one person types them."""
    mark = "=== the next block"
    said = place.said(f"\necho '{mark}'\n".join(blocks(PAGE, "sh"))).split(f"{mark}\n")
    assert len(said) == len(blocks(PAGE, "sh"))
    return said


def without_times(text: str) -> list[str]:
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DAY AND TIME", text)
    return re.sub(r"looked at in [\d.]+ m?s", "looked at", text).splitlines()


def test_every_command_of_the_page_works_in_its_order(tutorial: list[str]) -> None:
    schema, states, chroma, files, first, second, whole, closer, told, mended, again, sets = tutorial
    assert "CREATE TABLE documents" in schema
    assert "CREATE TABLE processed_documents" in schema
    assert {"completed|30", "failed|1", "pending|1"} <= set(states.splitlines())
    assert {"research_papers_dense", "research_papers_sparse"} <= set(chroma.splitlines())
    assert re.search(r"^doc_id\|\d+\|4711$", chroma, re.MULTILINE)
    assert {Path(line).parent.name for line in files.splitlines()} == {"raw_pdfs", "markdown", "metadata"}
    assert "fresh" in first, "a rule without states takes a document in flight for a complete one"
    assert "fresh" not in second
    assert all(each.endswith("ended with 4\n") for each in (first, second, whole))
    assert all(name in whole for name in ("doc-00003", "doc-00004", "doc-00005", "broken"))
    assert closer.splitlines()[-1] == "14"
    assert "doc-00003" not in closer.split("ended with 4")[0]
    assert "look warning: 32 documents, 1 in flight" in told
    assert "6 orphan" in told
    assert "12 entries removed" in mended
    assert "12 entries put back" in mended
    assert "1 missing, 1 partial" in mended
    assert "0 of 2 documents whole again" in again
    assert again.splitlines()[-3:] == ["ended with 4", "doc-00004", "doc-00005"]
    assert "holes" in sets
    assert re.search(r"documents +whole", sets)


def test_the_result_that_the_page_shows_is_the_one_that_comes(tutorial: list[str]) -> None:
    (shown,) = blocks(PAGE, "text")
    assert without_times(shown) == without_times(tutorial[6])


def test_the_rule_that_the_page_writes_is_the_one_that_the_project_ships(place: Place, tutorial: list[str]) -> None:
    assert tutorial
    written = load_stack(place.home / "try/stacks/maestro.yml").consistency["documents"]
    shipped = check_text(STACK_FILE.read_text(encoding="utf-8"), "maestro.yml").consistency["documents"]
    assert written.replicas == shipped.replicas
    assert written.states == shipped.states
    assert (written.grace, written.authority.query, written.authority.columns) == (
        shipped.grace,
        shipped.authority.query,
        shipped.authority.columns,
    )


def test_every_command_that_the_page_names_in_a_line_works_too(place: Place, tutorial: list[str]) -> None:
    assert tutorial
    named = re.findall(r"`(storekeeper [^`]*)`", PAGE.read_text(encoding="utf-8"))
    typed = {command.replace("STACK", "maestro") for command in named}
    assert len(typed) >= 4
    for command in sorted(typed):
        done = place.type(command)
        assert done.returncode in (0, 4), f"{command}: {done.stdout}{done.stderr}"


def test_a_document_and_an_owner_that_the_page_asks_about_are_answered_alone(place: Place, tutorial: list[str]) -> None:
    assert tutorial
    assert place.type("storekeeper check maestro --document 4711").returncode == 0
    of_one = place.type("storekeeper check maestro --owner 2").stdout
    assert "doc-00004" in of_one
    assert "broken" not in of_one  # of owner 1


def test_the_page_tells_of_every_class_and_every_exit_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [str(kind) for kind in Class]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert told == set(BY_NAME["check"].exits)
    assert told == {EXIT_CODES[outcome] for outcome in Outcome if outcome in EXIT_CODES}


def test_every_file_that_the_page_links_exists() -> None:
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", PAGE.read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (PAGE.parent / name).is_file()] == []

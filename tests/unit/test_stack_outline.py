"""The checked copy of a stack file: quick, never stale, never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack import outline as module
from storekeeper.stack.config import Places
from storekeeper.stack.mistakes import StackFileErrors
from storekeeper.stack.outline import Outline, outline

ROOT = Path(__file__).parents[2]
GOOD = """\
stack: maestro
stores:
  main: {kind: sqlite, path: /srv/main.db}
  papers: {kind: files, path: /srv/papers}
services: [{systemd: maestro-backend}]
schedule: [{verb: backup, at: "0 3 * * *"}, {verb: verify, arguments: [--all], at: "0 4 * * 0"}]
"""
HEAVY = {"yaml", "pydantic", "pydantic_core"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "config" / "stacks").mkdir(parents=True)
    (tmp_path / "state" / "maestro").mkdir(parents=True)
    (tmp_path / "config" / "stacks" / "maestro.yml").write_text(GOOD)
    return Places(tmp_path / "config", tmp_path / "repository", tmp_path / "state", tmp_path)


def copy_of(places: Places) -> Path:
    return places.state_of("maestro") / "declared.json"


def from_copy(places: Places, monkeypatch: pytest.MonkeyPatch) -> Outline:
    """The outline, when reading the stack file itself is made impossible."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_check", None)
        return outline(places, "maestro")


def modules_after(places: Places) -> set[str]:
    code = """if True:
        import datetime, sys
        from pathlib import Path
        from storekeeper.stack.config import Places, load_places
        from storekeeper.stack.outline import outline

        places = [Path(each) for each in sys.argv[1:]]
        load_places(places[0])
        entry = outline(Places(*places), "maestro").schedule[0]
        entry.at.next_after(datetime.datetime.now().astimezone())
        print("\\n".join(sys.modules))
    """
    words = [str(each) for each in (places.config, places.repository, places.state, places.scratch)]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in ended.stdout.split()}


def test_it_says_what_the_stack_file_declares(places: Places) -> None:
    found = outline(places, "maestro")
    assert (found.name, found.services) == ("maestro", ("maestro-backend",))
    assert list(found.stores.items()) == [("main", "sqlite"), ("papers", "files")]
    assert [(entry.verb, entry.arguments, str(entry.at)) for entry in found.schedule] == [
        ("backup", (), "0 3 * * *"),
        ("verify", ("--all",), "0 4 * * 0"),
    ]


def test_the_copy_says_the_same_as_the_file(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    first = outline(places, "maestro")
    assert from_copy(places, monkeypatch) == first
    assert copy_of(places).stat().st_mode & 0o777 == 0o600


def test_the_second_call_imports_no_heavy_library(places: Places) -> None:
    assert modules_after(places) >= HEAVY  # the control: the first call had to read the file itself
    assert modules_after(places) & HEAVY == set()


def test_a_changed_stack_file_is_read_again(places: Places) -> None:
    outline(places, "maestro")
    places.stack_file("maestro").write_text(GOOD.replace("papers:", "files:"))
    assert list(outline(places, "maestro").stores) == ["main", "files"]


def test_a_stack_file_that_became_wrong_is_said_to_be_wrong(places: Places) -> None:
    outline(places, "maestro")
    places.stack_file("maestro").write_text(GOOD + "stores: {}\n")
    with pytest.raises(StackFileErrors):
        outline(places, "maestro")


def test_a_copy_made_by_another_version_is_not_used(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    outline(places, "maestro")
    monkeypatch.setattr(module, "__version__", "0.0.0")
    with pytest.raises(TypeError):
        from_copy(places, monkeypatch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: b"",
        lambda document: b"{",
        lambda document: b"\xff",
        lambda document: b"[]",
        lambda document: b"null",
        lambda document: json.dumps({**document, "stores": 5}).encode(),
        lambda document: json.dumps({**document, "schedule": [{}]}).encode(),
        lambda document: json.dumps({**document, "schedule": [{"verb": "x", "arguments": [], "at": "never"}]}).encode(),
        lambda document: json.dumps({**document, "schedule": ["x"]}).encode(),
        lambda document: json.dumps({"sha256": document["sha256"], "version": document["version"]}).encode(),
    ],
)
def test_a_damaged_copy_is_replaced_from_the_file(places: Places, damage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    first = outline(places, "maestro")
    copy_of(places).write_bytes(damage(json.loads(copy_of(places).read_text())))  # type: ignore[operator]
    assert outline(places, "maestro") == first
    assert from_copy(places, monkeypatch) == first


def test_without_a_place_for_the_copy_the_answer_is_the_same(places: Places) -> None:
    first = outline(places, "maestro")
    copy_of(places).unlink()
    places.state_of("maestro").rmdir()
    assert outline(places, "maestro") == first
    assert not places.state_of("maestro").exists()


@pytest.mark.parametrize("name", ["../maestro", "Maestro", "gone"])
def test_a_stack_that_is_not_declared_is_refused(places: Places, name: str) -> None:
    with pytest.raises(Refused):
        outline(places, name)


def test_the_copy_follows_no_link(places: Places, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    os.symlink(victim, copy_of(places))
    outline(places, "maestro")
    assert victim.read_text() == "untouched"

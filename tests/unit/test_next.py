"""What a sentence says to do next can be pasted: the stack that it is about has its name, and an id stays one word."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import storekeeper
from storekeeper.consistency import plans
from storekeeper.consistency.bringing import Bringing
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.sets.repository import Repository
from storekeeper.stack.loader import check_text
from storekeeper.stores.chroma.mending import ChromaGrip
from storekeeper.stores.identities import CollectionSource
from storekeeper.stores.mending import Wanted

PRODUCT = Path(storekeeper.__file__).parent


def nexts() -> Iterator[tuple[str, str]]:
    """Where each `next=` stands in the product, and the fixed words of it."""
    for path in sorted(PRODUCT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for word in node.keywords if isinstance(node, ast.Call) else ():
                if word.arg == "next":
                    parts = [each.value for each in ast.walk(word.value) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                    yield f"{path.relative_to(PRODUCT)}:{node.lineno}", " ".join(parts)


def test_no_command_to_paste_has_a_word_in_the_place_of_the_stack() -> None:
    found = dict(nexts())
    assert len(found) > 100
    assert {place: words for place, words in found.items() if "STACK" in words.split()} == {}


def test_a_plan_that_is_not_there_names_the_stack(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        plans.opened(tmp_path / "maestro", "nosuch")
    assert refused.value.next == "storekeeper repair plan maestro"


def test_a_repository_that_is_not_there_names_the_stack(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        Repository.open(tmp_path / "sets", tmp_path / "state", "maestro")
    assert refused.value.next == "storekeeper backup maestro"


def test_a_document_whose_restore_had_not_begun_names_the_stack(tmp_path: Path) -> None:
    text = """
stack: maestro
stores: {main: {kind: sqlite, path: /srv/main.db}}
consistency: {documents: {authority: {store: main, query: select id from documents}, grace: 1h, replicas: [{store: main, query: select 1}]}}
"""
    rules = check_text(text, "maestro.yml").consistency
    restores = {"set": "s", "document": "7", "rule": "documents", "stores": ["main"], "token": "0123abcd"}
    made = plans.Plan(tmp_path / "20261122T000000Z-0123456789ab", {"stack": "maestro", "restores": restores})
    with pytest.raises(Refused) as refused:
        Bringing(made, rules, {}, Progress()).apply()
    assert refused.value.next == f"storekeeper repair undo maestro {made.id}"


def test_an_id_stays_one_word_in_a_command_to_paste() -> None:
    document, taken = "$(reboot) '", {"id": "a", "document": "", "uri": None, "metadata": {}, "vector": None}
    client: Any = SimpleNamespace(get=lambda *_: [taken])
    collection: Any = SimpleNamespace(key="papers")
    grip = ChromaGrip("maestro", client, collection, CollectionSource("papers", "doc_id"), [Wanted(document)], {document: []})
    with pytest.raises(Refused) as refused:
        grip.rehearse(document, [], [taken])
    assert refused.value.next is not None
    assert shlex.split(refused.value.next) == ["storekeeper", "check", "maestro", "--document", document]

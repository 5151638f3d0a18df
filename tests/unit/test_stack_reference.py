"""The page of the stack file says what the model says."""

from __future__ import annotations

from pathlib import Path

from storekeeper.stack.loader import check_text
from storekeeper.stack.reference import REFERENCE_FILE, reference_text
from tests.harness.markdown import blocks

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_page_in_the_documentation_is_the_one_that_the_model_makes() -> None:
    assert (CHECKOUT / REFERENCE_FILE).read_text(encoding="utf-8") == reference_text(), "run make docs"


def test_every_key_of_the_page_has_a_meaning() -> None:
    rows = [line for line in reference_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if row.rstrip(" |").count("|") < 3]


def test_the_example_of_the_page_is_a_stack_file() -> None:
    (example,) = blocks(CHECKOUT / REFERENCE_FILE, "yaml")
    assert check_text(example, "maestro.yml").stack == "maestro"

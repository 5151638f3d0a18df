"""The first screen says what is true."""

from __future__ import annotations

import re
from pathlib import Path

from storekeeper.stack.loader import check_text
from tests.harness.markdown import blocks

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.md"


def test_the_stack_file_of_the_readme_is_one() -> None:
    (declared,) = blocks(README, "yaml")
    assert check_text(declared, "maestro.yml").stack == "maestro"


def test_the_output_of_the_readme_has_the_steps_of_the_demo_in_their_order() -> None:
    (shown,) = blocks(README, "text")
    said = re.findall(r'_tell\(\s*"(\w+)"', (CHECKOUT / "demo/__main__.py").read_text())
    steps, following = [line.split()[0] for line in shown.splitlines()], iter(said)
    assert steps[:1] == said[:1]
    assert len(steps) > len(said) // 2
    assert all(step in following for step in steps), "another order, or a step that the demo has not"


def test_the_readme_fits_a_first_screen_and_every_file_that_it_names_exists() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 62
    named = re.findall(r"\]\(((?!http)[^)]+)\)", text) + re.findall(r"`(tests/[\w/.]+)`", text)
    assert len(named) > 10
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []

"""What the tests of the stores need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.harness.chroma import Keeper
from tests.harness.chroma_files import TWO, made_once


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Chroma directory of two collections, for tests that do not change it."""
    return made_once(tmp_path_factory, "two", TWO)


@pytest.fixture
def live(two: Path, tmp_path: Path) -> Path:
    """The same, for one test alone."""
    return Path(shutil.copytree(two, tmp_path / "store"))


@pytest.fixture
def keeper(live: Path, tmp_path: Path) -> Keeper:
    return Keeper(live, tmp_path / "room")

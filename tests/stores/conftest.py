"""What the tests of the stores need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storekeeper.host import durable
from tests.harness.chroma import Keeper
from tests.harness.chroma_files import TWO, made_once
from tests.stores.files_scene import ENTRIES, WHOLE, cannot_exchange
from tests.stores.sqlite_scene import MODES, Scene


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


@pytest.fixture(params=MODES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    """A staged switch of a SQLite file, with a log and without."""
    scene = Scene(tmp_path, request.param)
    scene.stage()
    return scene


@pytest.fixture(params=[WHOLE, ENTRIES], ids=["the whole root", "included entries"])
def include(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Which entries of its tree a store covers."""
    return request.param


@pytest.fixture(params=["exchange", "two renames"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How two names are exchanged: by the system, or one after the other where it cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(durable, "exchange", cannot_exchange)

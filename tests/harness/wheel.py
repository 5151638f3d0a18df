"""The wheel as a user installs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.harness.program import CHECKOUT


def unpacked_wheel(place: Path) -> Path:
    """Build the wheel from a copy, because a build leaves files behind, and unpack it; returns the directory to import from."""
    for part in ("storekeeper", "operations", "templates"):
        shutil.copytree(CHECKOUT / part, place / "source" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / file, place / "source" / file)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(place)]
    subprocess.run([*words, "./source"], cwd=place, check=True, capture_output=True)
    (built,) = place.glob("storekeeper-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(place / "unpacked")
    return place / "unpacked"

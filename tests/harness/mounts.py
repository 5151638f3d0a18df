"""File systems of a given size, for what a full disk does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(place: Path, size: str, mode: str = "0755") -> Iterator[Path]:
    """An empty file system of that size (`4m`) at a directory, which is made where it is missing. Skips the test without root."""
    if os.geteuid() != 0:
        pytest.skip("a disk of a given size needs root")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)

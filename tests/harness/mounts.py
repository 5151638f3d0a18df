"""File systems of a given size, for what a full disk does."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
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


def fill(place: Path, leave: int = 0) -> Path:
    """Use up a file system but for that many bytes, or to its last block; removing the returned file frees it again."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file:
        if leave:
            free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
            os.posix_fallocate(file.fileno(), 0, max(free - leave, 1))
        for size in (1 << 20, 1 << 12) if not leave else ():
            _write_until_it_is_full(file, bytes(size))
    return filler


def _write_until_it_is_full(file: FileIO, block: bytes) -> None:
    try:
        while True:
            file.write(block)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise

"""Files of a set: written whole, hashed, made durable and sealed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from storekeeper.host import durable, load

CHUNK = 1 << 20

Chunks = Iterable[bytes]
Progress = Callable[[int], None]  # told the bytes written since it was last told


def sha256_of(path: Path) -> tuple[str, int]:
    """The sha256 and size of a file, read in chunks."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(load.piece(CHUNK)):
            digest.update(chunk)
            size += len(chunk)
            load.spend(len(chunk))
    return digest.hexdigest(), size


def seal(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        seal_open(descriptor)
    finally:
        os.close(descriptor)


def seal_open(descriptor: int) -> None:
    os.fchmod(descriptor, durable.SEALED_FILE)
    os.fsync(descriptor)


def write_sparse(file: IO[bytes], chunk: bytes) -> None:
    """Write a chunk, or leave a hole where it is all zeros. The caller truncates the file to its size at the end."""
    if not chunk.strip(b"\0"):
        file.seek(len(chunk), os.SEEK_CUR)
    else:
        write_all(file, chunk)


def write_all(file: IO[bytes], chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        written = file.write(view)
        view = view[written:]

"""What disks and people do to files."""

from __future__ import annotations

import random
from pathlib import Path


def flip(path: Path, offset: int | None = None, *, chance: random.Random | None = None) -> None:
    """Turn one bit: at that offset in bytes, at a random one, or in the middle. A file that is sealed stays so."""
    mode = path.stat().st_mode & 0o7777
    path.chmod(0o600)
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        where = offset if offset is not None else chance.randrange(size) if chance else size // 2
        file.seek(where)
        byte = file.read(1)[0]
        file.seek(where)
        file.write(bytes([byte ^ (1 << (chance.randrange(8) if chance else 0))]))
    path.chmod(mode)

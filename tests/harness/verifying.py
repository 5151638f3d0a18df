"""What the tests of verification ask of a set, and a store whose decoder says what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from storekeeper.host.progress import Progress
from storekeeper.sets.repository import SetEntry, StackSets
from storekeeper.sets.verification import SetVerdict, verify_set


class Decoder:
    """A stand-in for a store at this interface: it decodes by reading the artefact, as real ones do, and may be told to fail."""

    kind: ClassVar[str] = "files"
    name = "papers"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.decoded: list[Path] = []

    def verify(self, folder: Path, record: Any) -> None:
        self.decoded.append(folder)
        if self.error is not None:
            raise self.error


def verify(sets: StackSets, entry: SetEntry, store: Decoder | None = None, subset: tuple[int, int] | None = None) -> SetVerdict:
    return verify_set(sets, entry, {"papers": store or Decoder()}, Progress(), subset=subset)  # type: ignore[dict-item]


def files_of(entry: SetEntry) -> list[Path]:
    """Everything in a set that has a byte to flip."""
    return sorted(path for path in (entry.path / "papers").rglob("*") if path.is_file() and path.stat().st_size)

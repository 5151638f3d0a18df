"""What was made durable, and in which state: an fsync before the last write, or before the last name in a directory, is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

_State = int | frozenset[str]  # a file's size, a directory's names


class Synced:
    """Listens to fsync from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._states: dict[tuple[int, int], _State] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._note)

    def trust(self, root: Path) -> None:
        """What stands here now is on the disk."""
        for path in _tree(root):
            descriptor = os.open(path, os.O_RDONLY)
            self._states[_identity(descriptor)] = _state(descriptor)
            os.close(descriptor)

    def lacking(self, root: Path, *, files: bool = True) -> list[str]:
        """The files and directories, from this on, that a power cut now might not leave as they are."""
        return sorted(str(path) for path in _tree(root) if (files or path.is_dir()) and not self.has(path))

    def has(self, path: Path) -> bool:
        """Whether a power cut now leaves this one as it is: a file with its size, a directory with its names (an empty one has none)."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return _state(descriptor) in (frozenset(), self._states.get(_identity(descriptor)))
        finally:
            os.close(descriptor)

    def _note(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._states[_identity(descriptor)] = _state(descriptor)


def _tree(root: Path) -> list[Path]:
    return [path for path in (root, *root.rglob("*")) if not path.is_symlink()]


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _state(descriptor: int) -> _State:
    status = os.fstat(descriptor)
    return frozenset(os.listdir(descriptor)) if stat.S_ISDIR(status.st_mode) else status.st_size

"""Room that is held while stores are switched, so that a disk that fills meanwhile does not keep them from going back.

One hidden file on each file system holds what the switches that are left will keep, what the way back of those that are done will
keep, and what one switch needs while it runs. Before a switch its part is let go, after it what it freed is taken again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores.protocol import SwitchRoom

_FOR_NOTES = 128 << 10  # bytes: the small files in which stores remember where they are


class Reserve:
    """The files of one walk. `rooms` says, by store, what a switch needs, in either direction."""

    def __init__(self, token: str, rooms: Mapping[str, SwitchRoom]) -> None:
        self._rooms = rooms
        self._paths = _paths(token, [Path(directory) for room in rooms.values() for directory in room.directories])

    def hold(self, left: Collection[str], done: Collection[str]) -> None:
        """Hold room for the switches of `left` and for the ways back of `done`. Raises Failed where there is not enough.

        Where there is more, also for the way back of a switch that fails in its middle, when others have taken what was let go for it.
        """
        for directory, path in self._paths.items():
            kept = self._kept(directory, left, done)
            passing = max(_on(directory, room.passing) for room in self._rooms.values()) + _FOR_NOTES
            more = passing + max((_on(directory, self._rooms[name].back) for name in left), default=0)
            try:
                _resize(path, kept + passing + more)
            except Failed:
                _resize(path, kept + passing)

    def hold_on(self, done: Collection[str]) -> None:
        """The same on the way back, as far as there is room: nothing is left to turn to."""
        with suppress(Failed):
            self.hold([], done)

    def let_go(self, name: str, *, back: bool) -> None:
        """Let go what the switch of this store needs, or the way back from it; the rest stays held."""
        room = self._rooms.get(name, SwitchRoom())
        for directory, path in self._paths.items():
            needed = _on(directory, room.back if back else room.there) + _on(directory, room.passing) + _FOR_NOTES
            _resize(path, max(0, _size(path) - needed))

    def remove(self) -> None:
        """Give all of it back. Safe to repeat."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def _kept(self, directory: Path, left: Iterable[str], done: Iterable[str]) -> int:
        there, back = [self._rooms[name].there for name in left], [self._rooms[name].back for name in done]
        return sum(_on(directory, needs) for needs in [*there, *back])


def _paths(token: str, directories: Iterable[Path]) -> dict[Path, Path]:
    """The first directory on each file system, and the file in it."""
    first: dict[int, Path] = {}
    for directory in directories:
        if directory.is_dir():
            first.setdefault(os.stat(directory).st_dev, directory)
    return {directory: directory / f".storekeeper-{token}-reserve" for directory in first.values()}


def _on(directory: Path, needs: Mapping[str, int]) -> int:
    """How much of these needs is on the file system of the directory."""
    device = os.stat(directory).st_dev
    return sum(size for each, size in needs.items() if Path(each).is_dir() and os.stat(each).st_dev == device)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _resize(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, durable.PRIVATE_FILE)
    try:
        if size < os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, size)
        elif size > 0:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        raise Failed(f"the room for the way back could not be held in {path.parent}: {error.strerror}") from error
    finally:
        os.close(descriptor)

"""A disk whose power can be cut: what was never fsynced is gone, which no SIGKILL ever shows.

The disk is an image inside another file system. Freezing the outer one writes the image as far as the inner file system has
written it, never the pages that it still holds in memory: a copy of the image taken then is what a cut would leave. Mounting
the copy replays its journal, as the next boot would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest

_PROGRAMS = ("mkfs.ext4", "mount", "umount", "fsfreeze")
_SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


class PowerCut:
    """`with PowerCut(directory) as power:` gives `power.disk`; `power.cut()` is what a cut at this moment leaves, again and again.

    Everything is taken away when the block ends. Skips the test, naming what is missing, where there is no root, no loop
    device or no program for it.
    """

    def __init__(self, directory: Path, size_mib: int = 64) -> None:
        self._directory = directory
        self._size_mib = size_mib
        self._mounted: list[Path] = []
        self._cuts = 0
        self._outer = directory / "outer"
        self._after = directory / "after"
        self.disk = directory / "disk"

    def __enter__(self) -> PowerCut:
        skip_unless_possible()
        try:
            for folder in (self._outer, self._after, self.disk):
                folder.mkdir(parents=True)
            self._make_disk(self._directory / "outer.img", self._size_mib * 2 + 64, self._outer)
            self._make_disk(self._outer / "inner.img", self._size_mib, self.disk)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def cut(self) -> Path:
        """A mounted copy of what a power cut now would leave. The copy before it is gone; the disk goes on as it was."""
        self._unmount(self._after)
        self._left.unlink(missing_ok=True)
        self._cuts += 1  # a name that was used may still be mounted in another namespace, and would then be that older moment again
        with self._frozen():
            _run("cp", "--sparse=always", self._outer / "inner.img", self._left)
        self._mount(self._left, self._after)
        return self._after

    def close(self) -> None:
        """Unmount and remove everything. Safe to repeat."""
        for place in (self._after, self.disk, self._outer):
            self._unmount(place)
        for image in (self._left, self._directory / "outer.img"):
            image.unlink(missing_ok=True)

    @property
    def _left(self) -> Path:
        """The image that the latest cut left."""
        return self._directory / f"cut-{self._cuts}.img"

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        _run("fsfreeze", "-f", self._outer)
        try:
            yield
        finally:
            _run("fsfreeze", "-u", self._outer)

    def _make_disk(self, image: Path, size_mib: int, place: Path) -> None:
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-F", image)
        self._mount(image, place)

    def _mount(self, image: Path, place: Path) -> None:
        _run("mount", "-o", "loop", image, place)
        self._mounted.append(place)

    def _unmount(self, place: Path) -> None:
        if place in self._mounted:
            self._mounted.remove(place)
            try:
                _run("umount", place)
            except RuntimeError:
                _run("umount", "--lazy", place)  # a test that failed may have left something running: nothing stays mounted
                raise


def skip_unless_possible() -> None:
    """Skip the test where a power cut cannot be played, and say why."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_SEARCH_PATH) is None]
    if os.geteuid() != 0:
        pytest.skip("a power cut needs root")
    if missing:
        pytest.skip(f"a power cut needs {', '.join(missing)}")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("a power cut needs loop devices")


def _run(*words: str | Path) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, env={"PATH": _SEARCH_PATH}, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.decode()}")

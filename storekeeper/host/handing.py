"""Handing a file to a program that may run as another user, on no file system: nobody has to reach it, and nothing is left of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storekeeper.host.processes import User


class FileInMemory:
    """A file that only its user reads (memfd_create(2)), there until the block ends; `name` is seen in /proc alone.

    A program that `descriptor` is handed to (`Command.hands`) finds it at `path`.
    """

    def __init__(self, name: str, contents: bytes, user: User | None) -> None:
        self.descriptor = os.memfd_create(name)
        try:
            os.fchmod(self.descriptor, 0o600)
            _write_all(self.descriptor, contents)
            if user is not None:
                os.fchown(self.descriptor, user.uid, user.gid)
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def path(self) -> Path:
        return Path(f"/proc/self/fd/{self.descriptor}")

    def __enter__(self) -> FileInMemory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.descriptor)


def _write_all(descriptor: int, contents: bytes) -> None:
    view = memoryview(contents)
    while view:
        view = view[os.write(descriptor, view) :]

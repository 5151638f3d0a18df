"""The moment of a tree: a listing of it, and whether the tree is there at all."""

from __future__ import annotations

import errno
import os
import stat
from datetime import datetime
from pathlib import Path

from storekeeper.host import clock
from storekeeper.host.tree import Tree
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores.files.listing import spool, walk
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.protocol import PinOrder


class FilesHold:
    """Pins a moment by listing it. Nothing is locked, so writers never wait, and what they change later is found by comparison."""

    order = PinOrder.LISTING
    pause_ms = 0.0

    def __init__(self, root: Path, scope: Scope, work: Path) -> None:
        self.listing = work / "listing"
        self.tree = Tree({"": root})
        self._scope = scope

    def prepare(self) -> None:
        look_at_root(self.tree.places[""])

    def pin(self) -> datetime:
        """The moment is the end of the listing: no file in it was looked at later."""
        spool(walk(self.tree, self._scope), self.listing)
        return clock.now()

    def copy(self) -> None:
        """Nothing: no lock protects files."""

    def release(self) -> None:
        """Nothing: no lock was taken."""

    def close(self) -> None:
        self.tree.close()
        self.listing.unlink(missing_ok=True)


def look_at_root(root: Path) -> None:
    """Raises Refused for a link, Failed where there is no readable directory, Unknown where that cannot be told."""
    try:
        status = os.lstat(root)
    except FileNotFoundError as error:
        raise Failed(f"{root} does not exist") from error
    except OSError as error:
        raise Unknown(f"{root} cannot be looked at: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise Refused(f"{root} is a symbolic link: declare the path that it leads to")
    if not stat.S_ISDIR(status.st_mode):
        raise Failed(f"{root} is no directory")
    if not os.access(root, os.R_OK | os.X_OK):
        raise Failed(f"{root} cannot be read: {os.strerror(errno.EACCES)}")

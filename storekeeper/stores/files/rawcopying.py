"""The readable rest of a tree that cannot be read in full: what is passed over is named, and nothing of it is guessed."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from storekeeper.host.tree import Tree, opened
from storekeeper.outcomes import Failed
from storekeeper.stores.files import checking
from storekeeper.stores.files.copying import Copying
from storekeeper.stores.files.listing import Seen, shown, spool, walk
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Facts
from storekeeper.stores.trees import TreeWriter

_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN, errno.EBADMSG})
_NAMED = 100


class _Passed:
    """What could not be read: the first by name, and how many there are."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.count = 0

    def add(self, path: str) -> None:
        self.count += 1
        if len(self.names) < _NAMED:
            self.names.append(shown(path))


class _TolerantCopying(Copying):
    """A dump that leaves out what it may not, or cannot, read."""

    def __init__(self, tree: Tree, writer: TreeWriter, content: Path, passed: _Passed) -> None:
        super().__init__(tree, writer)
        self._content = content
        self._passed = passed

    def _copy_one(self, seen: Seen) -> None:
        try:
            super()._copy_one(seen)
        except (OSError, Failed) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _UNREADABLE:
                raise
            (self._content / seen.path).unlink(missing_ok=True)  # the part that was read
            if seen.kind == "directory":  # named already, when it could not be listed
                self._lost.add(seen.path)
            else:
                self._passed.add(seen.path)


def bytes_of(root: Path, scope: Scope) -> int:
    """Raises Failed when not even the root can be listed."""
    with opened({"": root}) as tree:
        found = (status for _, status in walk(tree, scope, passed_over=lambda _: None) if status is not None)
        return sum(status.st_size for status in found if stat.S_ISREG(status.st_mode))


def copy(root: Path, scope: Scope, into: StoreFolder, above: bytes) -> Facts:
    """Copy what can be read, as a dump does. Raises Failed when not even the root can be listed."""
    listing, passed = into.path / ".listing", _Passed()
    into.write(checking.ABOVE, [above])
    with opened({"": root}) as tree:
        spool(walk(tree, scope, passed_over=passed.add), listing)
        with into.tree(checking.LISTING, checking.CONTENT) as writer:
            _TolerantCopying(tree, writer, into.path / checking.CONTENT, passed).copy(listing)
    listing.unlink()
    covered = {"root": str(root), "include": list(scope.include), "exclude": list(scope.exclude)}
    return {**covered, "unread": passed.names, "unread_count": passed.count}

"""Takes the files of documents out of a tree, and puts them back: by a change of name on the same file system, so that nothing of them
changes, and no room is needed.

What is taken stands in a directory at the root whose name no backup and no pattern takes for the application's (`scope.py`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from storekeeper.host import durable
from storekeeper.host.tree import is_below, opened, parent_of
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.mending import Piece, Wanted


def taken_folder(token: str) -> str:
    """Where a repair keeps what it has taken, below the root."""
    return f".storekeeper-{token}-taken"


class FilesMender:
    """One pattern of a tree. `token` is 8 hexadecimal digits, the repair's own."""

    at_once = 5000  # each takes a walk

    def __init__(self, root: Path, scope: Scope, pattern: Pattern, token: str) -> None:
        self._root = root
        self._scope = scope
        self._pattern = pattern
        self._aside = taken_folder(token)

    @contextmanager
    def grip(self, wanted: Sequence[Wanted]) -> Iterator[FilesGrip]:
        """Entries are found by one walk of the pattern; each is moved by one rename, which a crash leaves done or not begun."""
        owners = {each.document: each.owner for each in wanted}
        found: dict[str, list[str]] = {document: [] for document in owners}
        with opened({"": self._root}) as tree:
            for path, document, owner in self._pattern.entries(tree, self._scope):
                if document in owners and (owners[document] is None or owner in (None, owners[document])):
                    found[document].append(path)
        grip = FilesGrip(self._root, self._aside, found)
        yield grip
        grip.finish()

    def put_back(self, pieces: Iterable[Piece]) -> Iterator[str]:
        for piece in pieces:
            path, kept = str(piece["path"]), str(piece["kept"])
            if not is_below(path) or not is_below(kept):
                raise Failed(f"what was kept names {path!r:.80}, which is no path of the store")
            if not os.path.lexists(self._root / kept):
                if not os.path.lexists(self._root / path):
                    yield f"{shown(path)} is neither in its place nor where it was kept: somebody has removed it"
                continue  # it never left, or is back already
            if os.path.lexists(self._root / path):
                yield f"{shown(path)} is there again: what was taken stays in {self._root / kept}"
                continue
            _move(self._root, kept, path)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the directory of what was taken, where nothing is left in it."""
        aside = self._root / self._aside
        for folder, _, _ in os.walk(aside, topdown=False):
            try:
                os.rmdir(folder)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise


class FilesGrip:
    """The entries of some documents."""

    def __init__(self, root: Path, aside: str, found: dict[str, list[str]]) -> None:
        self._root = root
        self._aside = aside
        self._found = found
        self._removing: list[Piece] = []

    def pieces(self, document: str) -> Sequence[Piece]:
        return [{"path": path, "kept": f"{self._aside}/{path}"} for path in sorted(self._found[document])]

    def remove(self, documents: Collection[str]) -> None:
        self._removing = [piece for document in documents for piece in self.pieces(document)]

    def finish(self) -> None:
        for piece in self._removing:
            _move(self._root, piece["path"], piece["kept"])


def _move(root: Path, source: str, target: str) -> None:
    """Rename within the tree, durable when it returns. Raises Refused where a file system ends in between, Failed where it is taken."""
    parent = root / parent_of(target)
    if not parent.is_dir():
        durable.ensure_directory(parent)
    try:
        durable.rename(root / source, root / target)
    except FileNotFoundError:
        return  # the application has removed it
    except FileExistsError as error:
        raise Failed(f"{shown(target)} is there already") from error
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise Refused(f"{shown(source)} is on another file system than the store's root, and cannot be kept beside it") from error

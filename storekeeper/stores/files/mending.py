"""Takes the files of documents out of a tree, and puts them back: by a change of name on the same file system, so that nothing of them
changes, and no room is needed.

What is taken stands in a directory at the root whose name no backup and no pattern takes for the application's (`scope.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from storekeeper.host import durable
from storekeeper.host.tree import is_below, opened, parents_of, remove
from storekeeper.outcomes import Failed, Refused, said_by_the_system
from storekeeper.stores.files import bringing
from storekeeper.stores.files.entries import Entry
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.mending import Mender, Piece, Wanted


class FilesMender:
    """One pattern of a tree. `token` is 8 hexadecimal digits, the repair's own; `folder` is the set's own where this is a copy."""

    at_once = 5000  # each takes a walk

    def __init__(self, root: Path, scope: Scope, pattern: Pattern, token: str, rights: Rights, folder: Path | None = None) -> None:
        self._root = root
        self._scope = scope
        self._pattern = pattern
        self._aside = f".storekeeper-{token}-taken"
        self._rights = rights
        self._folder = folder
        self._beside = f".storekeeper-{token}-brought-{hashlib.sha256(os.fsencode(pattern.text)).hexdigest()[:8]}"

    @contextmanager
    def grip(self, wanted: Sequence[Wanted]) -> Iterator[FilesGrip]:
        """Entries are found by one walk of the pattern; each is moved by one rename, which a crash leaves done or not begun."""
        owners = {each.document: each.owner for each in wanted}
        grip = FilesGrip(self._root, self._aside, owners, self._walked)
        yield grip
        grip.finish()

    def _walked(self, owners: Mapping[str, str | None]) -> dict[str, list[str]]:
        """The entries of these documents, each with the owner that was asked for, or with none."""
        found: dict[str, list[str]] = {document: [] for document in owners}
        with opened({"": self._root}) as tree:
            for path, document, owner in self._pattern.entries(tree, self._scope):
                if document in owners and (owners[document] is None or owner in (None, owners[document])):
                    found[document].append(path)
        return found

    def told(self, piece: Piece) -> Piece:
        """With all that a restore can put back, and the contents' digests: every byte is read, unless it was told before."""
        if "told" in piece:
            return dict(piece["told"])
        return bringing.told(bringing.standing(self._root, self._scope, str(piece["path"])), self._rights)

    def brought(self, pieces: Sequence[Piece], origin: Mender) -> list[Piece]:
        """As the set's listing has them. Raises Refused for an owner that this user cannot give."""
        entries = self._recorded(pieces, origin)
        found = []
        for piece in pieces:
            path = str(piece["path"])
            bringing.refuse_what_cannot_be_made(entries[path], self._rights)
            missing = [each for each in parents_of(path) if not os.path.lexists(self._root / each)]
            told = bringing.told(entries[path], self._rights)
            found.append({"path": path, "kept": f"{self._beside}/{path}", "told": told, "parents": missing})
        return found

    def receive(self, pieces: Sequence[Piece], origin: Mender) -> None:
        if not isinstance(origin, FilesMender) or origin._folder is None:
            raise TypeError("files are brought from a copy of a set")
        beside = self._root / self._beside
        remove(beside)
        if pieces:
            durable.make_directory(beside)
            bringing.lay(origin._folder, origin._scope, beside, [str(piece["path"]) for piece in pieces], self._rights)

    def drop(self) -> None:
        remove(self._root / self._beside)
        self._sweep()

    def _recorded(self, pieces: Sequence[Piece], origin: Mender) -> dict[str, list[Entry]]:
        if not isinstance(origin, FilesMender) or origin._folder is None:
            raise TypeError("files are brought from a copy of a set")
        return bringing.recorded(origin._folder, origin._scope, [str(piece["path"]) for piece in pieces])

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
            try:
                _move(self._root, kept, path)
            except bringing.LedAway as error:
                yield f"{error.message}; what was taken stays in {self._root / kept}"
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


def forget(root: Path, token: str) -> None:
    """Remove what a repair with this token has kept beside the files, and nothing else: the sides of a restore have names like these."""
    ours = re.compile(rf"\.storekeeper-{re.escape(token)}-(taken|brought-[0-9a-f]{{8}})")
    try:
        for name in filter(ours.fullmatch, os.listdir(root)):
            remove(root / name)
    except OSError as error:
        raise Failed(f"what was taken of {root} cannot be removed: {said_by_the_system(error)}") from error


class FilesGrip:
    """The entries of some documents."""

    def __init__(
        self,
        root: Path,
        aside: str,
        owners: Mapping[str, str | None],
        walk: Callable[[Mapping[str, str | None]], dict[str, list[str]]],
    ) -> None:
        self._root = root
        self._aside = aside
        self._owners = owners
        self._walk = walk
        self._found = walk(owners)
        self._removing: list[Piece] = []

    def pieces(self, document: str) -> Sequence[Piece]:
        return [{"path": path, "kept": f"{self._aside}/{path}"} for path in sorted(self._found[document])]

    def remove(self, documents: Collection[str]) -> None:
        self._removing = [piece for document in documents for piece in self.pieces(document)]

    def exchange(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:  # noqa: ARG002 - the protocol's
        """What comes still lies where it was kept, or is in its place already: so it is known whose contents stand under a name."""
        coming = [piece for piece in here if os.path.lexists(self._root / piece["kept"])]
        free, wanted = {piece["path"] for piece in coming}, {piece["path"] for piece in here}
        for piece in away:
            path = piece["path"]
            if os.path.lexists(self._root / path) and (path in free or path not in wanted):
                _move(self._root, path, piece["kept"])
        for piece in coming:
            bringing.make_parents(self._root, piece["path"], piece["kept"])
            _move(self._root, piece["kept"], piece["path"])
        for parent in (parent for piece in away for parent in piece.get("parents", ())):
            with suppress(OSError), opened({"": self._root}) as tree:  # something else is in it by now
                os.rmdir(tree.handle(parent))
        self._found = self._walk(self._owners)

    def rehearse(self, document: str, away: Sequence[Piece], here: Sequence[Piece]) -> None:  # noqa: ARG002 - the protocol's
        known = {piece["path"] for piece in self.pieces(document)}
        for piece in here:
            bringing.refuse_elsewhere(self._root, piece["path"], taken=piece["path"] in known)

    def finish(self) -> None:
        for piece in self._removing:
            _move(self._root, piece["path"], piece["kept"])


def _move(root: Path, source: str, target: str) -> None:
    """Rename within the tree, durable when it returns; no link among the directories above is followed.

    Raises Refused where a file system ends in between, LedAway where something above is no directory, Failed where the target is taken.
    """
    with bringing.staying(target), opened({"": root}) as tree:
        for parent in reversed(list(parents_of(target))):
            with suppress(FileExistsError):
                durable.make_directory(Path(tree.handle(parent)))
    try:
        with bringing.staying(f"{source} or {target}"), opened({"": root}) as here, opened({"": root}) as there:
            durable.rename(Path(here.handle(source)), Path(there.handle(target)))
    except FileNotFoundError:
        return  # the application has removed it
    except FileExistsError as error:
        raise Failed(f"{shown(target)} is there already") from error
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise Refused(f"{shown(source)} is on another file system than the store's root, and cannot be kept beside it") from error

"""Entries of a set on their way into a live tree, one document's: told from the listing, laid beside, compared with what stands."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from storekeeper.host import durable
from storekeeper.host.tree import Tree, joined, name_of, opened, parent_of, parents_of
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.files import staging
from storekeeper.stores.files.attributes import apply, copy_directory
from storekeeper.stores.files.checking import above, listed
from storekeeper.stores.files.copies import with_parents
from storekeeper.stores.files.entries import COUNTED, Entry, HardLinks
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.places import nearest_existing
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.mending import Piece

_OF_CONTENTS = ("type", "mtime_ns", "size", "sha256", "target")
_SET_ID = 0o6000


def recorded(folder: Path, scope: Scope, paths: Sequence[str]) -> dict[str, list[Entry]]:
    """Each path of a set with what is below it, in the listing's order; a further name of a file with what stands under its first."""
    found: dict[str, list[Entry]] = {path: [] for path in paths}
    first: dict[str, Entry] = {}
    for entry in listed(folder, scope):
        for path in _at_or_above(entry["path"], found):
            if entry["type"] in COUNTED:
                found[path].append(entry)
    names = {entry["hardlink"] for entries in found.values() for entry in entries if "hardlink" in entry}
    if names:
        first = {entry["path"]: entry for entry in listed(folder, scope) if entry["path"] in names}
    return {
        path: [{**first[entry["hardlink"]], "path": entry["path"]} if "hardlink" in entry else entry for entry in entries]
        for path, entries in found.items()
    }


def standing(root: Path, scope: Scope, path: str) -> list[Entry]:
    """The same of a live tree: each file is read."""
    try:
        with opened({"": root}) as tree:
            return [staging.found(tree, each, status, HardLinks()) for each, status in _below(tree, scope, path)]
    except OSError as error:
        raise Failed(f"{shown(path)} cannot be read: {error.strerror}") from error


def told(entries: Sequence[Entry], rights: Rights) -> Piece:
    """An entry with what is below it, as far as these rights can set it."""
    first, *rest = [_compared(entry, rights) for entry in entries]
    path = str(entries[0]["path"])
    below = [{**each, "path": str(entry["path"])[len(path) :]} for each, entry in zip(rest, entries[1:], strict=True)]
    return {"name": path, **first, **({"below": below} if below else {})}


def refuse_what_cannot_be_made(entries: Sequence[Entry], rights: Rights) -> None:
    for entry in entries:
        if (why := rights.lacks(entry)) is not None:
            raise Refused(
                f"{shown(entry['path'])} {why}, which this user cannot restore: nothing was changed",
                next="run as root, or name the store with --no-owners",
            )


def lay(folder: Path, scope: Scope, beside: Path, paths: Sequence[str], rights: Rights) -> None:
    """Make these entries of a set below an empty directory, with the directories above them, durable. Raises Failed."""
    wanted = {str(entry["path"]) for entries in recorded(folder, scope, paths).values() for entry in entries}
    wanted |= {str(entry["hardlink"]) for entry in listed(folder, scope) if "hardlink" in entry and entry["path"] in wanted}
    only = with_parents(wanted)
    uncovered = [path for path in scope.above() if path and path in only]
    for path in uncovered:
        (beside / path).mkdir(mode=durable.PRIVATE_DIRECTORY, exist_ok=True)
    with opened({"": beside}) as tree:
        staging.lay(folder, scope, tree, rights, lasting=True, only=only)
        known = above(folder, scope)
        for path in reversed(uncovered):
            if path in known:
                apply(known[path], tree.directory(path), rights)
    durable.sync_directory(beside.parent)


class LedAway(Refused):
    """Something above a path is no directory: a link could lead anywhere."""


@contextmanager
def staying(path: str) -> Iterator[None]:
    """Raises LedAway where a directory above the path turns out to be a link or a file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise LedAway(f"something above {shown(path)} is no directory: it was left as it is") from error


def make_parents(root: Path, path: str, kept: str) -> None:
    """Make the directories above a path where they are gone, like those above where it is kept. Follows no link: raises LedAway."""
    base = kept[: -len(path) - 1]
    with staying(path), opened({"": root}) as tree, opened({"": root}) as like:
        for parent in reversed(list(parents_of(path))):
            if os.path.lexists(tree.handle(parent)):
                continue
            if not (root / base / parent).is_dir():
                durable.make_directory(Path(tree.handle(parent)))
                continue
            target = tree.directory(parent_of(parent))
            copy_directory(like.directory(joined(base, parent)), name_of(parent), target)
            os.fsync(target)


def refuse_elsewhere(root: Path, path: str, *, taken: bool) -> None:
    """Raises Refused where a path cannot be renamed to from beside the root, leads elsewhere, or is something else's."""
    for parent in parents_of(path):
        if os.path.lexists(root / parent) and not stat.S_ISDIR(os.lstat(root / parent).st_mode):
            raise Refused(f"{shown(parent)} is no directory, so {shown(path)} has no place: nothing was changed")
    if os.path.lexists(root / path) and not taken:
        raise Refused(f"{shown(path)} is something else by now: nothing was changed")
    if os.stat(nearest_existing(root / parent_of(path))).st_dev != os.stat(root).st_dev:
        raise Refused(f"{shown(path)} is on another file system than the store's root, and cannot be exchanged from beside it")


def _compared(entry: Entry, rights: Rights) -> Piece:
    found = {key: entry[key] for key in _OF_CONTENTS if key in entry}
    if entry["type"] != "link":
        found["mode"] = entry["mode"] if rights.owners else entry["mode"] & ~_SET_ID
    if rights.owners:
        found |= {"uid": entry["uid"], "gid": entry["gid"]}
    xattrs = {name: value for name, value in entry.get("xattrs", {}).items() if rights.sets_xattr(name)}
    return {**found, **({"xattrs": xattrs} if xattrs else {})}


def _at_or_above(path: str, wanted: dict[str, list[Entry]]) -> Iterator[str]:
    yield from (each for each in (path, *parents_of(path)) if each in wanted)


def _below(tree: Tree, scope: Scope, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """A path and all below it, each directory before what is in it."""
    status = tree.lstat(path)
    yield path, status
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(tree.directory(path)), key=os.fsencode):
            if not scope.leaves_out(joined(path, name)):
                yield from _below(tree, scope, joined(path, name))

"""Making a set's entries anew in an empty place, with all attributes and durable, and reading back what was made."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from array import array
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

from storekeeper.host import load
from storekeeper.host.syncing import Unsynced
from storekeeper.host.tree import Tree, name_of, opened, parent_of
from storekeeper.outcomes import Failed
from storekeeper.stores.files.attributes import apply
from storekeeper.stores.files.checking import CONTENT, LISTING, listed
from storekeeper.stores.files.entries import COUNTED, Entry, HardLinks, Tally, describe, hard_link
from storekeeper.stores.files.listing import shown, walk
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope, order_of
from storekeeper.stores.protocol import Content
from storekeeper.stores.sealing import CHUNK, write_sparse

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make(folder: Path, scope: Scope, tree: Tree, rights: Rights, *, lasting: bool) -> Content:
    """Make all entries of a set below the places of `tree`, and return what was then read back from there.

    The places are empty and nobody else can write to them. `lasting` is what will be live: then everything is durable afterwards,
    and devices are made where this user may. Raises Failed.
    """
    lay(folder, scope, tree, rights, lasting=lasting)
    return read_back(tree, scope, rights, listed(folder, scope))


def lay(folder: Path, scope: Scope, tree: Tree, rights: Rights, *, lasting: bool, only: Collection[str] | None = None) -> None:
    """The same without reading back; only the paths of `only` where it is given, which names the directories above them too."""
    with opened({"": folder / CONTENT}) as content, opened(tree.places) as links, Unsynced() as unsynced:
        making = _Making(tree, links, content, rights, unsynced if lasting else None)
        for entry in listed(folder, scope):
            if only is None or entry["path"] in only:
                _trying(making.one, entry)
    for entry in _directories_backwards(folder / LISTING):
        if only is None or entry["path"] in only:
            _trying(making.finish, entry)
    if lasting:
        for place in tree.places.values():
            _sync(place)


def read_back(tree: Tree, scope: Scope, rights: Rights, wanted: Iterator[Entry]) -> Content:
    """Counts and digest of what stands on disk; of `wanted` only what this process has no right to set is taken."""
    tally, links, steps = Tally(), HardLinks(), _InStep(wanted)
    for path, status in walk(tree, scope):
        if status is None:
            continue
        try:
            entry = found(tree, path, status, links)
        except OSError as error:
            raise Failed(f"{shown(path)} could not be read back: {error.strerror}") from error
        recorded = steps.at(path)
        tally.add(entry if recorded is None else rights.as_recorded(entry, recorded))
    return tally.content()


def found(tree: Tree, path: str, status: os.stat_result, links: HardLinks) -> Entry:
    """One entry with all that is compared of it; a file is read. Raises OSError."""
    if not stat.S_ISREG(status.st_mode):
        return describe(tree, path, status)
    if (first := links.first(status)) is not None:
        return hard_link(path, first)
    links.remember(status, path)
    with open(tree.open_file(path), "rb", buffering=0) as file:
        sha256, size = _hash(file)
        return {**describe(tree, path, status, file.fileno()), "size": size, "sha256": sha256}


class _InStep:
    """Entries that a restore makes, found in the order of the listing."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = (entry for entry in entries if entry["type"] in COUNTED)
        self._next = next(self._entries, None)

    def at(self, path: str) -> Entry | None:
        order = order_of(path)
        while self._next is not None and order_of(self._next["path"]) < order:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next["path"] == path else None


class _Making:
    """Makes one entry after the other; errors are OSError, or Failed where the set's contents are wrong."""

    def __init__(self, tree: Tree, links: Tree, content: Tree, rights: Rights, unsynced: Unsynced | None) -> None:
        self._tree = tree
        self._links = links
        self._content = content
        self._rights = rights
        self._unsynced = unsynced  # None for what will not be live

    def one(self, entry: Entry) -> None:
        kind, path = entry["type"], entry["path"]
        if "hardlink" in entry:
            self._link(entry["hardlink"], path)
        elif kind == "directory":
            os.mkdir(name_of(path), 0o700, dir_fd=self._tree.directory(parent_of(path)))
        elif kind == "file":
            self._file(entry)
        elif kind == "link":
            os.symlink(entry["target"], name_of(path), dir_fd=self._tree.directory(parent_of(path)))
            apply(entry, self._tree.handle(path), self._rights)
        elif kind == "fifo" or (kind == "device" and self._unsynced is not None and self._rights.root):
            self._node(entry)

    def finish(self, entry: Entry) -> None:
        """Set a directory's attributes, after all that is in it: its time would change again, its mode could lock us out."""
        descriptor = self._tree.directory(entry["path"])
        apply(entry, descriptor, self._rights)
        if self._unsynced is not None:
            os.fsync(descriptor)

    def _file(self, entry: Entry) -> None:
        path = entry["path"]
        descriptor = os.open(name_of(path), _NEW_FILE, 0o600, dir_fd=self._tree.directory(parent_of(path)))
        with open(descriptor, "wb", buffering=0) as file, open(self._content.open_file(path), "rb", buffering=0) as source:
            if _copy(source, file, entry["size"]) != (entry["sha256"], entry["size"]):
                raise Failed(f"the contents of {shown(path)} in the set are not what was recorded")
            apply(entry, file.fileno(), self._rights)
            if self._unsynced is not None:
                self._unsynced.add(file.fileno(), path, entry["size"])

    def _link(self, first: str, path: str) -> None:
        source, target = self._links.directory(parent_of(first)), self._tree.directory(parent_of(path))
        os.link(name_of(first), name_of(path), src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def _node(self, entry: Entry) -> None:
        path = entry["path"]
        parent = self._tree.directory(parent_of(path))
        if entry["type"] == "fifo":
            os.mkfifo(name_of(path), 0o600, dir_fd=parent)
        else:
            is_block, major, minor = entry["device"]
            kind = stat.S_IFBLK if is_block else stat.S_IFCHR
            os.mknod(name_of(path), 0o600 | kind, os.makedev(major, minor), dir_fd=parent)
        apply(entry, self._tree.handle(path), self._rights)


def _trying(make_one: Callable[[Entry], None], entry: Entry) -> None:
    try:
        make_one(entry)
    except OSError as error:
        raise Failed(f"{shown(entry['path'])} could not be made: {error.strerror}") from error


def _copy(source: IO[bytes], target: IO[bytes], expected: int) -> tuple[str, int]:
    """Copy not more than was expected, whatever the source holds by now; returns the sha256 and size of what was read."""
    digest, size = hashlib.sha256(), 0
    while size <= expected and (chunk := source.read(load.piece(CHUNK))):
        write_sparse(target, chunk)
        digest.update(chunk)
        size += len(chunk)
        load.spend(len(chunk))
    target.truncate(size)
    return digest.hexdigest(), size


def _hash(file: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(load.piece(CHUNK)):
        digest.update(chunk)
        size += len(chunk)
        load.spend(len(chunk))
    return digest.hexdigest(), size


def _directories_backwards(listing: Path) -> Iterator[Entry]:
    """The directories of a listing that was checked, innermost first; eight bytes of memory for each."""
    offsets, offset = array("Q"), 0
    with open(listing, "rb") as file:
        for line in file:
            if json.loads(line)["type"] == "directory":
                offsets.append(offset)
            offset += len(line)
        for each in reversed(offsets):
            file.seek(each)
            yield json.loads(file.readline())


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

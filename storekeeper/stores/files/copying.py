"""From a pinned listing to a set: every path opened as what it was, compared with the listing, described and copied.

A file is copied as it is now. Where that is not what was pinned it says so: in the listing, and in a warning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from storekeeper.host.tree import Tree, parents_of
from storekeeper.outcomes import Failed, Problem, Severity
from storekeeper.stores.files.entries import Entry, HardLinks, Tally, describe, hard_link
from storekeeper.stores.files.listing import Seen, is_gone, kind_of, shown, spooled
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.protocol import Content
from storekeeper.stores.trees import TreeWriter

_NAMED = 10  # paths named in warnings of each sort; the rest is counted

_SORTS = {
    "absent": "is declared in `include` and does not exist: recorded as absent",
    "vanished": "vanished after its moment was pinned: it is not in the set",
    "changed": "changed after its moment was pinned: the set holds a later state",
    "socket": "is a socket: it is listed, and a restore does not make it",
    "device": "is a device: only a restore as root makes it",
}


class Remarks:
    """What is worth a warning: the first few paths of each sort by name, and how many there were in all."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._named: dict[str, list[str]] = {}

    def add(self, sort: str, path: str) -> None:
        self.counts[sort] = self.counts.get(sort, 0) + 1
        named = self._named.setdefault(sort, [])
        if len(named) < _NAMED:
            named.append(path)

    def problems(self, store: str) -> Iterator[Problem]:
        for sort, paths in self._named.items():
            for path in paths:
                yield Problem(f"{shown(path)} {_SORTS[sort]}", Severity.WARNING, store)
            if (more := self.counts[sort] - len(paths)) > 0:
                yield Problem(f"{more:,} more like this: {sort}", Severity.WARNING, store)


def directories_above(tree: Tree, scope: Scope) -> bytes:
    """The directories above the covered entries, written down: a restore that misses one makes it like this. Raises Failed."""
    found = []
    for path in scope.above():
        try:
            descriptor = tree.directory(path)
            found.append({**describe(tree, path, os.fstat(descriptor), descriptor), "path": path})
        except OSError as error:
            if not is_gone(error) or not path:
                raise Failed(f"{shown(path) or tree.places['']} cannot be read: {error.strerror}") from error
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode("ascii")


class Copying:
    """One dump. `tree` is the live one; `writer` takes the entries in the order of the listing."""

    def __init__(self, tree: Tree, writer: TreeWriter) -> None:
        self.remarks = Remarks()
        self._tree = tree
        self._writer = writer
        self._tally = Tally()
        self._links = HardLinks()
        self._lost: set[str] = set()

    def copy(self, listing: Path) -> Content:
        """Copy everything listed. Raises Failed for what is there and cannot be copied, and where all files are gone."""
        for seen in spooled(listing):
            try:
                self._copy_one(seen)
            except OSError as error:
                if not is_gone(error):
                    raise Failed(f"{shown(seen.path)} could not be copied: {error.strerror}") from error
                self._lose(seen)
        content = self._tally.content()
        if self.remarks.counts.get("vanished") and not content.counts["files"]:
            raise Failed("every file vanished between the listing and the copy: is its disk still mounted?")
        return content

    def _copy_one(self, seen: Seen) -> None:
        if seen.kind == "absent":
            self._list({"path": seen.path, "type": "absent"})
        elif self._parent_is_lost(seen.path):
            self._lose(seen)
        elif seen.kind == "file":
            self._copy_file(seen)
        elif seen.kind == "directory":
            self._copy_directory(seen)
        else:
            self._copy_other(seen)

    def _copy_file(self, seen: Seen) -> None:
        with open(self._tree.open_file(seen.path), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if kind_of(status) != "file":
                self._lose(seen)
                return
            if (first := self._links.first(status)) is not None:
                self._list(hard_link(seen.path, first))
                return
            entry = describe(self._tree, seen.path, status, file.fileno())
            if not seen.is_still(status):
                entry["changed"] = True
            whole = self._store(entry, file)
        self._links.remember(status, seen.path)
        self._note(whole)

    def _copy_directory(self, seen: Seen) -> None:
        """A directory's time is that of the listing: what came into it since is not in the set."""
        descriptor = self._tree.directory(seen.path)
        entry = describe(self._tree, seen.path, os.fstat(descriptor), descriptor)
        self._list({**entry, "mtime_ns": seen.mtime_ns})

    def _copy_other(self, seen: Seen) -> None:
        status = self._tree.lstat(seen.path)
        if kind_of(status) != seen.kind:
            self._lose(seen)
            return
        entry = describe(self._tree, seen.path, status)
        self._list(entry if seen.is_still(status) else {**entry, "changed": True})

    def _store(self, entry: Entry, file: IO[bytes]) -> Entry:
        """An error here is never that the source is gone: it is open."""
        try:
            return self._writer.add_file(entry, file)
        except OSError as error:
            raise Failed(f"{shown(entry['path'])} could not be copied: {error.strerror}") from error

    def _parent_is_lost(self, path: str) -> bool:
        """What came back below a directory that was gone has no place in the listing any more."""
        return bool(self._lost) and any(parent in self._lost for parent in parents_of(path))

    def _lose(self, seen: Seen) -> None:
        if seen.kind == "directory":
            self._lost.add(seen.path)
        self._list({"path": seen.path, "type": "vanished", "was": seen.kind})

    def _list(self, entry: Entry) -> None:
        self._writer.add(entry)
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        self._tally.add(entry)
        if entry["type"] in _SORTS:
            self.remarks.add(entry["type"], entry["path"])
        elif entry.get("changed"):
            self.remarks.add("changed", entry["path"])

"""Reading a set's listing as what it is: input that somebody may have edited.

A listing that passes can be written below a directory without ever leaving it: no path is absolute, climbs, comes twice or
lies below anything but a listed directory. What follows reads it only through here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from storekeeper.host.tree import is_below, parent_of
from storekeeper.outcomes import Failed
from storekeeper.stores.files.entries import COUNTED, LISTED_ONLY, Entry, Tally, is_kept
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.scope import Scope, order_of
from storekeeper.stores.lines import read_lines
from storekeeper.stores.protocol import Content
from storekeeper.stores.record import StoreRecord

LISTING, CONTENT, ABOVE = "tree.jsonl", "content", "above.json"

_NUMBERS = ("mode", "uid", "gid", "mtime_ns")
_LARGEST = {"mode": 0o7777, "uid": 0xFFFFFFFE, "gid": 0xFFFFFFFE, "mtime_ns": 1 << 63}


def listed(folder: Path, scope: Scope) -> Iterator[Entry]:
    """The entries of a set's listing, each checked. Raises Failed at the first that cannot be trusted."""
    order = _Order(scope)
    try:
        for entry in read_lines(folder / LISTING):
            _check_shape(entry)
            order.check(entry)
            yield entry
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Failed(f"{LISTING} cannot be read: {error}") from error


def above(folder: Path, scope: Scope) -> dict[str, Entry]:
    """The directories above the covered entries, the root under the empty name, as the set recorded them."""
    try:
        with open(folder / ABOVE, encoding="ascii") as file:
            entries = {str(entry["path"]): entry for entry in json.load(file)}
        for entry in entries.values():
            _check_attributes(entry)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Failed(f"{ABOVE} cannot be read: {error}") from error
    if not set(entries) <= set(scope.above()) or "" not in entries:
        raise Failed(f"{ABOVE} names directories that are not above what the set covers")
    return entries


def verify(folder: Path, record: StoreRecord, scope: Scope) -> None:
    """Every entry can be restored, and together they are what the manifest says."""
    above(folder, scope)
    tally, stored = Tally(), 0
    for entry in listed(folder, scope):
        tally.add(entry)
        if "sha256" in entry:
            stored += 1
            _check_stored(folder / CONTENT, entry)
    compare(tally.content(), record)


def compare(found: Content, record: StoreRecord) -> None:
    if dict(found.counts) != dict(record.counts) or dict(found.digests) != dict(record.digests):
        raise Failed(f"{LISTING} holds {_told(found.counts)}, and the manifest says {_told(record.counts)}")


def _told(counts: Any) -> str:
    return f"{counts.get('files', 0):,} files of {counts.get('bytes', 0):,} bytes"


def _check_stored(content: Path, entry: Entry) -> None:
    path = content / entry["path"]
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry["size"]:
        raise Failed(f"the contents of {shown(entry['path'])} are not in the set as they were recorded")


def _check_shape(entry: Entry) -> None:
    """Raises ValueError, KeyError or TypeError."""
    path, kind = entry["path"], entry["type"]
    if not isinstance(path, str) or not is_below(path):
        raise ValueError(f"the path {shown(str(path))!r} could lead anywhere")
    if kind not in COUNTED | LISTED_ONLY:
        raise ValueError(f"{shown(path)}: unknown type {kind!r}")
    if kind in ("vanished", "absent"):
        return
    if "hardlink" in entry:
        if kind != "file" or not isinstance(entry["hardlink"], str) or not order_of(entry["hardlink"]) < order_of(path):
            raise ValueError(f"{shown(path)}: a hard link names a file that was listed before it")
        return
    _check_attributes(entry)
    if kind == "file" and (not isinstance(entry["size"], int) or entry["size"] < 0 or len(entry["sha256"]) != 64):
        raise ValueError(f"{shown(path)}: no size and sha256")
    if kind == "link" and (not isinstance(entry["target"], str) or not entry["target"] or "\0" in entry["target"]):
        raise ValueError(f"{shown(path)}: no target")
    if kind == "device" and [type(each) for each in entry["device"]] != [bool, int, int]:
        raise ValueError(f"{shown(path)}: no numbers of a device")


def _check_attributes(entry: Entry) -> None:
    for key in _NUMBERS:
        value = entry[key]
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST[key] or (value < 0 and key != "mtime_ns"):
            raise ValueError(f"{shown(str(entry['path']))}: {key} is {value!r}")
    for name, value in entry.get("xattrs", {}).items():
        if not is_kept(name):
            raise ValueError(f"{shown(str(entry['path']))}: extended attribute {shown(name)} is none that a set keeps")
        base64.b64decode(value, validate=True)


class _Order:
    """Sorted, nothing twice, nothing below what is not a directory. Keeps only directories whose contents may still come."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._last: bytes | None = None
        self._open: list[str] = []
        self._linkable = _Linkable()

    def check(self, entry: Entry) -> None:
        path, order = entry["path"], order_of(entry["path"])
        if self._last is not None and order <= self._last:
            raise ValueError(f"{shown(path)} is not in order")
        self._last = order
        while self._open and not path.startswith(self._open[-1] + "/") and order > order_of(self._open[-1] + "/"):
            self._open.pop()
        if entry["type"] != "vanished":
            self._check_parent(path, self._open)
        if entry["type"] == "directory":
            self._open.append(path)
        self._linkable.check(entry)

    def _check_parent(self, path: str, open_directories: Collection[str]) -> None:
        if not self._scope.covers(path):
            raise ValueError(f"{shown(path)} is not below what the set covers")
        parent = parent_of(path)
        is_entry = path in self._scope.include if self._scope.include else parent == ""
        if not is_entry and parent not in open_directories:
            raise ValueError(f"{shown(path)} lies below something that is no directory")


class _Linkable:
    """The files that a hard link may name: those listed with several names."""

    def __init__(self) -> None:
        self._files: set[str] = set()

    def check(self, entry: Entry) -> None:
        if "hardlink" in entry:
            if entry["hardlink"] not in self._files:
                raise ValueError(f"{shown(entry['path'])}: its hard link names no file of the set")
        elif entry["type"] == "file" and "links" in entry:
            self._files.add(entry["path"])

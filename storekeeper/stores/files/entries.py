"""What a set says of each file, directory or link: its attributes as a line of `tree.jsonl`, and the counts and digest of all.

The digest is made of what a restore can put back: type, mode, owner, times, contents, target and extended attributes. Sockets
and devices are listed but not counted, and neither is what vanished before it could be copied.
"""

from __future__ import annotations

import base64
import errno
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from storekeeper.host.tree import Tree
from storekeeper.stores.files.listing import kind_of
from storekeeper.stores.lines import to_line
from storekeeper.stores.protocol import Content

Entry = dict[str, Any]

COUNTED = frozenset({"directory", "file", "link", "fifo"})
NOT_THERE = frozenset({"vanished", "absent"})
LISTED_ONLY = frozenset({"socket", "device"}) | NOT_THERE
_DIGESTED = ("path", "type", "mode", "uid", "gid", "mtime_ns", "size", "sha256", "target", "xattrs", "hardlink")

ACLS = frozenset({"system.posix_acl_access", "system.posix_acl_default"})
# Sums that the kernel makes for one inode: on another one they would only be wrong.
_OF_ONE_INODE = frozenset({"security.ima", "security.evm"})


def describe(tree: Tree, path: str, status: os.stat_result, descriptor: int | None = None) -> Entry:
    """The attributes of one path. `descriptor` is it where it is open; else it is looked at by name, never through a link."""
    kind = kind_of(status)
    entry: Entry = {
        "path": path,
        "type": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "owner": _user(status.st_uid),
        "group": _group(status.st_gid),
        "mtime_ns": status.st_mtime_ns,
    }
    if xattrs := _xattrs(tree.handle(path) if descriptor is None else descriptor):
        entry["xattrs"] = xattrs
    if kind == "file" and status.st_nlink > 1:
        entry["links"] = status.st_nlink
    if kind == "link":
        entry["target"] = tree.readlink(path)
    if kind == "device":
        entry["device"] = [stat.S_IFMT(status.st_mode) == stat.S_IFBLK, os.major(status.st_rdev), os.minor(status.st_rdev)]
    return entry


class Tally:
    """Counts and the digest of entries, added in the order of the listing."""

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0
        self._digest = hashlib.sha256()

    def add(self, entry: Mapping[str, Any]) -> None:
        if entry["type"] not in COUNTED:
            return
        self._files += entry["type"] == "file"
        self._bytes += entry.get("size", 0)
        self._digest.update(to_line({key: entry[key] for key in _DIGESTED if key in entry}))

    def content(self) -> Content:
        return Content({"files": self._files, "bytes": self._bytes}, {"tree": f"sha256:{self._digest.hexdigest()}"})


class HardLinks:
    """Which file of a tree was the first with each inode. Memory grows with the files that have more than one name, only."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], str] = {}

    def first(self, status: os.stat_result) -> str | None:
        """The path that this inode was first remembered under, if it was."""
        return self._first.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None

    def remember(self, status: os.stat_result, path: str) -> None:
        if status.st_nlink > 1:
            self._first.setdefault((status.st_dev, status.st_ino), path)


def hard_link(path: str, first: str) -> Entry:
    """A further name of a file that is listed under its first one."""
    return {"path": path, "type": "file", "hardlink": first}


def _xattrs(where: str | int) -> dict[str, str]:
    try:
        names = os.listxattr(where) if isinstance(where, int) else os.listxattr(where, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {name: value for name in sorted(names) if is_kept(name) and (value := _xattr(where, name)) is not None}


def is_kept(name: str) -> bool:
    """Which extended attributes belong to a set: the application's own, access lists, and security ones that can be set again."""
    return name.startswith("user.") or name in ACLS or (name.startswith("security.") and name not in _OF_ONE_INODE)


def _xattr(where: str | int, name: str) -> str | None:
    """None for a security attribute that only others may read: it is not ours to restore either."""
    try:
        value = os.getxattr(where, name) if isinstance(where, int) else os.getxattr(where, name, follow_symlinks=False)
    except PermissionError:
        if name.startswith("security."):
            return None
        raise
    return base64.b64encode(value).decode("ascii")


@lru_cache(maxsize=1000)
def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@lru_cache(maxsize=1000)
def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None

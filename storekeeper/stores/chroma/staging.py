"""Making a set's directory anew next to the live one: hashed once it is there, with the recorded owners, modes and times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.host.tree import is_below
from storekeeper.outcomes import Failed
from storekeeper.stores import rawcopy
from storekeeper.stores.chroma.content import content_with
from storekeeper.stores.chroma.dumping import CONTENT, DIRECTORY, FILE, LISTING
from storekeeper.stores.lines import read_lines
from storekeeper.stores.protocol import Content
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import sha256_of

_OWN = 0o700


def stage(folder: Path, record: StoreRecord, target: Path, live: Path, *, keep_owners: bool) -> Content:
    """Make `target` from a set's folder, durable, and read it back without Chroma, which would change it.

    What an interrupted stage left is removed first. A raw copy is made anew as it is, and not read. Raises Failed when a file is not
    what the listing says.
    """
    durable.remove_tree(target)
    durable.make_directory(target)
    directories, sums = [(target, _top(record, live))], []
    for entry in read_lines(folder / LISTING):
        path = _inside(target, str(entry["path"]))
        if entry["type"] == DIRECTORY:
            os.mkdir(path, _OWN)
            directories.append((path, entry))
        elif entry["type"] == FILE:
            sums.append((str(entry["path"]), _copy_file(folder / CONTENT / str(entry["path"]), path, entry, keep_owners=keep_owners)))
    content = Content({}, {}) if record.is_raw else content_with(target, sums)
    for path, entry in reversed(directories):
        _finish(path, entry, keep_owners=keep_owners)
        durable.sync_directory(path)
    return content


def _copy_file(source: Path, target: Path, entry: dict[str, Any], *, keep_owners: bool) -> str:
    """The sha256 of what stands in the copy now."""
    rawcopy.copy_file(source, target)
    sha256, _ = sha256_of(target)
    if sha256 != entry["sha256"]:
        raise Failed(f"{entry['path']} in the set is not what was recorded")
    durable.sync_file(target)
    _finish(target, entry, keep_owners=keep_owners)
    return sha256


def _finish(path: Path, entry: dict[str, Any], *, keep_owners: bool) -> None:
    """Owner, mode and time, in this order: a change of owner takes mode bits away."""
    if keep_owners and os.geteuid() == 0:
        os.chown(path, int(entry["uid"]), int(entry["gid"]), follow_symlinks=False)
    os.chmod(path, int(entry["mode"]))
    if "mtime_ns" in entry:
        os.utime(path, ns=(int(entry["mtime_ns"]), int(entry["mtime_ns"])))


def _top(record: StoreRecord, live: Path) -> dict[str, Any]:
    """Owner and mode of the directory itself: the live one's where there is one, else as recorded."""
    if live.is_dir():
        status = os.stat(live)
        return {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}
    return dict(record.details["root"])


def _inside(target: Path, name: str) -> Path:
    if not is_below(name):
        raise Failed(f"the set lists {name!r}, which is no path inside the directory")
    return target / name

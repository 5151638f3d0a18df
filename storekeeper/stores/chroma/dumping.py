"""Putting the copied directory into a set: its files with their sha256, checked while threads hash them"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from storekeeper.outcomes import Failed, Problem, Severity
from storekeeper.stores.chroma import catalogue, checking, content
from storekeeper.stores.chroma.checking import DatabaseCheck
from storekeeper.stores.chroma.hold import KLASS, ChromaHold
from storekeeper.stores.chroma.layout import Found
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Dumped

LISTING = "files.jsonl"
CONTENT = "directory"
DIRECTORY, FILE = "directory", "file"  # the `type` of an entry


def dump(hold: ChromaHold, live: Path, into: StoreFolder) -> tuple[Dumped, DatabaseCheck]:
    """Hand the copy over to the set, check its indexes and count what it holds, from the copy alone.

    SQLite's own check, which takes longest, goes on: whoever verifies the set next waits for it. Raises Failed when the copy would
    not restore.
    """
    hold.finish()
    database = hold.database_check()
    try:
        with into.tree(LISTING, CONTENT) as tree:
            for entry in sorted(hold.found.values(), key=lambda each: os.fsencode(each.path)):
                copied = hold.directory / entry.path
                if entry.is_file:
                    tree.add_copied(_listed(entry, FILE), copied, entry.source if entry.settled else None, hold.sums.get(entry.path))
                else:
                    tree.add(_listed(entry, DIRECTORY))
            counts = checking.check_indexes(into.path / CONTENT)
    except BaseException:
        database.stop()
        raise
    digest = content.digest_of_listing(into.path / LISTING)
    with catalogue.open_catalogue(into.path / CONTENT, sealed=True) as written:
        migrations = written.migrations()
    details = {"migrations": migrations, "root": root_of(live)}
    return Dumped(KLASS, counts, {content.DIGEST: digest}, details, newer(migrations)), database


def root_of(live: Path) -> dict[str, int]:
    """Owner and mode of the directory itself."""
    try:
        status = os.stat(live)
    except OSError as error:
        raise Failed(f"{live} cannot be looked at: {error.strerror}") from error
    return {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}


def newer(migrations: catalogue.Migrations) -> list[Problem]:
    """A warning for a directory that a newer Chroma has changed than the one this program was tried with."""
    if not catalogue.ahead_of(migrations, catalogue.KNOWN):
        return []
    known = f"chromadb {catalogue.KNOWN_VERSION} has {catalogue.spoken(catalogue.KNOWN)}"
    return [Problem(f"a newer Chroma wrote this directory: migrations {catalogue.spoken(migrations)}, {known}", Severity.WARNING)]


def _listed(entry: Found, kind: str) -> dict[str, Any]:
    return {"path": entry.path, "type": kind, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime_ns": entry.mtime_ns}

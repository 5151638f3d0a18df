"""A stack whose live database is damaged, and what a restore over it is asked and has to keep."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest
from tests.harness.stacks import Lab

PARTS = ("", "-journal", "-wal")  # not the index of the log, which SQLite makes anew whenever somebody looks


def files_of(path: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """The file and what SQLite keeps beside it: bytes, mode and owners."""
    found = {}
    for part in PARTS:
        each = path.with_name(path.name + part)
        if each.exists():
            status = each.stat()
            found[part] = (each.read_bytes(), status.st_mode, status.st_uid, status.st_gid)
    return found


def overwrite_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(os.urandom(100))


def leave_log_and_break(path: Path) -> None:
    """A damaged file with a log and an index beside it."""
    kept = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma wal_autocheckpoint=0")
        connection.execute("update things set word = 'in the log'")
        connection.commit()
        kept = files_of(path)
    for part, (data, *_) in kept.items():
        path.with_name(path.name + part).write_bytes(data)
    overwrite_header(path)


def begin(lab: Lab, damage: Callable[[Path], None] = overwrite_header) -> tuple[SetEntry, Path]:
    """A set of `first`; live is `second`, of which `main` is damaged."""
    entry = lab.take("first")
    lab.write("second")
    main = lab.root / "live" / "main.db"
    main.chmod(0o640)
    damage(main)
    return entry, main


def accepting(entry: SetEntry | None, *stores: str, **more: Any) -> RestoreRequest:
    set_id = entry.id if entry is not None else None
    return RestoreRequest(set=set_id, back=entry is None, accept_unreadable=frozenset(stores or ("main",)), **more)

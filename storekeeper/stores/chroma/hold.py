"""A grip on one moment of a Chroma directory: its SQLite write lock, held by another process while what changed is copied.

Every acknowledged write is in the SQLite file's queue; the index files follow later. So a moment is whole when the SQLite
file is not newer than the index files: both are copied while nobody can write the SQLite file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from storekeeper.host.hashing import Sum
from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.chroma import layout
from storekeeper.stores.chroma.checking import DatabaseCheck
from storekeeper.stores.chroma.copying import Copy
from storekeeper.stores.chroma.layout import Found
from storekeeper.stores.lockholder import CAP_S, LockHolder
from storekeeper.stores.protocol import PinOrder

KLASS = "locked-copy"
LOCK_WAIT_S = 10.0


class ChromaHold:
    """Writers wait between `pin` and `release`; queries go on. Used in the order that `stores.protocol.Hold` gives."""

    order = PinOrder.WRITE_LOCK

    def __init__(self, live: Path, work: Path, wait_s: float = LOCK_WAIT_S, cap_s: float = CAP_S) -> None:
        self.directory = work / "directory"
        self._live = live
        self._wait_s = wait_s
        self._holder = LockHolder(live / layout.DATABASE, cap_s)
        self._copy: Copy | None = None
        self._snapshot: sqlite3.Connection | None = None
        self._check: DatabaseCheck | None = None
        self._has_log = False

    @property
    def pause_ms(self) -> float:
        return self._holder.pause_ms

    @property
    def found(self) -> dict[str, Found]:
        """What the copy holds, as it was in the live directory."""
        return self._pass.found

    @property
    def sums(self) -> Mapping[str, Sum]:
        """Of the files in the copy that were hashed as they are now."""
        return self._pass.sums

    def prepare(self) -> None:
        """Copy everything once without the lock, and start the process that will hold it.

        A SQLite file that is at rest is checked from now on: at night it will be the one that is found under the lock.
        """
        self._has_log = _has_log(self._live / layout.DATABASE)
        os.mkdir(self.directory, 0o700)
        self._copy = Copy(self._live, self.directory, with_database=not self._has_log)
        self._pass.first_pass(self._begin_check)
        self._holder.start()

    def pin(self) -> datetime:
        """Raises Failed when another program keeps the lock for `wait_s`."""
        return self._holder.take(self._wait_s)

    def copy(self) -> None:
        """Copy what changed since `prepare`. With a write-ahead log the SQLite file's moment is pinned by a read transaction instead."""
        if self._has_log != _has_log(self._live / layout.DATABASE):
            raise Failed(f"{self._live / layout.DATABASE} changed its journal mode while it was being held: try again")
        if self._has_log:
            self._pin_snapshot()
        self._pass.under_lock()

    def release(self) -> None:
        self._holder.release()

    def finish(self) -> None:
        """What needs no lock any more: the SQLite file from the pinned read transaction, where there is one."""
        if self._snapshot is None:
            return
        database = self._live / layout.DATABASE
        with databases.explained(database):
            target = databases.make(self.directory / layout.DATABASE)
            try:
                databases.copy_pages(self._snapshot, target)
            finally:
                target.close()
        self._close_snapshot()
        found = layout.look(self._live, layout.DATABASE)
        if found is None:
            raise Failed(f"{database} vanished while it was copied")
        self.found[layout.DATABASE] = replace(found, settled=False)

    def database_check(self) -> DatabaseCheck:
        """SQLite's check of the copy, under way; it belongs to the caller now."""
        running, self._check = self._check, None
        if running is not None and layout.DATABASE in self.sums:
            return running
        if running is not None:
            running.stop()
        return DatabaseCheck(self.directory)

    def close(self) -> None:
        self._holder.close()
        if self._check is not None:
            self._check.stop()
            self._check = None
        self._close_snapshot()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _pass(self) -> Copy:
        if self._copy is None:
            raise Failed(f"{self._live} is not held")
        return self._copy

    def _begin_check(self) -> None:
        self._check = DatabaseCheck(self.directory)

    def _pin_snapshot(self) -> None:
        with databases.explained(self._live / layout.DATABASE):
            self._snapshot = databases.open_read_only(self._live / layout.DATABASE)
            self._snapshot.execute("begin")
            self._snapshot.execute("select count(*) from sqlite_master").fetchone()

    def _close_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None


def _has_log(database: Path) -> bool:
    """Whether the file is in WAL mode: byte 18 of its header, sqlite.org/fileformat.html. This process has no lock on it to lose."""
    try:
        with open(database, "rb") as file:
            return file.read(19)[18:] == b"\x02"
    except OSError as error:
        raise Failed(f"{database} cannot be read: {error.strerror}") from error

"""A grip on one moment of a SQLite file: a read transaction where it has a write-ahead log, a lock and a copy where it has not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from storekeeper.host import clock
from storekeeper.outcomes import Failed
from storekeeper.stores import databases, rawcopy
from storekeeper.stores.lockholder import LockHolder
from storekeeper.stores.protocol import PinOrder
from storekeeper.stores.sqlite import contents

COPY = "database.sqlite"
LOCK_WAIT_S = 10.0
_WAL_FORMAT = 2  # byte 18 of the header, sqlite.org/fileformat.html


class SnapshotHold:
    """Class `snapshot`: the pinned rows stay readable on one connection while writers go on."""

    klass = "snapshot"
    order = PinOrder.SNAPSHOT

    def __init__(self, live: Path, work: Path) -> None:
        self.copied = work / COPY
        self._live = live
        self._connection: sqlite3.Connection | None = None

    @property
    def pause_ms(self) -> float:
        return 0.0

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that sees the pinned moment, and only that."""
        if self._connection is None:
            raise Failed(f"{self._live} is not held")
        return self._connection

    def prepare(self) -> None:
        with databases.explained(self._live):
            self._connection = databases.open_read_only(self._live)

    def pin(self) -> datetime:
        """Raises Failed when the file has no write-ahead log any more: a read transaction would then block its writers."""
        with databases.explained(self._live):
            self.connection.execute("begin")
            self.connection.execute("select count(*) from sqlite_master").fetchone()
            moment = clock.now()
            mode = contents.journal_mode(self.connection)
        if mode != "wal":
            self.close()
            raise Failed(f"{self._live} changed its journal mode to {mode} while it was being held: try again")
        return moment

    def copy(self) -> None:
        """Nothing: what is pinned stays readable."""

    def release(self) -> None:
        """Nothing: nobody waits."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        _remove(self.copied)


class CopyHold:
    """Class `locked-copy`: writers wait while the file is copied; readers go on.

    The lock lives in another process, so that this one may open the file to copy it (`stores/lockholder.py`).
    """

    klass = "locked-copy"
    order = PinOrder.WRITE_LOCK

    def __init__(self, live: Path, work: Path, wait_s: float = LOCK_WAIT_S) -> None:
        self.copied = work / COPY
        self._live = live
        self._wait_s = wait_s
        self._holder = LockHolder(live)

    @property
    def pause_ms(self) -> float:
        return self._holder.pause_ms

    def prepare(self) -> None:
        self._holder.start()

    def pin(self) -> datetime:
        return self._holder.take(self._wait_s)

    def copy(self) -> None:
        """The lock was had only after a transaction that a crash had left half done was rolled back: the file alone is whole."""
        try:
            rawcopy.copy_file(self._live, self.copied)
        except OSError as error:
            raise Failed(f"{self._live} could not be copied: {error.strerror}") from error

    def release(self) -> None:
        self._holder.release()
        with open(self.copied, "rb") as file:
            if file.read(19)[18:] == bytes([_WAL_FORMAT]):
                raise Failed(f"{self._live} changed its journal mode to wal while it was being held: try again")

    def close(self) -> None:
        self._holder.close()
        _remove(self.copied)


def hold(live: Path, work: Path) -> SnapshotHold | CopyHold:
    """The hold that fits the file's journal mode, not yet taken. Raises Failed when it is no database."""
    return SnapshotHold(live, work) if journal_mode(live) == "wal" else CopyHold(live, work)


def journal_mode(live: Path) -> str:
    """`wal`, or another word where there is a rollback journal."""
    with databases.explained(live), closing(databases.open_read_only(live)) as connection:
        connection.execute("select count(*) from sqlite_master").fetchone()
        return contents.journal_mode(connection)


def _remove(copied: Path) -> None:
    for path in (copied, *(databases.beside(copied, suffix) for suffix in databases.SUFFIXES)):
        path.unlink(missing_ok=True)

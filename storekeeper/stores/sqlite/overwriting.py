"""One SQLite file written over another in a single transaction, with the other saved under the same lock."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import cycle
from pathlib import Path

from storekeeper.host import clock, durable, processes
from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.sqlite.others import spoken_others
from storekeeper.stores.sqlite.place import unfinished

PATIENCE_S = 30.0
# How long each try waits, in turn: many short ones find a gap between the transactions of a busy writer, and the long one keeps
# new readers out until those who read now have ended, which is needed where there is a rollback journal.
_TURNS_S = (0.05, 0.05, 0.05, 0.05, 1.0)


class _InTheWay(Exception):
    """Somebody else's lock is in the way."""


class Overwriting:
    """`source` over `live`, by the backup API (sqlite.org/c3ref/backup_finish.html), with `live` kept as `saved`.

    `announce` is called under the lock, once `saved` is durable and before anything is written; what it raises leaves `live` as it was.
    """

    def __init__(self, source: Path, live: Path, saved: Path, announce: Callable[[], None], patience_s: float = PATIENCE_S) -> None:
        self._source = source
        self._live = live
        self._saved = saved
        self._announce = announce
        self._patience_s = patience_s
        self._locked = False

    def run(self) -> None:
        """Raises Failed, with `live` untouched, when the lock cannot be had in time; one reader is enough where there is no log."""
        deadline = clock.monotonic() + self._patience_s
        for turn_s in cycle(_TURNS_S):
            if self._is_written(turn_s):
                return
            if clock.monotonic() > deadline:
                said = spoken_others(self._live)
                raise Failed(f"{self._live} could not be locked within {self._patience_s:g} s and was not touched: {said}")

    def _is_written(self, turn_s: float) -> bool:
        """One try; False when somebody else's lock was in the way."""
        try:
            with closing(databases.open_read_only(self._source)) as origin:
                origin.execute("begin")
                if origin.execute("pragma page_count").fetchone()[0] < 2:
                    raise Failed(f"{self._source} has a single page: it would be written before the live file is saved")
                with closing(databases.open_writable(self._live, wait_s=turn_s)) as destination:
                    # One page a step: the first has locked the live file and left it unchanged on disk, and the last is another one.
                    origin.backup(destination, pages=1, progress=self._watch)
        except (_InTheWay, sqlite3.Error) as error:
            if not self._locked and (isinstance(error, _InTheWay) or databases.is_busy(error)):
                return False
            raise Failed(f"{self._live} could not be overwritten with {self._source}: {error}") from error
        return True

    def _watch(self, status: int, _remaining: int, _total: int) -> None:
        if status & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _InTheWay("somebody else has it locked")
        if not self._locked:
            self._locked = True
            self._save()
            self._announce()

    def _save(self) -> None:
        part = unfinished(self._saved)
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, durable.PRIVATE_FILE))
        if not _backed_up(self._live, part):
            # The lock keeps all readers out, and this process must not open the file itself: closing it would drop the lock.
            processes.run(processes.Command(["cp", "--reflink=auto", "--", self._live, part]))
        durable.sync_file(part)
        os.rename(part, self._saved)
        durable.sync_directory(self._saved.parent)


def _backed_up(live: Path, part: Path) -> bool:
    """Copy what readers see now, where there is a write-ahead log; False where the lock keeps readers out."""
    try:
        with closing(databases.open_read_only(live, wait_s=0)) as reader, closing(databases.make(part)) as copy:
            reader.execute("begin")
            reader.execute("select count(*) from sqlite_master").fetchone()
            reader.backup(copy)
            copy.execute("pragma journal_mode=delete").fetchone()
    except sqlite3.OperationalError as error:
        if not databases.is_busy(error):
            raise
        return False
    return True

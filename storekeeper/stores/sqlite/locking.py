"""Who has a SQLite file open, and which of its locks each holds: by the bytes that SQLite locks (sqlite.org/fileformat.html, walformat)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storekeeper.host.filelocks import RangeLock, locks_on
from storekeeper.outcomes import Unknown
from storekeeper.stores import databases
from storekeeper.stores.examination import InUse
from storekeeper.stores.sqlite.others import others

_PENDING, _SHARED_END = 0x40000000, 0x40000001 + 510  # pending, reserved and the 510 bytes of readers
_LOG_FIRST, _LOG_LAST = 120, 127  # of the -shm file: one writer, checkpoint, recovery, five marks of readers


def users(live: Path) -> list[InUse]:
    """The other processes that have the file, its journal or its log open, by pid. Raises Unknown where that cannot be seen."""
    programs = {holder.pid: holder.program for holder in others(live)}
    try:
        found = [*_of_database(live), *_of_log(databases.beside(live, "-shm"))]
    except OSError as error:
        raise Unknown(f"who holds a lock on {live} cannot be seen: {error.strerror}") from error
    return [
        InUse(pid, program, _word([lock for lock in found if lock.pid == pid and not lock.waits]), _waits(found, pid))
        for pid, program in sorted(programs.items())
    ]


def _of_database(live: Path) -> Iterator[RangeLock]:
    return (lock for lock in locks_on(live) if lock.touches(_PENDING, _SHARED_END))


def _of_log(index: Path) -> Iterator[RangeLock]:
    return (lock for lock in locks_on(index) if lock.touches(_LOG_FIRST, _LOG_LAST))


def _word(held: list[RangeLock]) -> str | None:
    if any(lock.is_write for lock in held):
        return "write"
    return "read" if held else None


def _waits(found: list[RangeLock], pid: int) -> bool:
    return any(lock.waits for lock in found if lock.pid == pid)

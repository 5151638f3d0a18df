"""A staged file that takes a name which nothing has, and the way back, to nothing.

A journal or log that stands beside the name without a database is set aside first: SQLite would play it into the new file.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores import databases, rawcopy
from storekeeper.stores.sqlite import contents
from storekeeper.stores.sqlite.others import refuse_newcomers, refuse_others, spoken_others
from storekeeper.stores.sqlite.place import Place, unfinished


def bring_near(place: Place) -> int:
    """Have the staged file beside the name it will take, and return its inode. Safe to repeat."""
    if not place.near.exists():
        try:
            _bring(place.stage, place.near)
        except FileNotFoundError as error:
            raise Failed(f"{place.stage} is not there any more: nothing is staged") from error
    return place.near.stat().st_ino


def bring_all_near(place: Place) -> None:
    """The same for a raw copy, which may have a log and a journal. Safe to repeat."""
    for suffix in ("", *databases.SUFFIXES):
        source, target = databases.beside(place.stage, suffix), databases.beside(place.near, suffix)
        if source.exists() and not target.exists():
            _bring(source, target)


def arrive(place: Place) -> None:
    """Give the file its name. Raises Failed when the name is taken meanwhile."""
    _move_companions(place.live, place.aside)
    try:
        durable.rename(place.near, place.live)
    except FileExistsError as error:
        raise Failed(f"{place.live} was made by another program while it was being restored: move it away") from error


def has_arrived(place: Place, inode: int) -> bool:
    """Whether the name belongs to the file of this inode; False also when nothing has the name."""
    try:
        return os.stat(place.live).st_ino == inode
    except FileNotFoundError:
        return False


@contextmanager
def unused(live: Path, *, nobody_uses: bool) -> Iterator[str]:
    """Keep everybody else out while the block takes the name away; yields the journal mode that the file had.

    Everything that a log still holds is in the file then, and nothing stands beside it. Raises Failed, and Unknown unless a person
    said that nobody uses it, when another process has it open.
    """
    why = "a file that others have open cannot be taken away"
    refuse_others(live, why, nobody_uses=nobody_uses)
    with databases.explained(live), closing(databases.open_writable(live)) as connection:
        mode = contents.journal_mode(connection)
        roll_up(connection, live)
        connection.execute("begin exclusive")
        refuse_newcomers(live, why)
        yield mode
        connection.execute("rollback")


def roll_up(connection: sqlite3.Connection, live: Path) -> None:
    """Change to a rollback journal, so that the file alone is whole. Raises Failed while others use its log."""
    try:
        connection.execute("pragma journal_mode=delete").fetchone()
    except sqlite3.OperationalError as error:
        if not databases.is_busy(error):
            raise
        raise Failed(f"{live} is in use: {spoken_others(live)}") from error


def set_mode(path: Path, mode: str) -> None:
    """Give a file that nobody uses its journal mode. Only `wal` is kept in the file itself."""
    if mode == "wal":
        with databases.explained(path), closing(databases.open_writable(path)) as connection:
            connection.execute("pragma journal_mode=wal").fetchone()


def put_back(place: Place) -> None:
    """After the name was taken away: what was set aside, and the stage under its own name. Safe to repeat."""
    _move_companions(place.aside, place.live)
    if place.near.exists() and not place.stage.exists() and os.stat(place.near).st_dev == os.stat(place.stage.parent).st_dev:
        durable.rename(place.near, place.stage)


def _bring(source: Path, target: Path) -> None:
    try:
        durable.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    part = unfinished(target)
    part.unlink(missing_ok=True)
    status = os.stat(source)
    rawcopy.copy_file(source, part, stat.S_IMODE(status.st_mode))
    if os.geteuid() == 0:
        os.chown(part, status.st_uid, status.st_gid)
    durable.sync_file(part)
    durable.rename(part, target)


def _move_companions(source: Path, target: Path) -> None:
    for suffix in databases.SUFFIXES:
        origin = databases.beside(source, suffix)
        if origin.exists() and not databases.beside(target, suffix).exists():
            durable.rename(origin, databases.beside(target, suffix))

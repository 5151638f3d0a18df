"""Making a staged SQLite file live, and the way back: the same walk with the sides changed.

Where there is a live file, the other side is written over it in one transaction (`overwriting.py`), so that programs that have it
open see the old contents until they see the new. It is saved under the same lock, before anything is written: every row that was
ever acknowledged is in the saved side, or was written to the new one. Where there is none, the stage is renamed (`arrival.py`).

A crash leaves the whole of one side live. Which one is told by a table with a random name, made in the incoming side before,
noted under the lock, and dropped once the outcome is noted. Contents or SQLite's own counters would not tell for sure, because
programs may write in between.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.protocol import SwitchLog
from storekeeper.stores.sqlite import arrival, contents, overwriting
from storekeeper.stores.sqlite.others import refuse_newcomers, refuse_others
from storekeeper.stores.sqlite.place import Place, remove

RESTORED = "restored"
BEFORE = "before"
_STEP = "exchange"  # of every note here: the newest says which side is live, or what will tell
_ANNOUNCED, _DONE = "announced", "done"
_WRITE, _RENAME = "write", "rename"
_ALONE = "its page size, auto_vacuum or encoding changes, which open connections would not notice"


class Switching:
    """One restore's switch of one file. Every method is safe to repeat after a crash anywhere in any of them."""

    def __init__(self, place: Place, log: SwitchLog, *, nobody_uses: bool, patience_s: float = overwriting.PATIENCE_S) -> None:
        self._place = place
        self._log = log
        self._nobody_uses = nobody_uses
        self._patience_s = patience_s

    def to_restored(self) -> None:
        if self._side() != RESTORED:
            if os.path.lexists(self._place.live):
                self._overwrite(RESTORED)
            else:
                self._arrive()
        self._finish(RESTORED)

    def to_before(self) -> None:
        if self._side() != BEFORE:
            if self._newest["way"] == _RENAME:
                self._leave()
            else:
                self._overwrite(BEFORE)
        self._finish(BEFORE)

    @property
    def _newest(self) -> dict[str, Any]:
        return self._log.noted(_STEP) or {"to": BEFORE, "phase": _DONE, "way": None}

    def _side(self) -> str:
        """Which side is live; what a crash left in doubt is looked up and noted."""
        newest = self._newest
        to, way = str(newest["to"]), newest["way"]
        if newest["phase"] == _DONE:
            return to
        if way == _RENAME:
            side = RESTORED if arrival.has_arrived(self._place, newest["inode"]) else BEFORE
        else:
            side = to if _has_table(self._place.live, newest["marker"]) else _other(to)
        self._note(side, _DONE, **{name: newest[name] for name in ("way", "mode", "inode") if name in newest})
        return side

    def _note(self, to: str, phase: str, **facts: Any) -> None:
        self._log.note(_STEP, to=to, phase=phase, **facts)

    def _overwrite(self, to: str) -> None:
        place = self._place
        source, saved = (place.stage, place.old) if to == RESTORED else (place.old, place.stage)
        if not source.is_file():
            raise Failed(f"{source} is not there any more: {place.live} stays as it is")
        marker = _mark(source)
        mode = self._make_alone(source, to)

        def announce() -> None:
            if mode is not None:
                refuse_newcomers(place.live, _ALONE)
            self._note(to, _ANNOUNCED, way=_WRITE, marker=marker, mode=mode)

        overwriting.Overwriting(source, place.live, saved, announce, self._patience_s).run()
        self._note(to, _DONE, way=_WRITE, mode=mode)

    def _make_alone(self, source: Path, to: str) -> str | None:
        """Where the two files differ in what open connections keep in memory, have the live one to ourselves, without a log.

        Returns its journal mode before; None where the files are alike, and may be used by others meanwhile.
        """
        live = self._place.live
        if _shape(live).difference(_shape(source)) is None:
            return None
        refuse_others(live, _ALONE, nobody_uses=self._nobody_uses)
        with databases.explained(live), closing(databases.open_writable(live)) as connection:
            mode = str(self._newest.get("mode") or contents.journal_mode(connection))
            self._note(_other(to), _DONE, way=_WRITE, mode=mode)
            arrival.roll_up(connection, live)
        return mode

    def _arrive(self) -> None:
        inode = arrival.bring_near(self._place)
        self._note(RESTORED, _ANNOUNCED, way=_RENAME, inode=inode)
        arrival.arrive(self._place)
        self._note(RESTORED, _DONE, way=_RENAME, inode=inode)

    def _leave(self) -> None:
        place, inode = self._place, self._newest["inode"]
        if not os.path.lexists(place.live):
            raise Failed(f"{place.live} is not there: somebody has removed what was restored")
        if not arrival.has_arrived(place, inode):
            raise Failed(f"{place.live} is another file than the one that was restored: move it away")
        with arrival.unused(place.live, nobody_uses=self._nobody_uses) as mode:
            self._note(BEFORE, _ANNOUNCED, way=_RENAME, inode=inode, mode=mode)
            remove(place.near)
            durable.rename(place.live, place.near)
        self._note(BEFORE, _DONE, way=_RENAME, inode=inode, mode=mode)

    def _finish(self, side: str) -> None:
        """Tidy up once the outcome is noted: the marker, the journal mode, and the copy of what is live now."""
        newest, place = self._newest, self._place
        if newest["way"] == _RENAME and side == BEFORE:
            if place.near.exists():
                arrival.set_mode(place.near, newest.get("mode") or "")
            arrival.put_back(place)
        elif newest["way"] == _WRITE:
            drop_markers(place.live)
            if newest.get("mode"):
                arrival.set_mode(place.live, newest["mode"])
            remove(place.stage if side == RESTORED else place.old)


def refuse_users_of_other_shape(place: Place, *, nobody_uses: bool) -> None:
    """Raises Failed, or Unknown, where others have a live file open whose form in memory the switch will change."""
    source = place.stage if place.stage.is_file() else place.old
    if source.is_file() and _shape(place.live).difference(_shape(source)) is not None:
        refuse_others(place.live, _ALONE, nobody_uses=nobody_uses)


def drop_markers(live: Path) -> bool:
    """Remove the tables that told of a switch; False, without waiting long, when somebody's transaction is in the way."""
    with databases.explained(live), closing(databases.open_writable(live, wait_s=2.0)) as connection:
        try:
            _drop(connection)
        except sqlite3.OperationalError as error:
            if databases.is_busy(error):
                return False
            raise
        return True


def _mark(path: Path) -> str:
    """Make the marker of one attempt in a side that is not live, and return its name."""
    marker = contents.MARKER + secrets.token_hex(8)
    with databases.explained(path), closing(databases.open_writable(path)) as connection:
        _drop(connection)
        connection.execute(f"create table {databases.quoted(marker)} (side)")
    return marker


def _drop(connection: sqlite3.Connection) -> None:
    found = connection.execute("select name from sqlite_master where type = 'table' and name glob ?", (contents.MARKER + "*",)).fetchall()
    for (name,) in found:
        connection.execute(f"drop table {databases.quoted(name)}")


def _shape(path: Path) -> contents.Shape:
    with databases.explained(path), closing(databases.open_read_only(path)) as connection:
        return contents.shape(connection)


def _has_table(live: Path, name: str) -> bool:
    with databases.explained(live), closing(databases.open_writable(live)) as connection:
        return connection.execute("select 1 from sqlite_master where type = 'table' and name = ?", (name,)).fetchone() is not None


def _other(side: str) -> str:
    return BEFORE if side == RESTORED else RESTORED

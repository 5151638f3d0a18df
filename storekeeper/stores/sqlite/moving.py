"""Two SQLite databases that change places as files, for when one of them cannot be read: neither is ever opened.

A database is its file and what SQLite keeps beside it; all of that is moved, and nobody may have it open. The name stands empty
while parts are moved, so that no program ever finds the file of one side beside the log of the other. The inodes are noted before
anything moves: after a crash they tell which parts have moved already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.exchange import inode_of
from storekeeper.stores.protocol import SwitchLog
from storekeeper.stores.sqlite import arrival
from storekeeper.stores.sqlite.others import refuse_others
from storekeeper.stores.sqlite.place import Place

RESTORED = "restored"
BEFORE = "before"
WHY = "its files are moved away as they are"
_STEP = "moved"
_PARTS = ("", *databases.SUFFIXES)  # the file itself is the first to leave and the last to come

Inodes = dict[str, int]  # by part


class Moving:
    """One restore's switch of one file. Every method is safe to repeat after a crash anywhere in any of them."""

    def __init__(self, place: Place, log: SwitchLog, *, nobody_uses: bool) -> None:
        self._place = place
        self._log = log
        self._nobody_uses = nobody_uses

    def to_restored(self) -> None:
        self._go(RESTORED)

    def to_before(self) -> None:
        self._go(BEFORE)

    def _go(self, to: str) -> None:
        newest = self._log.noted(_STEP)
        if newest is None:
            move = self._begin(to, None) if to == RESTORED else None
        elif newest["to"] == to:
            move = None if newest["done"] else newest
        elif newest["done"]:
            move = self._begin(to, newest["out"])
        else:
            move = self._note(to, newest["in"], newest["out"])  # turned round half way
        if move is not None:
            self._run(move)

    def _begin(self, to: str, left: Inodes | None) -> dict[str, Any]:
        """Note what will move. `left` is what was taken from the live name when the other side came: exactly that returns."""
        if to == RESTORED:
            arrival.bring_all_near(self._place)
        home = self._home(to)
        coming = _inodes(home)
        if (to == RESTORED and "" not in coming) or (to == BEFORE and coming != left):
            raise Failed(f"{home} is not what was put there: {self._place.live} stays as it is")
        refuse_others(self._place.live, WHY, nobody_uses=self._nobody_uses)
        return self._note(to, _inodes(self._place.live), coming)

    def _note(self, to: str, out: Inodes, coming: Inodes, *, done: bool = False) -> dict[str, Any]:
        facts = {"to": to, "done": done, "out": out, "in": coming}
        self._log.note(_STEP, **facts)
        return facts

    def _run(self, move: dict[str, Any]) -> None:
        place, to, out, coming = self._place, str(move["to"]), move["out"], move["in"]
        home, away = self._home(to), self._home(BEFORE if to == RESTORED else RESTORED)
        for part in _PARTS:
            _move(place.live, away, part, out)
        for part in reversed(_PARTS):
            _move(home, place.live, part, coming)
        if "" in coming and inode_of(place.live) != coming[""]:
            raise Failed(f"{place.live} is another file than the one that was moved there: move it away")
        self._note(to, out, coming, done=True)

    def _home(self, side: str) -> Path:
        """Where a side is while it is not live."""
        return self._place.near if side == RESTORED else self._place.old


def _inodes(base: Path) -> Inodes:
    found = {part: inode_of(databases.beside(base, part)) for part in _PARTS}
    return {part: inode for part, inode in found.items() if inode is not None}


def _move(source: Path, target: Path, part: str, inodes: Inodes) -> None:
    """Rename one part, unless it has been moved already. Raises Failed where something else has the name."""
    origin, destination = databases.beside(source, part), databases.beside(target, part)
    if part not in inodes or inode_of(origin) != inodes[part]:
        return
    try:
        durable.rename(origin, destination)
    except FileExistsError as error:
        raise Failed(f"{destination} was made by another program meanwhile: move it away") from error

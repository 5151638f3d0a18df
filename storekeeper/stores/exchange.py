"""Switching one directory entry for another and back, in steps that can be repeated after a crash at any point.

Which step comes next is read from disk, by inode: names tell nothing after a crash, an inode says which side a name carries.
The inodes are written down before anything moves.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores.protocol import SwitchLog

_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY})

# Moves what belongs to the live side, whichever that is, out of the tree that is live and into the one that will be.
Carry = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Sides:
    """Where one entry is live, where its replacement comes from, and where what was live goes. One file system."""

    live: Path
    incoming: Path
    outgoing: Path

    def sync(self) -> None:
        for folder in {self.live.parent, self.incoming.parent, self.outgoing.parent}:
            if folder.is_dir():
                durable.sync_directory(folder)


@dataclass(frozen=True)
class Inodes:
    """What stood at `incoming` and at `live` before anything moved; None where nothing did."""

    incoming: int | None
    live: int | None


def inode_of(path: Path) -> int | None:
    """The inode behind a name, of a link itself; None when there is no such name."""
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def switch_entry(live: Path, stage: Path, old: Path, log: SwitchLog, key: str) -> None:
    """Make `stage` live and keep what was live as `old`. Durable when it returns; safe to repeat.

    The log's note `key` holds the inodes. Raises Failed where neither name carries the staged entry any more.
    """
    noted = log.noted(key)
    if noted is None:
        log.note(key, incoming=inode_of(stage), live=inode_of(live))
        noted = {"incoming": inode_of(stage), "live": inode_of(live)}
    sides = Sides(live, stage, old)
    bring_in(sides, Inodes(noted["incoming"], noted["live"]))
    sides.sync()


def switch_entry_back(live: Path, stage: Path, old: Path, log: SwitchLog, key: str) -> None:
    """The reverse of `switch_entry`, from before, during or after it. Durable when it returns; safe to repeat."""
    noted = log.noted(key)
    if noted is None:
        return
    sides = Sides(live, stage, old)
    take_back(sides, Inodes(noted["incoming"], noted["live"]))
    sides.sync()


def bring_in(sides: Sides, inodes: Inodes, carry: Carry | None = None) -> None:
    """Put `incoming` in the place of `live`, and what was live at `outgoing`. The caller makes the directories durable.

    An entry without a replacement only goes out; what somebody has put in its place meanwhile stays.
    """
    if inodes.incoming is None:
        if inodes.live is not None and inode_of(sides.live) == inodes.live:
            _move(sides.live, sides.outgoing)
        return
    if inode_of(sides.live) != inodes.incoming:
        _put_in(sides, inodes, carry)
    if inode_of(sides.incoming) is not None:
        _move(sides.incoming, sides.outgoing)
    _carry(carry, sides.outgoing, sides.live)


def _put_in(sides: Sides, inodes: Inodes, carry: Carry | None) -> None:
    """What was staged is at `outgoing` where its way back was interrupted. It is nowhere when somebody has replaced it since."""
    if inode_of(sides.incoming) == inodes.incoming:
        _carry(carry, sides.live, sides.incoming)
        _replace(sides.live, sides.incoming, sides.outgoing)
    elif inode_of(sides.outgoing) == inodes.incoming:
        _carry(carry, sides.live, sides.outgoing)
        _replace(sides.live, sides.outgoing, sides.incoming)
    elif inodes.live not in (inode_of(sides.incoming), inode_of(sides.outgoing)):
        raise Failed(f"neither {sides.incoming} nor {sides.live} is what was staged any more")


def take_back(sides: Sides, inodes: Inodes, carry: Carry | None = None) -> None:
    """Undo `bring_in` from any point of it. Raises Failed where what was live before is nowhere."""
    if inodes.live is None:
        if inode_of(sides.incoming) is None and inode_of(sides.live) is not None:
            _move(sides.live, sides.incoming)
        return
    if inode_of(sides.live) != inodes.live:
        _bring_back(sides, inodes.live, carry)
    if inode_of(sides.outgoing) is not None:
        _move(sides.outgoing, sides.incoming)
    _carry(carry, sides.incoming, sides.live)


def _bring_back(sides: Sides, live: int, carry: Carry | None) -> None:
    where = next((path for path in (sides.outgoing, sides.incoming) if inode_of(path) == live), None)
    if where is None:
        raise Failed(f"what was live before at {sides.live} is neither at {sides.outgoing} nor at {sides.incoming}")
    _carry(carry, sides.live, where)
    _replace(sides.live, where, sides.incoming)


def _carry(carry: Carry | None, source: Path, target: Path) -> None:
    """Before a replacement, and once more after it: a crash in between may have left what is carried on either side."""
    if carry is not None and inode_of(source) is not None and inode_of(target) is not None:
        carry(source, target)


def _replace(live: Path, incoming: Path, aside: Path) -> None:
    """`incoming` becomes live. What was live is then at `incoming`, or at `aside` where names cannot be exchanged."""
    if inode_of(live) is None:
        os.rename(incoming, live)
        return
    try:
        durable.exchange(incoming, live)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE or incoming == aside:
            raise
        _move(live, aside)
        os.rename(incoming, live)


def _move(source: Path, target: Path) -> None:
    if inode_of(target) is not None:
        raise Failed(f"{source} cannot be moved to {target}: something is there already")
    os.rename(source, target)

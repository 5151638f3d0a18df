"""What can be told of a SQLite file before anything is done to it."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storekeeper.outcomes import Failed, Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.stores import databases
from storekeeper.stores.protocol import Facts, SwitchRoom
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sqlite import contents
from storekeeper.stores.sqlite.others import refuse_others
from storekeeper.stores.sqlite.place import Place
from storekeeper.stores.surroundings import Surroundings

_BYTES_A_SECOND = 100_000_000  # written by the backup API with its journal; measured: 990 MB in 7.5 s


def bytes_of(live: Path) -> int:
    """The file with its journal and log."""
    return sum(_size(databases.beside(live, suffix)) for suffix in ("", *databases.SUFFIXES))


def ownership(live: Path) -> Facts:
    status = os.stat(live)
    return {"mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid}


def foreign_owner(live: Path) -> list[Problem]:
    """A warning where SQLite would make a log or index beside the file that belongs to us, and not to the application."""
    owner = os.stat(live).st_uid
    if os.geteuid() in (0, owner):
        return []
    said = f"{live} belongs to the user with id {owner}: what SQLite makes beside it may lock that user out"
    return [Problem(said, Severity.WARNING, next="run as root, or as the user who owns the file")]


def counts_now(live: Path) -> dict[str, int]:
    """Raises Refused when the live file cannot be read or written: it could not be saved, nor overwritten in one transaction."""
    if not os.access(live, os.R_OK | os.W_OK):
        raise Refused(f"{live} cannot be replaced: this user may not write to it", next="run as root, or as the user who owns the file")
    try:
        with databases.explained(live), closing(databases.open_read_only(live)) as connection:
            return contents.counts(connection)
    except Failed as error:
        raise Refused(f"{error.message}; it was not touched", next=f"move {live} away, then restore where nothing is") from error


def refuse_newer(artefact: Path, written_by: str) -> None:
    """Raises Refused when the SQLite here cannot read an artefact, with both versions where a newer one wrote it."""
    try:
        with (
            telling_newer(written_by),
            databases.explained(artefact),
            closing(databases.open_sealed(artefact)) as connection,
        ):
            contents.tables(connection)
    except StorekeeperError as error:
        raise Refused(error.message) from error


@contextmanager
def telling_newer(written_by: str) -> Iterator[None]:
    """Unknown instead of Failed, with both versions, for what a newer SQLite than the one here wrote: its bytes are those of the set."""
    try:
        yield
    except Failed as error:
        if _numbers(written_by) <= sqlite3.sqlite_version_info:
            raise
        raise Unknown(f"it was written by SQLite {written_by}, the one here is {sqlite3.sqlite_version}: {error.message}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall("[0-9]+", version)[:3])


def users_of_other_shape(live: Path, wanted: contents.Shape, surroundings: Surroundings) -> list[Problem]:
    """What `users` says, where the file must be had alone for the switch."""
    with databases.explained(live), closing(databases.open_read_only(live)) as connection:
        difference = wanted.difference(contents.shape(connection))
    return [] if difference is None else users(live, f"the set has {difference}", surroundings)


def users(live: Path, why: str, surroundings: Surroundings) -> list[Problem]:
    """A warning where others have the file open now and services will be stopped. Raises Refused where nothing will be."""
    try:
        refuse_others(live, why, nobody_uses=surroundings.nobody_uses)
    except Failed as error:
        if not surroundings.services_stop:
            raise Refused(error.message) from error
        return [Problem(f"{error.message}, unless it ends with the services", Severity.WARNING)]
    return []


def refuse_unmovable(live: Path) -> None:
    if not os.access(live.parent, os.W_OK | os.X_OK):
        raise Refused(f"{live} cannot be moved away: this user may not change {live.parent}", next="run as root")


def needs(live: Path, record: StoreRecord, stage_dir: Path | None) -> tuple[dict[Path, int], float]:
    """Bytes by directory (the stage, the old side, and the journal or log of the one transaction), and seconds of the switch."""
    staged, now = sum(artefact.size for artefact in record.artefacts), bytes_of(live)
    needed = {live.parent: staged + now}
    away = stage_dir or live.parent
    needed[away] = needed.get(away, 0) + staged + now
    return needed, round((staged + now) / _BYTES_A_SECOND, 3)


def back_needs(place: Place) -> dict[Path, int]:
    """For what is live now, kept as the stage, and for the journal or log of the one transaction. A move needs nothing."""
    if place.raw or not place.old.is_file():
        return {}
    now = bytes_of(place.live)
    needed = {place.stage.parent: now}
    needed[place.live.parent] = needed.get(place.live.parent, 0) + now + _size(place.old)
    return needed


def switch_room(place: Place) -> SwitchRoom:
    """What is live is saved before it is overwritten, in either direction, with a journal or log of both. A move needs nothing."""
    source = place.stage if place.stage.is_file() else place.old
    if place.raw or not source.is_file() or not place.live.is_file():
        return SwitchRoom(passing={str(place.live.parent): 0})
    incoming, now = _size(source), bytes_of(place.live)
    return SwitchRoom({str(place.stage.parent): now}, {str(place.stage.parent): incoming}, {str(place.live.parent): incoming + now})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

"""A SQLite file that cannot be read, as the bytes that it is: the file, its log, its index and its journal, kept and put back together."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from storekeeper.host import durable
from storekeeper.outcomes import Failed
from storekeeper.stores import databases, rawcopy
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import CHUNK
from storekeeper.stores.trees import source_of

COPY = "raw.sqlite"
_PARTS = ("", *databases.SUFFIXES)
_INDEX = "-shm"
_TURNS = 8  # to find a moment in which nobody writes
_PAUSE_S = 0.1


def bytes_of(live: Path) -> int:
    """Raises Failed when the file cannot be looked at."""
    return sum(status.st_size for status in _present(live).values())


def copy(live: Path, into: StoreFolder) -> Facts:
    """Write every part as an artefact of its own. Raises Failed when one cannot be read or somebody writes meanwhile."""
    before = _present(live)
    for part in before:
        into.write(COPY + part, _chunks(databases.beside(live, part)))
    if _identities(_present(live)) != _identities(before):
        raise Failed(f"{live} was written to while its bytes were copied: stop what uses it")
    return {"files": {part: _attributes(status) for part, status in before.items()}}


def copy_out(live: Path, target: Path) -> None:
    """The same as files that SQLite can be given, but for the index of a log, which it makes itself."""
    for turn in range(_TURNS):
        before = _present(live)
        for part in before.keys() - {_INDEX}:
            try:
                rawcopy.copy_file(databases.beside(live, part), databases.beside(target, part))
            except OSError as error:
                raise Failed(f"the bytes of {databases.beside(live, part)} cannot be copied: {error.strerror}") from error
        if _identities(_present(live)) == _identities(before):
            return
        for part in _PARTS:
            databases.beside(target, part).unlink(missing_ok=True)
        time.sleep(_PAUSE_S * turn)
    raise Failed(f"{live} was written to while its bytes were copied: stop what uses it")


def stage(folder: Path, record: StoreRecord, target: Path, *, keep_owners: bool) -> None:
    """Put the parts of a raw copy at `target` and beside it, with their modes and owners, durable."""
    for part, attributes in record.details["files"].items():
        if part not in _PARTS:
            raise Failed(f"the manifest names {part!r}, which is no part of a SQLite file")
        path = databases.beside(target, part)
        rawcopy.copy_file(folder / (COPY + part), path, int(str(attributes["mode"]), 8))
        if keep_owners and os.geteuid() == 0:
            os.chown(path, int(attributes["uid"]), int(attributes["gid"]))
        durable.sync_file(path)
    durable.sync_directory(target.parent)


def _present(live: Path) -> dict[str, os.stat_result]:
    """The parts that are there. Raises Failed when the file itself is not."""
    found = {}
    for part in _PARTS:
        try:
            found[part] = os.stat(databases.beside(live, part))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failed(f"{live} cannot be looked at: {error.strerror}") from error
    if "" not in found:
        raise Failed(f"{live} is not there")
    return found


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Failed(f"not even the bytes of {path} can be read: {error.strerror}") from error


def _identities(found: dict[str, os.stat_result]) -> dict[str, dict[str, int]]:
    return {part: source_of(status) for part, status in found.items()}


def _attributes(status: os.stat_result) -> Facts:
    return {"mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid}

"""The directory that all backup sets of a host are kept in, and the rules by which it is trusted.

`.storekeeper` in it holds its id, which the state directory remembers: an empty mount point is not mistaken for a repository.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from storekeeper.host import durable, formats, locks
from storekeeper.host.clock import now, rfc3339
from storekeeper.outcomes import Refused
from storekeeper.sets.smallfiles import read_small
from storekeeper.sets.stacksets import Partial, Resolved, SetEntry, SetGone, StackSets

__all__ = ["Partial", "Repository", "Resolved", "SetEntry", "SetGone", "StackSets"]

MARKER = ".storekeeper"
SCHEMA = 1  # of the marker
STEPS: Mapping[int, formats.Step] = {}  # the one without a number says the same as the first with one
REMEMBERED = "repository-id"
_LARGEST = 4096
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Repository:
    """A repository that was found to be ours. `state` is the program's state directory, with one directory a stack."""

    def __init__(self, path: Path, state: Path, id: str) -> None:
        self.path = path
        self.state = state
        self.id = id

    @classmethod
    def open(cls, path: Path, state: Path, stack: str | None = None) -> Repository:
        """Open a repository that exists, for the sets of `stack`. Raises Refused, naming what is wrong; nothing was written then."""
        return cls._open(path, state, stack, may_create=False)

    @classmethod
    def open_or_create(cls, path: Path, state: Path, stack: str | None = None) -> Repository:
        """`open`, or make one where neither the directory nor the state has ever known one. Raises Refused as `open` does."""
        return cls._open(path, state, stack, may_create=True)

    @classmethod
    def open_or_foresee(cls, path: Path, state: Path, stack: str | None = None) -> Repository:
        """`open_or_create` for a plan: where one would be made, there is none in which any set is, and nothing is written."""
        return cls._open(path, state, stack, may_create=True, leaves_no_trace=True)

    @classmethod
    def create(cls, path: Path, state: Path) -> Repository:
        """Make a new repository. Raises Refused where there is one, or where this host knows one."""
        known = _remembered(state)
        if known is not None:
            raise Refused(f"this host already keeps its sets in repository {known}", next=f"rm {state / REMEMBERED}")
        if os.path.lexists(path):
            _refuse_untrusted(path)
            if os.path.lexists(path / MARKER):
                raise Refused(f"{path} is a repository already")
        return cls._create(path, state)

    @classmethod
    def _open(cls, path: Path, state: Path, stack: str | None, *, may_create: bool, leaves_no_trace: bool = False) -> Repository:
        known = _remembered(state)
        if not os.path.lexists(path):
            if known is not None or not may_create:
                raise _absent(path, state, known, stack)
            return cls(path, state, "") if leaves_no_trace else cls._create(path, state)
        _refuse_untrusted(path)
        found = _marked(path)
        if found is None:
            if known is not None or not may_create:
                raise _absent(path, state, known, stack)
            return cls(path, state, "") if leaves_no_trace else cls._create(path, state)
        if known is None:
            _remember(state, found)
        elif found != known:
            raise Refused(
                f"{path} is repository {found}, this host keeps its sets in {known}: is the right disk mounted there?"
                f" To go on with this one for good, remove {state / REMEMBERED}",
                next=f"findmnt --target {path}",
            )
        return cls(path, state, found)

    @classmethod
    def _create(cls, path: Path, state: Path) -> Repository:
        durable.ensure_directory(path)
        _refuse_untrusted(path)
        new = secrets.token_hex(16)
        # The marker first: had the state alone been written before a crash, the repository would be refused for ever.
        durable.write_json(path / MARKER, {"schema": SCHEMA, "id": new, "created": rfc3339(now())})
        _remember(state, new)
        return cls(path, state, new)

    def stack(self, name: str) -> StackSets:
        """The sets of one stack; its directory is made with its first set. Raises Refused when the directory is not ours alone."""
        path = self.path / name
        if os.path.lexists(path):
            _refuse_untrusted(path)
        return StackSets(path, name, self.state / name)


def _absent(path: Path, state: Path, known: str | None, stack: str | None) -> Refused:
    if known is None:
        first = stack and f"storekeeper backup {stack}"
        return Refused(f"{path} is no repository: no set has been taken on this host", next=first)
    return Refused(
        f"{path} holds no repository, this host keeps its sets in {known}: is the disk mounted? Nothing was written."
        f" To begin anew there, remove {state / REMEMBERED}",
        next=f"mount {path}",
    )


def _refuse_untrusted(path: Path) -> None:
    """Raises Refused for a directory that somebody else could have changed, or that cannot be written."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise Refused(f"{path} is a symbolic link", next="name the directory itself in storekeeper.yml")
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f"{path} is no directory", next=f"ls -ld {path}")
    if status.st_uid != os.geteuid():
        raise Refused(
            f"{path} belongs to user {status.st_uid}, this program runs as user {os.geteuid()}", next=f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & _OTHERS_WRITE:
        raise Refused(f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})", next=f"chmod 0700 {path}")
    if os.statvfs(path).f_flag & os.ST_RDONLY or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Refused(f"{path} is read-only", next=f"findmnt --target {path}")
    try:
        locks.refuse_network_file_system(path)
    except Refused as error:
        error.next = "set `repository:` in storekeeper.yml to a local directory"
        raise


def _marked(path: Path) -> str | None:
    """The id in a repository's marker; None when there is no marker. Raises Refused for one that cannot be believed."""
    marker = path / MARKER
    if not os.path.lexists(marker):
        return None
    try:
        document = json.loads(read_small(marker, _LARGEST))
        number = formats.number_of(document, unnumbered=0)
        found = formats.upgraded(document, number, SCHEMA, STEPS, what=f"the repository's marker {marker}")["id"]
        if not isinstance(found, str) or not found:
            raise ValueError("no id")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{marker} cannot be read as a repository's marker: {error}", next=f"head -c 200 {marker}") from error
    return found


def _remembered(state: Path) -> str | None:
    """The id of the repository that this host uses; None when it never had one. Raises Refused when that cannot be told."""
    path = state / REMEMBERED
    if not os.path.lexists(path):
        return None
    try:
        text = read_small(path, _LARGEST).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}", next=f"ls -l {path}") from error
    if not text:
        raise Refused(f"{path} is empty: it should hold the repository's id", next=f"rm {path}")
    return text


def _remember(state: Path, id: str) -> None:
    durable.ensure_directory(state)
    durable.write_file(state / REMEMBERED, f"{id}\n".encode())

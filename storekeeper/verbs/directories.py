"""The directories of this host that verbs work in, and how far they are trusted. Loads nothing that a quick look can do without."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storekeeper.host import durable, locks
from storekeeper.outcomes import Refused
from storekeeper.sets.repository import MARKER, REMEMBERED, Repository, StackSets
from storekeeper.stack.config import Places, stack_names
from storekeeper.stack.mistakes import suggestion

_PRIVATE = "private"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def refuse_unknown_stack(places: Places, name: str) -> None:
    """Raises Refused, with the nearest name, unless a stack file has this name."""
    names = stack_names(places)
    if name in names:
        return
    places.stack_file(name)  # refuses what cannot be a name at all
    near = suggestion(name, names)
    hint = f"did you mean {near}?" if near else f"ls {places.stacks}"
    raise Refused(f"there is no stack {name} in {places.stacks}", next=hint)


def state_of(places: Places, name: str) -> Path:
    """The stack's own state directory, 0700, made where it is missing. Raises Refused when somebody else could change it."""
    for path in (places.state, places.state_of(name)):
        private_directory(path)
    return places.state_of(name)


def jobs_folder(places: Places, name: str) -> Path:
    """Where the runs of a stack are recorded, made where it is missing. Raises Refused as `state_of` does."""
    for path in (places.state, places.state / "jobs", places.state / "jobs" / name):
        private_directory(path)
    return places.state / "jobs" / name


def private_directory(path: Path) -> None:
    """Make a directory 0700 where it is missing. Raises Refused for one that is a link, not ours, or that others may write to."""
    try:
        durable.ensure_directory(path)
        status = os.lstat(path)
    except OSError as error:
        raise Refused(f"the state directory {path} cannot be made: {error.strerror}", next="set `state:` in storekeeper.yml") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(
            f"the state directory {path} is {'a link' if stat.S_ISLNK(status.st_mode) else 'no directory'}", next=f"ls -ld {path}"
        )
    if status.st_uid != os.geteuid():
        raise Refused(f"the state directory {path} belongs to user {status.st_uid}, this is user {os.geteuid()}", next=f"ls -ld {path}")
    if status.st_mode & _OTHERS_WRITE:
        raise Refused(
            f"the state directory {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may write to it", next=f"chmod 0700 {path}"
        )


def private_of(places: Places, name: str) -> Path:
    """Where a stack's stores may keep private files, made where it is missing. Raises Refused as `state_of` does."""
    path = state_of(places, name) / _PRIVATE
    private_directory(path)
    return path


def lock_of(places: Places, name: str) -> Path:
    """The file that a stack's lock is held on."""
    return locks.lock_in(places.state_of(name))


def known_sets(places: Places, name: str) -> StackSets | None:
    """The stack's sets, without a look at its stack file; None when this host has never had a repository. Raises Refused."""
    refuse_unknown_stack(places, name)
    if not os.path.lexists(places.repository / MARKER) and not os.path.lexists(places.state / REMEMBERED):
        return None  # also where the directory was made in advance: the first backup makes a repository of it
    return Repository.open(places.repository, places.state, name).stack(name)


@contextmanager
def locked_sets(places: Places, name: str, purpose: str) -> Iterator[StackSets]:
    """The stack's sets under its lock, without a look at its stack file. Raises Busy, and Refused as `Repository.open` does."""
    state_of(places, name)
    with durable.umask(0o077), locks.hold(lock_of(places, name), purpose):
        yield Repository.open(places.repository, places.state, name).stack(name)

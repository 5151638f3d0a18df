"""Advisory locks (flock(2)) that die with their last holder and are never broken by age.

A lock's descriptor is passed on to the programs that work under it (`inheritable`), so that a killed parent does not
free it while its child still writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storekeeper.host import clock
from storekeeper.outcomes import Busy, Refused, Unknown

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs", "afs", "lustre"}
_TURN = 60.0  # seconds; a turn is taken for moments, or for as long as it takes to remove what a killed run left
_GLANCE = 0.2  # seconds: `is_held` takes a lock for an instant, and that must not look like a run
_held: list[int] = []


def lock_in(state: Path) -> Path:
    """The file in a stack's own state directory that the stack's lock is held on."""
    return state / "lock"


def inheritable() -> tuple[int, ...]:
    """The descriptors of all locks this process holds, for `pass_fds` of a program that works under them."""
    return tuple(_held)


@contextmanager
def hold(path: Path, purpose: str) -> Iterator[int]:
    """Hold an exclusive lock on a file (made when missing) while the block runs; yields its descriptor.

    The file says who holds it, for people; the lock itself is the kernel's. Raises Busy with the holder's purpose, pid and
    start when somebody else has it, and Refused on a network file system, where flock does not hold between hosts.
    """
    refuse_network_file_system(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _try_for(_GLANCE, descriptor, fcntl.LOCK_EX):
            raise Busy(f"{_holder(descriptor)}; one at a time for a stack", next="storekeeper jobs")
        text = json.dumps({"purpose": purpose, "pid": os.getpid(), "since": clock.rfc3339(clock.now())})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        with _registered(descriptor):
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def hold_new(path: Path) -> Iterator[None]:
    """Make a file and hold it while the block runs, by this process alone: programs that it leaves behind do not hold it on.

    Raises FileExistsError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold_directory(path: Path, *, shared: bool = False, within: float = 0.0) -> Iterator[bool]:
    """Hold a directory itself; yields False when somebody has it in a way that conflicts, and keeps it for so many seconds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _try_for(within, descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            yield False
            return
        with _registered(descriptor):
            yield True
    finally:
        os.close(descriptor)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold a directory for something short that other runs do there too. Raises Unknown where one of them takes longer than a minute."""
    with hold_directory(path, within=_TURN) as is_ours:
        if not is_ours:
            raise Unknown(f"{path} has been locked by another run for {_TURN:g} s", next="storekeeper jobs")
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on this file now. A missing file is not held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def is_held_elsewhere(path: Path) -> bool:
    """Whether another run holds the lock on this file now: one that this process holds, or works under, is not meant."""
    return is_held(path) and not any(os.path.samestat(os.fstat(mine), os.stat(path)) for mine in _held)


def refuse_network_file_system(directory: Path) -> None:
    kind = file_system_type(directory)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise Refused(f"locks need a local file system, {directory} is on {kind}", next="set `state:` in storekeeper.yml")


def file_system_type(path: Path) -> str:
    """The type of the mounted file system that holds `path`, as /proc/self/mountinfo names it (proc(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == wanted:
                return rest.split()[0]
    return "unknown"


@contextmanager
def _registered(descriptor: int) -> Iterator[None]:
    _held.append(descriptor)
    try:
        yield
    finally:
        _held.remove(descriptor)


def _try_for(seconds: float, descriptor: int, how: int) -> bool:
    deadline = clock.monotonic() + seconds
    while not _try(descriptor, how):
        if clock.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return f"{found['purpose']} has been running since {found['since']} (pid {found['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another run holds the lock"

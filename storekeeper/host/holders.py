"""Who has files open: what a process holds open it goes on using, wherever the name is moved (proc(5)).

Files are compared by device and inode, so that other names, other mount namespaces and memory maps are seen too. Where a
process cannot be looked at, the kernel is asked for a lease on each file. Nothing is opened by this process: closing a file
would drop the locks that it has on it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from storekeeper.host import processes
from storekeeper.host.processes import Command, ProgramFailed
from storekeeper.outcomes import Unknown

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h
_MAPPED = re.compile(r"\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+)\s")
_SHOWN = 5
_LEASE_PROGRAM = Path(__file__).with_name("_lease_program.py")

Identity = tuple[int, int]  # device and inode
AnyPath = str | Path  # plain text where there may be very many: pathlib remembers the parts of each


@dataclass(frozen=True)
class Holder:
    """A process that has a file or directory open or mapped."""

    pid: int
    program: str
    path: Path


def holders_of(paths: Iterable[AnyPath], *, except_pids: Collection[int] = ()) -> list[Holder]:
    """Who has anything open at or below these paths, by process and file; a working directory does not count.

    The paths are gone through once, and once more where a process cannot be looked at. `family()` gives the processes of this program,
    for `except_pids`. Paths that do not exist have no holders. Raises Unknown when a part of the tree cannot be looked at, or when some
    process cannot be and no lease shows that the files are free: a lease sees every process, also in another container, but not one
    that has only a directory open.
    """
    opened, hidden = _opened_by_all(frozenset(except_pids))
    found = sorted(
        {Holder(pid, _program(pid), Path(path)) for path, identity in _tree(paths) for pid in opened.get(identity, ())},
        key=lambda holder: (holder.pid, holder.path),
    )
    if hidden and not found:
        _refuse_unless_free(paths, hidden)
    return found


def family() -> frozenset[int]:
    """This process and all that descend from it."""
    parents = {pid: parent for pid in _pids() if (parent := parent_of(pid)) is not None}
    members = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= grown
    return frozenset(members)


def _opened_by_all(except_pids: frozenset[int]) -> tuple[dict[Identity, set[int]], list[int]]:
    """What is open, by whom; and the processes that could not be looked at (0 stands for those that /proc does not even show)."""
    opened: dict[Identity, set[int]] = {}
    hidden = [0] if _others_are_invisible() else []
    for pid in _pids():
        if pid in except_pids:
            continue
        try:
            for identity in _opened_by(pid):
                opened.setdefault(identity, set()).add(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended, and holds nothing any more
        except OSError:
            if not _has_no_files(pid):
                hidden.append(pid)
    return opened, hidden


def _opened_by(pid: int) -> Iterator[Identity]:
    yield from _links(f"/proc/{pid}/fd")
    try:
        yield from _links(f"/proc/{pid}/map_files")
    except PermissionError:
        yield from _mapped(pid)  # following those links needs more rights than reading the table


def _links(directory: str) -> Iterator[Identity]:
    for name in os.listdir(directory):
        try:
            status = os.stat(f"{directory}/{name}")
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            yield status.st_dev, status.st_ino


def _mapped(pid: int) -> Iterator[Identity]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            found = _MAPPED.match(line)
            if found and found[3] != "0":
                yield os.makedev(int(found[1], 16), int(found[2], 16)), int(found[3])


def _refuse_unless_free(paths: Iterable[AnyPath], hidden: list[int]) -> None:
    """Raises Unknown unless the kernel gave a lease on every file at or below the paths."""
    command, count = Command([sys.executable, "-I", _LEASE_PROGRAM], keeps_locks=False), 0
    try:
        with open(os.memfd_create("paths"), "w+b") as names:
            for path in paths:
                names.write(os.fsencode(path) + b"\0")
                count += 1
            names.seek(0)
            said = processes.run(command, stdin=names).stdout.split(b"\0")[:-1]
    except ProgramFailed as error:
        said = [b"unknown", os.fsencode(error.message)]
    if said == [b"free", b"%d" % count]:  # fewer would mean that some were not looked at
        return
    what = os.fsdecode(said[1]) if len(said) == 2 and said[0] != b"free" else "the leases were not understood"
    if said[:1] == [b"open"]:
        raise Unknown(f"{what} is open in a process that cannot be looked at: {_reason(hidden)}", next="run as root, outside any container")
    raise Unknown(f"whether somebody has {_listed(paths)} open cannot be seen: {_reason(hidden)}, and {what}", next="run as root")


def _tree(paths: Iterable[AnyPath]) -> Iterator[tuple[AnyPath, Identity]]:
    """All files and directories at or below the paths. What is a link leads elsewhere and is not followed, except at the top."""
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unseen(path, error) from error
        yield path, (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            yield from _below(path)


def _below(directory: AnyPath) -> Iterator[tuple[str, Identity]]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unseen(directory, error) from error

    for folder, folders, files in os.walk(directory, onerror=refuse):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unseen(directory, error) from error
            yield path, (status.st_dev, status.st_ino)


def _unseen(path: AnyPath, error: OSError) -> Unknown:
    return Unknown(f"whether somebody has {path} open cannot be seen: {error.filename}: {error.strerror}", next="run as root")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "a program that has ended"


def _state(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the program's name; None when the process has ended or may not be looked at."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def parent_of(pid: int) -> int | None:
    """None when the process has ended or may not be looked at."""
    state = _state(pid)
    return int(state[1]) if state else None


def _has_no_files(pid: int) -> bool:
    """Kernel threads and processes that have ended hold no files, although they cannot be looked at either."""
    state = _state(pid)
    if state is None:
        return not os.path.exists(f"/proc/{pid}")
    return state[0] in ("Z", "X") or bool(int(state[6]) & _KERNEL_THREAD)


def _others_are_invisible() -> bool:
    """Whether /proc is mounted so that only one's own processes stand in it (hidepid)."""
    return os.geteuid() != 0 and not os.path.exists("/proc/1/stat")


def _listed(paths: Iterable[AnyPath]) -> str:
    shown = [str(path) for path in islice(paths, _SHOWN + 1)]
    return ", ".join(shown) if len(shown) <= _SHOWN else f"{', '.join(shown[:_SHOWN])} and more"


def _reason(hidden: list[int]) -> str:
    pids = [str(pid) for pid in hidden if pid]
    if not pids:
        return "the processes of other users are hidden"
    more = f" and {len(pids) - _SHOWN} more" if len(pids) > _SHOWN else ""
    return f"the open files of pid {', '.join(pids[:_SHOWN])}{more} may not be read"

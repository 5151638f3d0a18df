"""evict: ask the program that holds a lock of a store to end. By SIGTERM only, and only the one that was meant."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from storekeeper.host import holders
from storekeeper.outcomes import Outcome, Problem, Refused, Severity, Unknown, said_by_the_system
from storekeeper.stores.examination import InUse
from storekeeper.stores.protocol import Store
from storekeeper.verbs.report import Report

PATIENCE_S = 10.0
_OURS = "storekeeper"
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Holder:
    """Whom somebody wants to end: the process, and the program that it must be. `jobs` are the processes of this program's own runs."""

    stack: str
    store: Store
    pid: int
    program: str
    jobs: Collection[int] = ()

    @property
    def again(self) -> str:
        """What shows who uses the store now."""
        return f"storekeeper examine {self.stack} --store {self.store.name}"


def show(holder: Holder) -> Report:
    """Whom `evict` would ask. Raises as it does."""
    with _meant(holder) as (_, found):
        return Report({"plan": {"store": holder.store.name, "pid": found.pid, "program": found.program, "lock": found.lock}})


def evict(holder: Holder, patience_s: float = PATIENCE_S) -> Report:
    """Ask it to end, and wait a little. One that has not ended is a warning: nothing harder is ever tried. Where what it holds then cannot
    be seen, the outcome is unknown.

    Raises Refused for a process that is not there, is another program, holds no lock of the store at this moment, is one of ours or the
    first of the system; Unknown where that cannot be seen, and nobody was asked.
    """
    with _meant(holder) as (descriptor, found):
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has ended by itself meanwhile
        except PermissionError as error:
            raise Refused(
                f"{found.program} (pid {found.pid}) belongs to another user: nobody was asked to end", next="run as root"
            ) from error
        ended = _ends(descriptor, patience_s)
        lock, now = (None, "") if ended else _lock_now(holder)
    result = {"store": holder.store.name, "pid": found.pid, "program": found.program, "ended": ended, "held": found.lock, "lock": lock}
    if ended:
        return Report(result)
    unseen = lock == _UNKNOWN
    said = f"{found.program} (pid {found.pid}) was asked to end and has not within {patience_s:g} s; {now}"
    problem = Problem(said, Severity.ERROR if unseen else Severity.WARNING, holder.store.name, holder.again)
    return Report(result, [problem], Outcome.UNKNOWN if unseen else Outcome.WARNING)


@contextmanager
def _meant(holder: Holder) -> Iterator[tuple[int, InUse]]:
    """A grip on the process, taken before it is looked at: whatever becomes of its number, a signal reaches that process or none."""
    name, pid = holder.store.name, holder.pid
    if pid == 1 or pid in holders.family():
        raise Refused(f"pid {pid} is {'the first process of the system' if pid == 1 else 'this program itself'}: it is not asked to end")
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise Refused(f"there is no process {pid}: nobody was asked to end", next=holder.again) from error
    except OSError as error:
        raise Unknown(f"process {pid} cannot be gripped ({said_by_the_system(error)}): nobody was asked to end") from error
    try:
        found = next((each for each in holder.store.users() if each.pid == pid), None)
        if found is None or found.lock is None:
            held = "has it open and holds no lock" if found else "does not have it open"
            raise Refused(f"pid {pid} {held} at this moment: nobody was asked to end", store=name)
        if found.program != holder.program:
            raise Refused(f"pid {pid} is {found.program}, and not {holder.program[:60]}: nobody was asked to end", store=name)
        if any(each in holder.jobs or _is_ours(each) for each in _line_of(pid)):
            said = f"pid {pid} is at work for storekeeper itself: nobody was asked to end"
            raise Refused(said, store=name, next="storekeeper jobs")
        yield descriptor, found
    finally:
        os.close(descriptor)


def _ends(descriptor: int, patience_s: float) -> bool:
    """Whether the process has ended in that time: its descriptor can be read then (pidfd_open(2))."""
    watched = select.poll()
    watched.register(descriptor, select.POLLIN)
    return bool(watched.poll(patience_s * 1000))


def _lock_now(holder: Holder) -> tuple[str | None, str]:
    """The lock that it holds after it was asked, and the words that say so."""
    try:
        lock = next((each.lock for each in holder.store.users() if each.pid == holder.pid), None)
    except Unknown as error:
        return _UNKNOWN, f"which lock it holds now is not known: {error.message}"
    return lock, f"it holds the {lock} lock now" if lock else "it holds no lock any more"


def _line_of(pid: int) -> list[int]:
    """The process and all that it descends from, as far as this host's processes go. Raises Unknown where that cannot be seen."""
    line = [pid]
    while line[-1] > 1 and (parent := holders.parent_of(line[-1])) != 0:  # 0: it was put into this container from outside
        if parent is None:
            raise Unknown(f"what process {pid} descends from cannot be seen: nobody was asked to end", next="run as root")
        line.append(parent)
    return line


def _is_ours(pid: int) -> bool:
    """Whether a process is a command of this program, or a helper that one has started. Raises Unknown where that cannot be seen."""
    try:
        words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    except OSError as error:
        said = f"whether process {pid} is at work for storekeeper itself cannot be seen ({said_by_the_system(error)})"
        raise Unknown(f"{said}: nobody was asked to end", next="run as root") from error
    by_module = any(pair == ("-m", _OURS) for pair in pairwise(words))
    helper = any(Path(word).parent.name == "stores" and Path(word).name.startswith("_") for word in words[1:5] if _OURS in word)
    return by_module or helper or any(Path(word).name == _OURS for word in words[:3])

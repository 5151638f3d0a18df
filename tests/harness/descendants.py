"""Runs something in a process of its own whose orphans are seen: what a run started and left behind comes to its keeper."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storekeeper.outcomes import StorekeeperError

WELL, SAID, CRASHED = 0, 1, 2  # how a run ended: it went well, it said a sentence, or something else came out of it
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 10.0  # for programs that were told to end, and for helpers that end themselves when their program is gone
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ending:
    """How a run ended (a code above or minus a signal), what it said, and the names of the programs that outlived it."""

    code: int
    message: str
    orphans: list[str]


class Kept:
    """A run that is under way. `pid` is its process; `end` waits for it, and must be called."""

    def __init__(self, action: Callable[[], object]) -> None:
        reading, writing = os.pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(reading)
            _keep(action, writing)
        os.close(writing)
        self._said = os.fdopen(reading, "rb")
        self.pid = int(self._said.readline())

    def programs(self, name: str, word: str) -> list[int]:
        """The pids of programs of this name that it has started, directly or not, with this in what they were told."""
        return [pid for pid in _descendants(self.pid) if _name_of(pid) == name and word in _words_of(pid)]

    def send(self, number: int) -> bool:
        """Whether it was still there to be told."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> Ending:
        with self._said:
            said = self._said.read()
        assert said, "the keeper of the run broke: what it wrote on stderr says why"
        told = json.loads(said)
        os.waitpid(self._keeper, 0)
        return Ending(told["code"], told["message"], told["orphans"])


def _keep(action: Callable[[], object], tell: int) -> None:
    """Never returns: adopts what the run leaves, and tells of it."""
    try:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.close(tell)
            _run(action, writing)
        os.close(writing)
        os.write(tell, f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        orphans = _orphans()
        os.set_blocking(reading, False)  # an orphan may have the other end
        try:
            message = os.read(reading, 10_000).decode()
        except BlockingIOError:
            message = ""
        os.write(tell, json.dumps({"code": code, "message": message, "orphans": orphans}).encode())
    except BaseException:  # noqa: BLE001 a keeper never returns
        traceback.print_exc()
    finally:
        os._exit(0)


def _run(action: Callable[[], object], tell: int) -> None:
    code = CRASHED
    try:
        action()
        code = WELL
    except StorekeeperError as error:
        code = SAID
        os.write(tell, error.message.encode()[:4000])
    except BaseException as error:  # noqa: BLE001 said, and told by the exit code
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        sys.stdout.flush()
        os._exit(code)


def _orphans() -> list[str]:
    """Names of the children that do not end by themselves in the time they have; they are killed then."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := [pid for pid in _descendants(os.getpid()) if _name_of(pid)]) and time.monotonic() < deadline:
        with suppress(ChildProcessError):  # the last one has ended since it was listed
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    names = [name for pid in left if (name := _name_of(pid))]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return names


def _descendants(pid: int) -> Iterator[int]:
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                yield int(word)
                yield from _descendants(int(word))
    except (FileNotFoundError, ProcessLookupError):
        return


def _name_of(pid: int) -> str:
    """Empty for one that has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] == "Z" else name


def _words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""

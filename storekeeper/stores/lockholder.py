"""The write lock of a SQLite file, held by a small process of its own, so that no fault of this program blocks writers for long.

This program may copy the file while the other process holds the lock: in one process a closed file would drop it
(POSIX locks belong to the process, fcntl(2)). Killed, this program takes the lock with it; stopped, it loses the lock at the cap.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from storekeeper.host import clock, processes
from storekeeper.outcomes import Failed
from storekeeper.stores import databases

CAP_S = 10.0
_PROGRAM = Path(__file__).with_name("_lockholder_program.py")
_PATIENCE = 5.0  # seconds past which a silent lock holder is stuck


class LockHolder:
    """One file's write lock: `start`, then `take` and `release` as often as needed, then `close`, always."""

    def __init__(self, database: Path, cap_s: float = CAP_S) -> None:
        self._database = database
        self._cap_s = cap_s
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._taken: float | None = None
        self._pause_ms = 0.0

    @property
    def pause_ms(self) -> float:
        """How long writers were blocked, over all locks taken so far."""
        return self._pause_ms

    def start(self) -> None:
        """Start the process and open the file, without a lock. Raises Failed when the file cannot be opened for writing."""
        argv: list[str | Path] = [sys.executable, "-I", "-S", _PROGRAM, databases.uri(self._database, mode="rw"), f"{self._cap_s:.3f}"]
        self._process = processes.start(processes.Command(argv, keeps_locks=False), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        word, rest = self._answer(_PATIENCE)
        if word != "ready":
            raise self._failed(f"cannot be locked: {rest or word}")

    def take(self, wait_s: float) -> datetime:
        """Take the lock (BEGIN IMMEDIATE) and say when it was had.

        Raises Failed when another tool keeps it for `wait_s` seconds or longer, or the file is no database.
        """
        self._say(f"take {max(0, round(wait_s * 1000))}")
        word, rest = self._answer(wait_s + _PATIENCE)
        if word == "busy":
            raise self._failed(f"is being written by another program that kept its lock for more than {wait_s:g} s")
        if word != "taken":
            raise self._failed(f"cannot be locked: {rest or word}")
        self._taken = clock.monotonic()
        return datetime.fromtimestamp(int(rest) / 1e9, UTC)

    def release(self) -> None:
        """Let writers go on. Raises Failed, with the seconds that were needed, when the lock was lost before."""
        if self._taken is None:
            raise self._failed("was not locked")
        needed, self._taken = clock.monotonic() - self._taken, None
        self._say("release")
        word, rest = self._answer(_PATIENCE)
        if word == "released":
            self._pause_ms += float(rest)
            return
        self._pause_ms += min(needed, self._cap_s) * 1000
        self.close()
        raise self._failed(f"was locked for {self._cap_s:g} s at most, but {needed:.1f} s were needed")

    def close(self) -> None:
        """End the process, and with it any lock. Safe to repeat and from any state."""
        if self._process is None:
            return
        self._process.kill()  # it never writes to the file, so there is nothing that it could leave half done
        processes.end(self._process)
        self._process = None

    def _say(self, line: str) -> None:
        process = self._running()
        with suppress(BrokenPipeError):  # it has ended: its last words, or their absence, are read next
            if process.stdin is not None:
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()

    def _answer(self, patience_s: float) -> tuple[str, str]:
        """The first word of the next line, and the rest; `lost` when the process has ended or is stuck."""
        process = self._running()
        if process.stdout is None:
            return "lost", ""
        deadline = clock.monotonic() + patience_s
        while b"\n" not in self._said:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - clock.monotonic()))
            chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                self.close()
                return "lost", "the process that holds locks " + ("ended" if ready else "does not answer")
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        word, _, rest = line.decode(errors="replace").partition(" ")
        return word, rest

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise self._failed("is not locked: the process that holds locks has ended")
        return self._process

    def _failed(self, what: str) -> Failed:
        return Failed(f"{self._database} {what}")

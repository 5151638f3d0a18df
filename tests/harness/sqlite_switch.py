"""Switches of SQLite files, each in a process of its own, to be killed at one system call: `Killer` starts them all under one strace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from storekeeper.stores.sqlite.place import Place
from storekeeper.stores.sqlite.switching import Switching


class FileLog:
    """A restore's journal as a file: one note a line, durable when `note` returns; a torn last line was never written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, step: str, **facts: Any) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, (json.dumps({"step": step, "facts": facts}) + "\n").encode())
        os.fsync(descriptor)
        os.close(descriptor)

    def noted(self, step: str) -> dict[str, Any] | None:
        found = [json.loads(line) for line in self._path.read_bytes().split(b"\n")[:-1]] if self._path.exists() else []
        return next((each["facts"] for each in reversed(found) if each["step"] == step), None)


_CALLS: dict[str, Callable[[int], object]] = {
    "pwrite64": lambda descriptor: os.pwrite(descriptor, b"x", 0),
    "fdatasync": os.fdatasync,
    "unlink": lambda _: _unlink_nothing(),
}


class Killer:
    """Kills each process that it is told to start at the call of this number (from 1), or never where it makes fewer.

    strace kills every process at its `most`-th call: one that should die earlier first makes as many calls for nothing.
    """

    def __init__(self, directory: Path, call: str, most: int) -> None:
        self._scratch = directory / f"{call}.scratch"
        self._call = call
        self._most = most
        trace = ["strace", "-f", "-qq", "-o", str(directory / f"{call}.trace"), "-e", f"trace={call}"]
        inject = ["-e", f"inject={call}:signal=KILL:when={most}"]
        self._process = subprocess.Popen(
            [*trace, *inject, sys.executable, "-m", "tests.harness.sqlite_switch"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def switch(self, place: dict[str, Any], log: Path, at: int) -> int:
        """How the process of one switch ended: 0, or minus the signal that killed it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"place": place, "log": str(log), "call": self._call, "skip": self._most - at, "scratch": str(self._scratch)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))


def _unlink_nothing() -> None:
    try:
        os.unlink("/nonexistent/file")
    except FileNotFoundError:
        return


def _switch(order: dict[str, Any]) -> None:
    descriptor = os.open(order["scratch"], os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(order["skip"]):
        _CALLS[order["call"]](descriptor)
    Switching(Place.of(order["place"]), FileLog(Path(order["log"])), nobody_uses=False).to_restored()


def _serve() -> None:
    """Start one process an order, and say how each ended."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _switch(json.loads(line))
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    _serve()

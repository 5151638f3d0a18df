"""What everybody on a host can see of the processes below one: their arguments and environments, looked at every few milliseconds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

INTERVAL_S = 0.005


class Sampler:
    """`with Sampler(os.getpid(), words) as sampler:` watches this process's descendants, also those that others adopt.

    `hits` says where a word was seen, `programs` what was looked at. A program that was itself given a secret in its environment
    stands in `given` by its pid: its own environment does not count, its children's do.
    """

    def __init__(self, root: int, words: list[str]) -> None:
        self._seen: set[tuple[int, bytes, str]] = set()
        self.programs: set[str] = set()
        self.samples = 0
        self.given: set[int] = set()
        self._root = root
        self._words = [word.encode() for word in words]
        self._known: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    @property
    def hits(self) -> set[str]:
        given = {arguments for pid, arguments, _ in self._seen if pid in self.given}  # also of its forks that have not become another yet
        return {what for _, arguments, what in self._seen if not (arguments in given and what.startswith("environment"))}

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            pids = self._descendants()
            for pid in pids:
                self._look_at(pid)
            self.samples += 1
            self._ended.wait(max(0.0, INTERVAL_S - (time.monotonic() - began)))

    def _descendants(self) -> set[int]:
        pending = [self._root, *self._known]
        found: set[int] = set()
        while pending:
            pid = pending.pop()
            for child in _children(pid) - found:
                found.add(child)
                pending.append(child)
        self._known = {pid for pid in self._known | found if Path(f"/proc/{pid}").exists()}
        return self._known

    def _look_at(self, pid: int) -> None:
        arguments = _read(pid, "cmdline")
        program = arguments.split(b"\0")[0].rpartition(b"/")[2].decode(errors="replace")
        if program:
            self.programs.add(program)
        for where, text in (("arguments", arguments), ("environment", _read(pid, "environ"))):
            if any(word in text for word in self._words):
                self._seen.add((pid, arguments, f"{where} of {program}"))


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(word) for word in (task / "children").read_text().split()}
    except OSError:
        return found  # it has ended meanwhile
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # it has ended meanwhile, or is a zombie

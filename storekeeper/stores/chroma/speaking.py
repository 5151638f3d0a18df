"""Conversations with a program that has chromadb, under the application's interpreter: one question, one answer, each in bounded time."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storekeeper.host import clock, processes
from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores.chroma import catalogue

_LAST_WORDS = 1000
_NEXT = "declare `python:`, the application's interpreter, which has chromadb; or: pip install chromadb==" + catalogue.KNOWN_VERSION


class Speaker:
    """The subprocess that has chromadb. `doing` ends the sentence that says when it did not answer."""

    def __init__(self, program: Path, process: subprocess.Popen[bytes], patience_s: float, doing: str) -> None:
        self._interpreter = program
        self._doing = doing
        self._process = process
        self._patience_s = patience_s
        self._answers = bytearray()
        self._words = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Raises Failed when the program ends, hangs or does not speak JSON, Unknown when it has no chromadb."""
        if self._process.stdin is None:
            raise ValueError("the program was started with a pipe")
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the answer that does not come says so
        answer = json.loads(self._line())
        if "missing" in answer:
            raise Unknown(f"{self._interpreter} has no chromadb: {answer['missing']}", next=_NEXT)
        return dict(answer)

    def _line(self) -> bytes:
        if self._process.stdout is None:
            raise ValueError("the program was started with a pipe")
        deadline = clock.monotonic() + self._patience_s
        searched = 0
        while (end := self._answers.find(b"\n", searched)) < 0:
            searched = len(self._answers)
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - clock.monotonic()))
            if not ready:
                raise Failed(f"Chroma did not answer within {self._patience_s:g} s {self._doing}")
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise Failed(f"Chroma cannot read the directory: its process {self._ended()}")
            self._answers += chunk
        line = bytes(self._answers[:end])
        del self._answers[: end + 1]
        return line

    def _ended(self) -> str:
        code = self._process.wait()
        self._listener.join()
        words = " ".join(self._words[-_LAST_WORDS:].decode(errors="replace").split())
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        return f"{how}: {words}" if words else how

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._words += line
            del self._words[: -4 * _LAST_WORDS]


@contextmanager
def speaking(script: Path, program: Path, patience_s: float, *, doing: str) -> Iterator[Speaker]:
    """A script of ours under an interpreter, ended with the block. Raises Unknown where it cannot be started."""
    command = processes.Command([program, "-B", script], environment={"ANONYMIZED_TELEMETRY": "False", "LC_ALL": "C.UTF-8"})
    try:
        process = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except processes.ProgramFailed as error:
        raise Unknown(f"Chroma cannot be asked: {error.message}", next=_NEXT) from error
    try:
        yield Speaker(program, process, patience_s, doing)
    finally:
        process.kill()  # what it was told is done when it has answered
        processes.end(process)


def interpreter(declared: Path | None, so: str) -> Path:
    """The declared interpreter, else the engine's own where it has chromadb. Raises Unknown, `so` saying what follows from it."""
    if declared is not None:
        return declared
    if importlib.util.find_spec("chromadb") is None:
        raise Unknown(f"no interpreter with chromadb is declared, and the engine's own has none: {so}", next=_NEXT)
    return Path(sys.executable)

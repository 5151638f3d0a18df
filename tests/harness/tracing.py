"""Faults in the system calls of a backup that is under way: strace is put on a forked child, so no interpreter is started for a trial."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from storekeeper.outcomes import StorekeeperError
from tests.harness.descendants import CRASHED, SAID, WELL

_CALL = re.compile(r"^(\d+) +([a-z0-9_]+)\(")


@dataclass(frozen=True)
class Traced:
    """How a child ended: one of the codes above or minus the signal that killed it, what it said, and what strace saw."""

    code: int
    message: str
    calls: Counter[str]
    injected: int


def traced(action: Callable[[], object], *words: str, threads: bool = False) -> Traced:
    """Run something in a forked child under strace; with `threads` also its threads and the programs that it starts."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is missing")
    with tempfile.TemporaryDirectory(prefix="sk-trace-") as place:
        log, said = Path(place, "log"), Path(place, "said")
        pid, go = _waiting_child(action, said)
        argv = [program, *(["-f"] if threads else []), "-qq", "-o", str(log), "-p", str(pid), *words]
        tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _wait_until_attached(pid, tracer)
        finally:
            os.close(go)  # its end is the word to begin
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _, complaint = tracer.communicate() if tracer.returncode is None else (b"", b"")
        if not log.exists():
            raise RuntimeError(complaint.decode())
        text = log.read_text(errors="replace")
        calls = Counter(found[2] for line in text.splitlines() if (found := _CALL.match(line if threads else f"{pid} {line}")))
        return Traced(code, said.read_text() if said.exists() else "", calls, text.count("(INJECTED)"))


def killed_at(action: Callable[[], object], call: str, number: int) -> Traced:
    """SIGKILL as it enters its n-th call of this sort."""
    return traced(action, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")


def failing_at(action: Callable[[], object], call: str, number: int, error: str, *, for_ever: bool = False) -> Traced:
    """The n-th call of this sort returns an error, in whichever thread or program; with `for_ever` all later ones too."""
    when = f"{number}+" if for_ever else str(number)
    return traced(action, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}", threads=True)


def any_call(calls: Counter[str], chance: random.Random) -> tuple[str, int]:
    """One of all the calls that a run makes, each as likely as any other."""
    [name] = chance.choices(list(calls), weights=list(calls.values()))
    return name, chance.randint(1, calls[name])


def _waiting_child(action: Callable[[], object], said: Path) -> tuple[int, int]:
    """The pid of a child that waits, and what is closed to let it begin."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready)
        return pid, go
    code = CRASHED
    try:
        os.close(go)
        os.read(ready, 1)
        action()
        code = WELL
    except StorekeeperError as error:
        code = SAID
        said.write_text(error.message)
    except BaseException as error:  # noqa: BLE001 said, and told by the exit code
        said.write_text(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait_until_attached(pid: int, tracer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while f"TracerPid:\t{tracer.pid}\n" not in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            tracer.kill()
            _, complaint = tracer.communicate()
            if not complaint and "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return  # the call to be killed at was the one in which the child waits: it has ended, and so has its tracer
            pytest.skip(f"strace cannot attach here: {complaint.decode()[-200:]}")
        time.sleep(0.002)

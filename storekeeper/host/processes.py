"""The one place that starts programs: argument lists, never a shell; every exit code looked at.

Programs get a small environment of their own (the caller's PG* variables, locale and secrets do not leak in), inherit the
descriptors of the locks they work under, and are ended when this program fails or is told to stop.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import select
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from storekeeper.host import clock, locks
from storekeeper.host.giving_up import ending, heed
from storekeeper.outcomes import Failed

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1 << 20
_LOOK_S = 0.2
_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL
_LAST_WORDS = 2000  # characters of a failing program's standard error that are worth a person's time


@dataclass(frozen=True)
class User:
    """An OS user that a program runs as, when this program is root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> User:
        """Raises KeyError when the system has no such user."""
        entry = pwd.getpwnam(name)
        return cls(name, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Command:
    """A program with its arguments (never a secret among them) and how it is run.

    `keeps_locks` is False for what outlives us, such as a service: it must not carry our locks away. `hands` are descriptors that it
    is given under the same numbers.
    """

    argv: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None
    directory: Path | None = None
    keeps_locks: bool = True
    hands: Sequence[int] = ()

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str
    seconds: float


class ProgramFailed(Failed):
    """A program could not be started, ended with a code other than 0, or took too long."""

    def __init__(self, message: str, *, code: int | None, stderr: str) -> None:
        super().__init__(message)
        self.code = code
        self.stderr = stderr


def run(
    command: Command,
    *,
    input: bytes | None = None,
    stdin: IO[bytes] | None = None,
    timeout: float | None = None,
    accept: Sequence[int] = (0,),
) -> Finished:
    """Run a program to its end and return what it printed. Raises ProgramFailed unless its code is in `accept`."""
    started = clock.monotonic()
    process = _start(command, stdin=subprocess.PIPE if input is not None else stdin, stdout=subprocess.PIPE)
    try:
        with ending(lambda: _stop(process, _PATIENCE)):
            stdout, stderr = process.communicate(input, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"{command.program} did not end within {timeout:g} s", code=None, stderr="") from None
    finally:
        _end(process)
    said = stderr.decode(errors="replace")
    if process.returncode not in accept:
        raise _failure(command, process.returncode, said)
    return Finished(process.returncode, stdout, said, clock.monotonic() - started)


@contextmanager
def reading(*commands: Command, stdin: IO[bytes] | None = None, patience: float | None = None) -> Iterator[Iterator[bytes]]:
    """Run a pipeline and yield its output in chunks of at most 1 MiB.

    Each program's output is the next one's input. When the block ends normally every program has ended with 0, else
    ProgramFailed is raised for the first that did not; when the block fails, all of them are ended. It fails too when
    nothing at all comes for `patience` seconds, where that is given.
    """
    running: list[_Running] = []
    try:
        source = stdin
        for command in commands:
            process = _start(command, stdin=source, stdout=subprocess.PIPE)
            running.append(_Running(command, process))
            _widen(process.stdout)
            if source is not None and source is not stdin:
                source.close()
            source = process.stdout
        if source is None:
            raise ValueError("a pipeline needs at least one program")
        with ending(lambda: _stop_all(running)):
            with source:
                yield _chunks(source, commands[0], patience)
            for each in running:
                each.finish()
    finally:
        for each in running:
            each.end()


@contextmanager
def writing(command: Command) -> Iterator[Sink]:
    """Run a program that reads what the block writes. Raises ProgramFailed unless it ends with 0."""
    process = _start(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    running = _Running(command, process)
    if process.stdin is None:
        raise ValueError("a started program has a standard input")
    try:
        with ending(running.stop):
            try:
                yield Sink(process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it ended early: its exit code below says why
            running.finish()
    finally:
        running.end()


def start(command: Command, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program and return at once; the caller waits for it or ends it (`end`)."""
    return _start(command, stdin=stdin, stdout=stdout)


def end(process: subprocess.Popen[bytes], *, patience: float = _PATIENCE) -> None:
    """End a program: SIGTERM, then SIGKILL after `patience` seconds. Harmless when it has ended already."""
    _end(process, patience)


class _Running:
    """A program of a pipeline, with a thread that keeps its standard error from filling the pipe."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes]) -> None:
        self.command = command
        self.process = process
        self._said = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def finish(self) -> None:
        code = self.process.wait()
        self._listener.join(_PATIENCE)  # what it left behind may have its standard error for ever
        if code != 0:
            raise _failure(self.command, code, self._said.decode(errors="replace"))

    def stop(self) -> None:
        _stop(self.process, _PATIENCE)

    def end(self) -> None:
        """End the program; only then is the pipe closed that the listener reads."""
        self.stop()
        self._listener.join(_PATIENCE)
        if not self._listener.is_alive():
            _close_pipes(self.process)

    def _listen(self) -> None:
        if self.process.stderr is None:
            return
        for line in self.process.stderr:
            self._said += line
            del self._said[: -4 * _LAST_WORDS]


def _start(command: Command, *, stdin: IO[bytes] | int | None, stdout: int) -> subprocess.Popen[bytes]:
    argv = [os.fspath(word) for word in command.argv]
    user = command.user if command.user is not None and os.geteuid() != command.user.uid else None
    home = pwd.getpwuid(user.uid if user else os.geteuid()).pw_dir
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": home, **command.environment},
            cwd=command.directory or "/",
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            pass_fds=[*(locks.inheritable() if command.keeps_locks else ()), *command.hands],
        )
    except OSError as error:
        raise ProgramFailed(f"{argv[0]} could not be started: {error.strerror}", code=None, stderr="") from error


def _widen(pipe: IO[bytes] | None) -> None:
    """Let more wait in a pipe than its 64 KiB, so that neither end waits for the other at every turn (pipe(7))."""
    if pipe is not None:
        with suppress(OSError):  # the user's pipes may be that wide no more
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)


def _stop_all(running: Sequence[_Running]) -> None:
    for each in running:
        each.stop()


def _end(process: subprocess.Popen[bytes], patience: float = _PATIENCE) -> None:
    _stop(process, patience)
    _close_pipes(process)


def _stop(process: subprocess.Popen[bytes], patience: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it did not read is lost with it, and its exit code tells


def _failure(command: Command, code: int, stderr: str) -> ProgramFailed:
    how = f"ended with {code}" if code >= 0 else f"was killed by signal {-code}"
    words = " ".join(stderr[-_LAST_WORDS:].split())
    return ProgramFailed(f"{command.program} {how}: {words or 'it said nothing'}", code=code, stderr=stderr)


def _chunks(source: IO[bytes], command: Command, patience: float | None) -> Iterator[bytes]:
    """What comes, until every program has closed its end: also one that a script left behind, so it is looked at now and then."""
    last = clock.monotonic()
    while True:
        if select.select([source], [], [], _LOOK_S)[0]:
            chunk = os.read(source.fileno(), _CHUNK)
            if not chunk:
                return
            yield chunk
            last = clock.monotonic()
        elif patience is not None and clock.monotonic() - last > patience:
            raise ProgramFailed(f"{command.program} has given nothing for {patience:g} s", code=None, stderr="")
        heed()


class Sink:
    """What a program reads, on a pipe that is never waited for without a look at whether anybody still waits for us."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        os.set_blocking(pipe.fileno(), False)

    def write(self, chunk: bytes) -> None:
        """Raises BrokenPipeError when the program has gone."""
        view = memoryview(chunk)
        while view:
            heed()
            if select.select([], [self._pipe], [], _LOOK_S)[1]:
                view = view[os.write(self._pipe.fileno(), view) :]

"""A program of its own, run by `holders`: says which regular file at or below the paths on its standard input is open anywhere.

The kernel gives a write lease (fcntl(2), F_SETLEASE) only on a file that nobody else has open or mapped, in whatever process
or container, and only on a regular file. In a process of its own, because closing a file drops this process's locks on it.
Paths are read, and the answer is written, with a NUL after each; the answer is `free` and how many paths that were, `open` and the path,
or `unknown` and why.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO


def main() -> None:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to the holder of a lease when somebody opens the file meanwhile
    names = Names(sys.stdin.buffer)
    try:
        answer = next((path for path in regular_files(names) if not is_free(path)), None)
    except OSError as error:
        say(b"unknown", os.fsencode(f"{os.fsdecode(error.filename or b'a file')}: {error.strerror}"))
        return
    say(b"free", b"%d" % names.count) if answer is None else say(b"open", answer)


def say(*words: bytes) -> None:
    sys.stdout.buffer.write(b"".join(word + b"\0" for word in words))


class Names:
    """The paths on a stream, and how many were whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while piece := self._stream.read(1 << 16):
            *whole, rest = (rest + piece).split(b"\0")
            for path in whole:
                self.count += 1
                yield path


def regular_files(paths: Names) -> Iterator[bytes]:
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISREG(mode):
            yield os.path.realpath(path)
        elif stat.S_ISDIR(mode):
            for folder, _, names in os.walk(path, onerror=refuse):
                yield from (os.path.join(folder, name) for name in names)


def refuse(error: OSError) -> None:
    raise error


def is_free(path: bytes) -> bool:
    """True for what is no regular file, and for what has gone. Raises OSError where no lease can tell."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return True
        # Without waiting: somebody else's lease on it means that it is open there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(error.errno, f"no lease can be had ({error.strerror})", path) from error
    finally:
        os.close(descriptor)
    return True


if __name__ == "__main__":
    main()

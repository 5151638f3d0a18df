"""The one place that reads a secret: from a private file, a variable of the caller's environment, or the application's own setting.

A secret is a piece of text that is returned to its one user. No message here, nor anything built from one, holds a part of it.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from storekeeper.outcomes import Refused
from storekeeper.stack.setting import read_address, refused
from storekeeper.stack.types import SecretReference, Setting

_LONGEST = 10_000  # bytes
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_secret(reference: SecretReference | Setting, label: str) -> str:
    """The secret that a reference points to; `label` says whose it is, such as `the password of maestro`.

    Raises Refused, naming the file and its mode or the variable: missing, empty, open to others, no regular file, not one line of text.
    """
    if isinstance(reference, Setting):
        password = read_address(reference, label).password
        if password is None:
            raise refused(reference, label, "has no password any more")
        return password
    if reference.file is not None:
        return _one_line(_read_file(reference.file, label), f"{label}: {reference.file}")
    name = reference.env or ""
    value = os.environb.get(os.fsencode(name), b"")
    if not value:
        raise Refused(f"{label}: the environment variable {name} is not set or empty", next=f"export {name}")
    return _one_line(value, f"{label}: the environment variable {name}")


def _read_file(path: Path, label: str) -> bytes:
    quoted = shlex.quote(str(path))
    try:
        # Without waiting: a named pipe in its place must not hang a run.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise Refused(f"{label}: {path} cannot be read: {error.strerror}", next=f"ls -l {quoted}") from error
    try:
        _refuse_unless_private(os.fstat(descriptor), path, label)
        data = os.read(descriptor, _LONGEST + 1)
    finally:
        os.close(descriptor)
    if not data:
        raise Refused(f"{label}: {path} is empty", next=f"ls -l {quoted}")
    return data


def _refuse_unless_private(status: os.stat_result, path: Path, label: str) -> None:
    quoted = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Refused(f"{label}: {path} is {kind}", next=f"ls -ld {quoted}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & _FOR_OTHERS:
        raise Refused(f"{label}: {path} has mode {mode:04o}, only its owner may reach a secret (0600 or 0400)", next=f"chmod 600 {quoted}")
    if status.st_uid not in (0, os.geteuid()):
        raise Refused(f"{label}: {path} belongs to user {status.st_uid}, expected {os.geteuid()} or root", next=f"ls -l {quoted}")


def _one_line(data: bytes, where: str) -> str:
    """One newline at the end belongs to the file, not to the secret; every other byte is kept."""
    if len(data) > _LONGEST:
        raise Refused(f"{where} is longer than {_LONGEST} bytes: that is no password")
    text = _text(data.removesuffix(b"\n"))
    if text is None:
        raise Refused(f"{where} is not UTF-8 text")
    if not text:
        raise Refused(f"{where} is empty")
    if any(sign in text for sign in "\0\n\r"):
        raise Refused(f"{where} holds more than one line, a carriage return or a NUL: expected one line of text")
    return text


def _text(data: bytes) -> str | None:
    """None for what is no text: the decoder's exception holds the bytes, and must not travel with ours."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None

"""The bytes of a file that says what is backed up and where."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from storekeeper.outcomes import Refused

LARGEST_FILE = 256 * 1024


def read_source(file: Path) -> bytes:
    """A configuration file's contents, at most one byte more than LARGEST_FILE.

    Refused unless it is a regular file that not everybody may change.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Refused(f"there is no {file}", next=f"ls {shlex.quote(str(file.parent))}") from None
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{file} is no regular file")
        if status.st_mode & stat.S_IWOTH:
            mode = stat.S_IMODE(status.st_mode)
            raise Refused(
                f"{file} has mode {mode:04o}: everybody could change what is backed up", next=f"chmod o-w {shlex.quote(str(file))}"
            )
        return source.read(LARGEST_FILE + 1)

"""The program `storekeeper`. The version is told before anything else is loaded."""

from __future__ import annotations

import os
import sys

from storekeeper import __version__


def main(argv: list[str]) -> int:
    """Carry out one command; returns its exit code."""
    if argv[:1] in (["--version"], ["-V"]):
        sys.stdout.write(f"storekeeper {__version__}\n")
        return 0
    from storekeeper.cli.program import answer  # noqa: PLC0415 see above

    return answer(argv)


def run() -> None:
    """The console entry."""
    _open_what_is_closed()
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # before the work began: from then on signals are listened for
        sys.stderr.write("storekeeper: stopped before it began\n")
        code = 1
    sys.exit(code)


def _open_what_is_closed() -> None:
    """Give standard streams that the caller closed to nobody: else the first files opened get their numbers, and what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)

"""The program `storekeeper`. The version is told before anything else is loaded."""

from __future__ import annotations

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
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # before the work began: from then on signals are listened for
        sys.stderr.write("storekeeper: stopped before it began\n")
        code = 1
    sys.exit(code)

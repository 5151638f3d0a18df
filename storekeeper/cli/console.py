"""Where things are printed: answers to standard output, everything else to standard error."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from typing import TextIO

from storekeeper.cli.render.layout import Paint
from storekeeper.cli.words import Globals


class Console:
    """Prints in the way that was asked for. A reader that went away (a closed pipe, a lost wire) ends nothing."""

    def __init__(self, options: Globals, *, in_job: bool = False) -> None:
        self.json = options.json
        self.debug = options.debug
        self.has_answered = False  # what was asked for has gone to standard output already, line by line
        is_heard = in_job or options.job or sys.stderr.isatty()  # what a job tells is what its follower came for
        self.quiet = options.quiet or (_is_discarded(sys.stdout) and not is_heard)
        self.paint_out = Paint(_coloured(options.color, sys.stdout), options.unusual_config)
        self.paint_err = Paint(_coloured(options.color, sys.stderr), options.unusual_config)

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def stands_on_terminal(self) -> bool:
        """Whether standard error is read by a person as it comes."""
        return sys.stderr.isatty()

    @property
    def redraws(self) -> bool:
        return self.stands_on_terminal and os.environ.get("TERM") != "dumb"

    def answer(self, text: str) -> None:
        print_to(sys.stdout, text)

    def answer_in_pieces(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            print_to(sys.stdout, piece, end="", flush=False)
        print_to(sys.stdout, "")

    def answer_line(self, text: str) -> None:
        """One line of an answer that comes in lines; nothing else goes to standard output then."""
        self.has_answered = True
        print_to(sys.stdout, text, flush=False)

    def log(self, text: str) -> None:
        """A line of no lasting worth: not printed when only what went wrong is wanted."""
        if not self.quiet:
            self.complain(text)

    def tell(self, lines: str) -> None:
        """Whole lines of what something tells while it goes on."""
        if not self.quiet:
            print_to(sys.stderr, lines, end="")

    def complain(self, text: str) -> None:
        print_to(sys.stderr, text)

    def ask(self, question: str) -> str:
        """What a person types; empty at the end of the input."""
        print_to(sys.stderr, question, end="")
        return sys.stdin.readline().strip()


def print_to(stream: TextIO, text: str, end: str = "\n", *, flush: bool = True) -> None:
    """Print, whoever may have gone away."""
    try:
        stream.write(text + end)
        if flush:
            stream.flush()
    except OSError:
        # Nobody reads any more. The work is done and recorded; only Python's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _coloured(wish: str, stream: TextIO) -> bool:
    if wish != "auto":
        return wish == "always"
    return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_discarded(stream: TextIO) -> bool:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev

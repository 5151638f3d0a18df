"""The lines of a stack's cron file, from its declared schedule."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from storekeeper.stack.model import Stack

from .program import Program


@dataclass(frozen=True)
class CronLine:
    """One line of a file in /etc/cron.d (crontab(5)): its time, and the command with every word quoted."""

    time: str
    command: str


_SYSTEM = "/etc/cron.d"


def owner_of(directory: str, user: str) -> str:
    """Who must own a directory of schedules and the files in it: cron reads nothing but root's from its own, whoever the lines run as."""
    return "root" if directory == _SYSTEM else user


def cron_lines(stack: Stack, program: Program) -> list[CronLine]:
    """What cron runs for a stack. It prints nothing but what went wrong, which is what cron mails.

    A percent sign means a new line to cron, so it is escaped.
    """
    lines = []
    for entry in stack.schedule:
        words = [program.path, "--config", program.config, "--quiet", entry.verb, stack.stack, *entry.arguments]
        command = " ".join(shlex.quote(word) for word in words).replace("%", r"\%")
        lines.append(CronLine(str(entry.at), command))
    return lines

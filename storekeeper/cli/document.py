"""The one JSON document of a command, which the job's record keeps and the text is made from."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from storekeeper.host import clock
from storekeeper.outcomes import EXIT_CODES, Outcome, Problem

SCHEMA = 1

_OURS = "storekeeper "

Document = dict[str, Any]


class Begun:
    """A command that has begun; `ended` makes its document. `config` is said where it is not the default."""

    def __init__(self, verb: str | None, stack: str | None, config: Path | None = None) -> None:
        self.verb = verb
        self.stack = stack
        self._config = config
        self._started: datetime = clock.now()
        self._clock = clock.monotonic()

    def ended(self, outcome: Outcome, result: Mapping[str, Any] | None, problems: Sequence[Problem]) -> Document:
        return {
            "schema": SCHEMA,
            "verb": self.verb,
            "stack": self.stack,
            "host": host_name(),
            "outcome": str(outcome),
            "started": clock.rfc3339(self._started),
            "seconds": round(clock.monotonic() - self._clock, 3),
            "result": None if result is None else dict(result),
            "problems": [self._problem(problem) for problem in problems],
        }

    def _problem(self, problem: Problem) -> dict[str, Any]:
        return {
            "stack": problem.stack or self.stack,
            "store": problem.store,
            "severity": str(problem.severity),
            "message": problem.message,
            "next": self._pasteable(problem.next),
        }

    def _pasteable(self, command: str | None) -> str | None:
        """A command of ours for another configuration than the usual one says which."""
        if command is None or self._config is None or not command.startswith(_OURS):
            return command
        return f"{_OURS}--config {shlex.quote(str(self._config))} {command.removeprefix(_OURS)}"


def host_name() -> str:
    """As `uname -n` says it."""
    return os.uname().nodename


def exit_code(document: Document) -> int:
    return EXIT_CODES[Outcome(document["outcome"])]


def to_text(document: Document) -> str:
    """One line of JSON."""
    return json.dumps(document, sort_keys=False) + "\n"

"""The one JSON document of a command, which the job's record keeps and the text is made from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from storekeeper.cli.render.layout import pasteable
from storekeeper.host import clock
from storekeeper.outcomes import EXIT_CODES, Outcome, Problem
from storekeeper.verbs.report import Many

SCHEMA = 1

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
            "result": None if result is None else self._with_pasteable_commands(result),
            "problems": [self._problem(problem) for problem in problems],
        }

    def with_warning(self, document: Document, problem: Problem) -> Document:
        """The document with one problem more; what was ok ends with a warning."""
        outcome = str(Outcome.WARNING) if document["outcome"] == Outcome.OK else document["outcome"]
        return {**document, "outcome": outcome, "problems": [*document["problems"], self._problem(problem)]}

    def _with_pasteable_commands(self, result: Mapping[str, Any]) -> dict[str, Any]:
        commands = {name: result[name] for name in ("back", "undo") if isinstance(result.get(name), str)}
        return {**result, **{name: pasteable(command, self._config) for name, command in commands.items()}}

    def _problem(self, problem: Problem) -> dict[str, Any]:
        return {
            "stack": problem.stack or self.stack,
            "store": problem.store,
            "severity": str(problem.severity),
            "message": problem.message,
            "next": None if problem.next is None else pasteable(problem.next, self._config),
        }


def host_name() -> str:
    """As `uname -n` says it."""
    return os.uname().nodename


def exit_code(document: Document) -> int:
    return EXIT_CODES[Outcome(document["outcome"])]


def to_texts(document: Document) -> Iterator[str]:
    """One line of JSON, in pieces: a long list in the result is never in memory as a whole."""
    result = document["result"] or {}
    many = next((name for name, value in result.items() if isinstance(value, Many)), None)
    if many is None:
        yield json.dumps(document, sort_keys=False)
        return
    # What stands before the result is of our own making, so that this is the first place where the list's name can be.
    before, after = json.dumps({**document, "result": {**result, many: []}}).split(f'"{many}": []', 1)
    yield f'{before}"{many}": ['
    for number, each in enumerate(result[many]):
        yield (", " if number else "") + json.dumps(each)
    yield f"]{after}"

"""A pyinfra host that runs nothing: it answers each command with what the real program printed, and fails at any other.

`recorded/` holds documents as the host program printed them, one file an answer (`record.py` makes them).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_state

from storekeeper.outcomes import EXIT_CODES, Outcome

RECORDED = Path(__file__).parent / "recorded"
CODE = "storekeeper-code:"
END = "storekeeper-end"
PROGRAM = "/opt/sk/bin/storekeeper"
TYPED = f"{PROGRAM} --config /etc/storekeeper --json"  # how every verb begins on a fake host


def followed(words: str) -> str:
    """How a long verb is typed: as a job, whose answer is fetched afterwards."""
    return f"{TYPED} --job {words} >/dev/null"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def printed(name: str) -> list[str]:
    """The lines that a verb printed."""
    return (RECORDED / f"{name}.json").read_text(encoding="utf-8").splitlines()


def code(name: str) -> int:
    return EXIT_CODES[Outcome(recorded(name)["outcome"])]


def verb(name: str) -> dict[str, Any]:
    """What a host answers to a verb typed by an operation, job or not: pyinfra calls 0 and 4 success when it was told to."""
    document = {**recorded(name), "job": "20260101T000000Z-verb-00000000"}
    return {"stdout": [json.dumps(document)], "success": code(name) in (0, 4), "stderr": ["progress that nobody needs"]}


def answer(*names: str) -> list[str]:
    """What a fact's command prints: each recorded document with its exit code, then the end."""
    lines = []
    for name in names:
        lines += [*printed(name), "", f"{CODE}{code(name)}"]
    return [*lines, END]


class Said(logging.Handler):
    """What pyinfra told the person."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage()))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Fake:
    host: Host
    state: State
    said: Said = field(default_factory=Said)

    @property
    def typed(self) -> list[str]:
        """The commands that reached the host."""
        commands: list[str] = self.host.connector.executed_commands
        return commands

    def commands(self, operation: Any, **arguments: Any) -> list[str]:
        """What an operation would type, in order."""
        return [str(command) for command in operation._inner(**arguments)]

    def execute(self, operation: Any, **arguments: Any) -> list[bool]:
        """Carry out what an operation yields, as pyinfra does: the first failure is the end. Whether each command succeeded."""
        outcomes = []
        for command in operation._inner(**arguments):
            done = command.execute(self.state, self.host, {})
            outcomes.append(bool(done[0] if isinstance(done, tuple) else done))
            if not outcomes[-1]:
                break
        return outcomes


@contextmanager
def fake_host(responses: Mapping[str, Any] | None = None, **data: Any) -> Iterator[Fake]:
    """A host with this data, beside a second one, on which only the responses' commands succeed."""
    known: dict[Any, Any] = {**(responses or {}), re.compile(""): {"success": False, "stderr": "an unexpected command"}}
    data = {"storekeeper_program": PROGRAM, "storekeeper_config": "/etc/storekeeper", **data}
    plain = {"fake_responses": known, "fake_delay": 0, "fake_delay_jitter": 0}
    inventory = Inventory(([("@fake/prod-ai-1", {**plain, **data}), ("@fake/other", plain)], {}))
    config = Config()
    state = State(inventory, config)
    state.current_stage = StateStage.Execute
    state.is_executing = True
    state.print_noop_info = True
    host = inventory.get_host("@fake/prod-ai-1")
    fake = Fake(host, state)
    with ctx_state.use(state), ctx_config.use(config), ctx_host.use(host):
        for each in inventory:
            each.connect()
            state.activate_host(each)
        level = logger.level
        logger.addHandler(fake.said)
        logger.setLevel(logging.INFO)
        try:
            yield fake
        finally:
            logger.removeHandler(fake.said)
            logger.setLevel(level)

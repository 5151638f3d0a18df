"""A pyinfra host that runs nothing: it answers each command with what the real program printed, and fails at any other.

`recorded/` holds documents as the host program printed them, one file an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_state

RECORDED = Path(__file__).parent / "recorded"
END = "storekeeper-end:"


def answer(name: str, code: int) -> list[str]:
    """What a fact's command prints: the recorded document, then the end marker with the exit code."""
    return [*document(name), "", f"{END}{code}"]


def document(name: str) -> list[str]:
    return (RECORDED / f"{name}.json").read_text(encoding="utf-8").splitlines()


@dataclass(frozen=True)
class Fake:
    host: Host
    state: State

    @property
    def typed(self) -> list[str]:
        """The commands that reached the host."""
        commands: list[str] = self.host.connector.executed_commands
        return commands

    def commands(self, operation: Any, **arguments: Any) -> list[str]:
        """What an operation would type, in order."""
        return [str(command) for command in operation._inner(**arguments)]

    def execute(self, operation: Any, **arguments: Any) -> list[bool]:
        """Carry out what an operation yields; whether each command succeeded."""
        outcomes = []
        for command in operation._inner(**arguments):
            done = command.execute(self.state, self.host, {})
            outcomes.append(done[0] if isinstance(done, tuple) else done)
        return outcomes


@contextmanager
def fake_host(responses: Mapping[str, Any] | None = None, **data: Any) -> Iterator[Fake]:
    """A host with this data, on which only the responses' commands succeed."""
    known: dict[Any, Any] = {**(responses or {}), re.compile(""): {"success": False, "stderr": "an unexpected command"}}
    data = {"storekeeper_program": "/opt/sk/bin/storekeeper", "storekeeper_config": "/etc/storekeeper", **data}
    inventory = Inventory(([("@fake/prod-ai-1", {"fake_responses": known, "fake_delay": 0, "fake_delay_jitter": 0, **data})], {}))
    config = Config()
    state = State(inventory, config)
    state.current_stage = StateStage.Execute
    host = inventory.get_host("@fake/prod-ai-1")
    with ctx_state.use(state), ctx_config.use(config), ctx_host.use(host):
        host.connect()
        yield Fake(host, state)

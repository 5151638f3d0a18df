"""What is asked of a host with something that nobody may see: it goes on standard input, and stands in no command, fact or log."""

from __future__ import annotations

from typing import Any, cast

from pyinfra.api import Host, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, ConnectorArguments


def asked(target: Host, command: str, told: str) -> list[str] | None:
    """The lines that a command answers, which changes nothing; None where it fails. Within an operation only, whose rights it has."""
    known = cast("dict[str, Any]", target.current_op_global_arguments or {})
    arguments = {key: value for key, value in known.items() if key in CONNECTOR_ARGUMENT_KEYS}
    done, output = target.run_shell_command(StringCommand(command), **{**arguments, "_stdin": told})
    return list(output.stdout_lines) if done else None


def told(command: str, standard_input: str) -> StringCommand:
    """A command that is given something to read."""
    given: ConnectorArguments = {"_stdin": standard_input}
    return StringCommand(command, **given)

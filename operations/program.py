"""The one place on the control side that types words to the host program and reads its documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pyinfra import host, logger
from pyinfra.api import Host, OperationValueError, QuoteString, State, StringCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

PROGRAM = "/opt/storekeeper/current/bin/storekeeper"
CONFIG = "/etc/storekeeper"
_ACCEPTED = (0, 4)  # ok, and ok with warnings that a person is told
_OUTCOME_COLOURS = {"ok": "green", "warning": "yellow", "unknown": "yellow"}


@dataclass(frozen=True)
class Program:
    """Where the host program and its configuration are on a host: host data `storekeeper_program`, `storekeeper_config`."""

    path: str = PROGRAM
    config: str = CONFIG

    @classmethod
    def of(cls, target: Host) -> Program:
        return cls(target.data.get("storekeeper_program", PROGRAM), target.data.get("storekeeper_config", CONFIG))

    def words(self, verb: str, *arguments: str) -> tuple[str, ...]:
        """The argument list of a verb that answers with a document. Raises OperationValueError for a word that no verb takes."""
        for word in (self.path, self.config, verb, *arguments):
            if not isinstance(word, str) or not word or any(ord(sign) < 32 or ord(sign) == 127 for sign in word):
                raise OperationValueError(f"{word!r} cannot be a word of a command")
        if not PurePosixPath(self.path).is_absolute():
            raise OperationValueError(f"storekeeper_program is no absolute path: {self.path!r}")
        return (self.path, "--config", self.config, "--json", verb, *arguments)


class Verb(StringCommand):
    """A verb of the host program as a pyinfra command: its sentences reach the person, its exit code decides.

    0 and 4 are success (warnings are printed), anything else fails this host and no other.
    """

    def __init__(self, verb: str, *arguments: str) -> None:
        words = Program.of(host).words(verb, *arguments)
        super().__init__(*(QuoteString(word) for word in words), _success_exit_codes=list(_ACCEPTED))

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        status, output = super().execute(state, host, connector_arguments)
        document = parse_document(output.stdout_lines)
        if document is None:
            return False, output
        tell(host, document)
        said = [OutputLine("stdout", line) for line in output.stdout_lines] if status else []
        return status, CommandOutput(said)


def parse_document(lines: Sequence[str]) -> dict[str, Any] | None:
    """The one document that a verb printed; None when what came is none."""
    try:
        document = json.loads("\n".join(lines))
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("schema") != 1 or "outcome" not in document:
        return None
    return document


def tell(target: Host, document: dict[str, Any]) -> None:
    """Print what a document says to people: one line of figures, then each problem with its next command."""
    colour = _OUTCOME_COLOURS.get(document["outcome"], "red")
    target.log_styled(f"{document['outcome']}: {headline(document)}", fg=colour, log_func=logger.info)
    for problem in document.get("problems", ()):
        subject = " ".join(word for word in (document.get("stack"), problem.get("store")) if word)
        log = logger.info if problem["severity"] == "info" else logger.warning
        target.log_styled(f"{subject}: {problem['message']}", fg="yellow" if problem["severity"] == "warning" else None, log_func=log)
        if problem.get("next"):
            target.log(f"  next: {problem['next']}", log_func=log)


def headline(document: dict[str, Any]) -> str:
    """The verb, its stack and the figures that matter, in one line."""
    result = document.get("result") or {}
    words = [str(document["verb"])]
    if document.get("stack"):
        words.append(str(document["stack"]))
    made = result.get("set")
    if isinstance(made, dict):
        words += [made["id"], f"{made['bytes'] / 1e6:.1f} MB", f"skew {made['skew_ms']:.0f} ms"]
    elif isinstance(made, str):
        words.append(made)
    sets = result.get("sets")
    if isinstance(sets, list):
        words.append(", ".join(f"{each['id']} {each['state']}" for each in sets[-3:]) or "no set")
    if "removed" in result and isinstance(result["removed"], list):
        words.append(f"{len(result['kept'])} kept, {len(result['removed'])} removed")
    words.append(f"{document['seconds']:.1f} s")
    return "  ".join(words)

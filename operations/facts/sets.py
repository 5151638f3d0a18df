"""Facts about the backup sets of a host."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, cast

from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import get_fact

from ..program import CONFIG, PROGRAM, Program, one_line, parse_document, value

_CODE = "storekeeper-code:"
_END = "storekeeper-end"
_ANSWERS = (0, 1, 2, 3, 4, 75)  # every code of the contract: a refusal is an answer too, where it is said


def asked(program: Program, *questions: Sequence[str]) -> str:
    """The shell words that ask verbs for their documents, mark each with its exit code, and the end of all."""
    typed = (" ".join(shlex.quote(word) for word in program.words(*question)) for question in questions)
    return "; ".join([*(f"{each}; printf '\\n{_CODE}%s\\n' $?" for each in typed), f"printf '{_END}\\n'"])


def answers(output: list[str], accepted: tuple[int, ...]) -> list[dict[str, Any]]:
    """The documents of an output. Raises FactProcessError for anything cut off, refused or failed."""
    if not output or output[-1] != _END:
        raise FactProcessError("the answer of the host program was cut off")
    documents, lines = [], []
    for line in output[:-1]:
        if not line.startswith(_CODE):
            lines.append(line)
            continue
        documents.append(_document(lines, line.removeprefix(_CODE), accepted))
        lines = []
    if lines or not documents:
        raise FactProcessError("the answer of the host program was cut off")
    return documents


def _document(lines: list[str], code: str, accepted: tuple[int, ...]) -> dict[str, Any]:
    document = parse_document(lines)
    if document is None:
        raise FactProcessError(f"the host program did not answer with a document that is understood here (it ended with {code})")
    if not code.isdigit() or int(code) not in accepted:
        raise FactProcessError(reasons(document) or f"the host program ended with {code}")
    return document


def reasons(document: dict[str, Any]) -> str:
    """Everything that a document complains about, in one line."""
    return one_line("; ".join(str(problem.get("message")) for problem in document.get("problems", ())))


def ask(target: Host, fact: type[FactBase[dict[str, Any]]], **arguments: Any) -> dict[str, Any] | None:
    """A fact of a host. None where it could not be read: pyinfra has said why, and whoever asks fails that host."""
    program = Program.of(target)
    known = {**arguments, "program": program.path, "program_config": program.config}
    return cast("dict[str, Any] | None", get_fact(target.state, target, fact, kwargs=known, apply_failed_hosts=False))


class Sets(FactBase[dict[str, Any]]):
    """
    The backup sets of a stack, oldest first: the whole document of `storekeeper list STACK --json`.

    A host whose sets cannot be read fails; it is never one without sets.

    **Example:**

    .. code:: python

        found = host.get_fact(Sets, stack="maestro")
        newest = found["result"]["sets"][-1]["id"]
    """

    def command(self, stack: str, program: str = PROGRAM, program_config: str = CONFIG) -> str:
        return asked(Program(program, program_config), ("list", value("stack", stack)))

    def process(self, output: list[str]) -> dict[str, Any]:
        found, *more = answers(output, accepted=(0, 4))
        if more or found["verb"] != "list":
            raise FactProcessError("the host program answered another question")
        return found


class Overview(FactBase[dict[str, Any]]):
    """
    The state of all stacks of a host (`status`) and the sets of those named (`list`), in one round trip.

    Attention (4) and unknown (3) are answers too, and a stack whose sets cannot be read has a document that says why.
    Gives `{"status": DOCUMENT, "sets": {STACK: DOCUMENT}}`.

    **Example:**

    .. code:: python

        overview = host.get_fact(Overview, stacks=["maestro", "mem0"])
    """

    def command(self, stacks: Sequence[str], program: str = PROGRAM, program_config: str = CONFIG) -> str:
        lists = [("list", value("stack", stack)) for stack in stacks]
        return asked(Program(program, program_config), ("status",), *lists)

    def process(self, output: list[str]) -> dict[str, Any]:
        status, *lists = answers(output, accepted=_ANSWERS)
        if status["result"] is None:
            raise FactProcessError(reasons(status) or "the host program knows no state")
        return {"status": status, "sets": {document["stack"]: document for document in lists}}

"""Facts about the backup sets of a host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from ..program import CONFIG, PROGRAM, Program

_END = "storekeeper-end:"


def asked(program: str, config: str, *words: str) -> str:
    """The shell words that ask a verb for its document and mark its end with the exit code."""
    typed = " ".join(shlex.quote(word) for word in Program(program, config).words(*words))
    return f"{typed}; printf '\\n{_END}%s\\n' $?"


def answers(output: list[str], accepted: tuple[int, ...]) -> list[dict[str, Any]]:
    """The documents of an output, each closed by its end marker. Raises FactProcessError for anything cut off, refused or failed."""
    documents, lines = [], []
    for line in output:
        if not line.startswith(_END):
            lines.append(line)
            continue
        documents.append(_document("\n".join(lines), line.removeprefix(_END), accepted))
        lines = []
    if lines or not documents:
        raise FactProcessError("the answer of the host program was cut off")
    return documents


def _document(text: str, code: str, accepted: tuple[int, ...]) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FactProcessError(f"the host program did not answer with a document (it ended with {code})") from error
    if not isinstance(document, dict) or not code.isdigit() or int(code) not in accepted:
        problems = document.get("problems", []) if isinstance(document, dict) else []
        said = "; ".join(str(problem.get("message")) for problem in problems)
        raise FactProcessError(said or f"the host program ended with {code}")
    return document


class Sets(FactBase[dict[str, Any]]):
    """
    The backup sets of a stack, oldest first, as `storekeeper list STACK --json` gives them under `result`.

    **Example:**

    .. code:: python

        found = host.get_fact(Sets, stack="maestro")
        newest = found["result"]["sets"][-1]["id"]
    """

    def command(self, stack: str, program: str = PROGRAM, program_config: str = CONFIG) -> str:
        return asked(program, program_config, "list", stack)

    def process(self, output: list[str]) -> dict[str, Any]:
        return answers(output, accepted=(0, 4))[0]


class Overview(FactBase[dict[str, Any]]):
    """
    The state of all stacks of a host (`status`) and the sets of those named (`list`), in one round trip.

    Attention (4) and unknown (3) are answers too. Gives `{"status": DOCUMENT, "sets": {STACK: DOCUMENT}}`.

    **Example:**

    .. code:: python

        overview = host.get_fact(Overview, stacks=["maestro", "mem0"])
    """

    def command(self, stacks: Sequence[str], program: str = PROGRAM, program_config: str = CONFIG) -> str:
        questions = [asked(program, program_config, "status")]
        questions += [asked(program, program_config, "list", stack) for stack in stacks]
        return "; ".join(questions)

    def process(self, output: list[str]) -> dict[str, Any]:
        status, *lists = answers(output, accepted=(0, 3, 4))
        return {"status": status, "sets": {document["stack"]: document for document in lists}}

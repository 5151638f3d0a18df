"""Facts that the named queries of a stack file find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from ..program import CONFIG, PROGRAM, Program
from ..queries import typed
from .sets import answers, asked


class Answer(FactBase[dict[str, Any]]):
    """
    What a named query of a stack finds now: the whole document of `storekeeper query --json`, whose `result` has `columns` and `rows`.

    **Example:**

    .. code:: python

        found = host.get_fact(Answer, stack="maestro", query="documents_by_status")
        states = {row[0]: row[1] for row in found["result"]["rows"]}
    """

    def command(
        self,
        stack: str,
        query: str,
        values: Sequence[str] = (),
        limit: int | None = None,
        program: str = PROGRAM,
        program_config: str = CONFIG,
    ) -> str:
        return asked(Program(program, program_config), ["query", *typed(stack, query, values, limit)])

    def process(self, output: list[str]) -> dict[str, Any]:
        found, *more = answers(output, accepted=(0,))
        if more or found["verb"] != "query":
            raise FactProcessError("the host program answered another question")
        return found

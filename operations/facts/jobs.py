"""Facts about the runs of a host."""

from __future__ import annotations

from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from ..program import CONFIG, PROGRAM, Program, value
from .sets import answers, asked


class Jobs(FactBase[dict[str, Any]]):
    """
    The running and past runs of a host, or of one stack of it, oldest first: the whole document of `storekeeper jobs --json`.

    **Example:**

    .. code:: python

        found = host.get_fact(Jobs, stack="maestro")
        running = [run for run in found["result"]["jobs"] if run["outcome"] is None]
    """

    def command(self, stack: str | None = None, program: str = PROGRAM, program_config: str = CONFIG) -> str:
        words = ("jobs",) if stack is None else ("jobs", value("stack", stack))
        return asked(Program(program, program_config), words)

    def process(self, output: list[str]) -> dict[str, Any]:
        found, *more = answers(output, accepted=(0,))
        if more or found["verb"] != "jobs":
            raise FactProcessError("the host program answered another question")
        return found

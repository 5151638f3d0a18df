"""Ask the named queries of a stack file, and print what they find. Nothing is changed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, OperationValueError, State, operation
from pyinfra.connectors.util import CommandOutput

from storekeeper.cli.render import asked
from storekeeper.cli.render.layout import Paint

from .program import Verb, one_line, value, word


@operation(is_idempotent=False)
def ask(stack: str, query: str | None = None, values: Sequence[str] = (), limit: int | None = None) -> Generator[Verb, None, None]:
    """
    Print what a named query finds, or which queries the stack declares.

    + stack: the stack's name
    + query: the query's name; all are listed when not given
    + values: its values, in the order that it names them
    + limit: at most so many rows, and never more than the query declares

    **Example:**

    .. code:: python

        queries.ask(name="Who was here last", stack="maestro", query="recent_chats", limit=5)
    """
    yield _Asked("query", *typed(stack, query, values, limit))


def typed(stack: str, query: str | None, values: Sequence[str], limit: int | None) -> list[str]:
    """What is typed after `query`; values stand behind `--`, so that none can be an option. Raises OperationValueError."""
    if isinstance(values, str):
        raise OperationValueError("values are a list of words, and no word")
    words = [value("stack", stack), *([] if query is None else [value("query", query)])]
    if limit is not None:
        words += ["--limit", str(int(limit))]
    return [*words, *(["--", *(word("a value", each) for each in values)] if values else [])]


class _Asked(Verb):
    """`query`, with its rows printed."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        if done and self.document["result"] is not None:
            for line in asked.query(dict(self.document), Paint())[1:]:
                host.log(one_line(line), log_func=logger.info)
        return done, output

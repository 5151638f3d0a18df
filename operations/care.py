"""Look inside the stores of a stack, find a document in its sets, and make a damaged SQLite database anew of what is left of it.

Each operation is one verb of the host program, whose text is printed. A value that could be read as an option raises OperationValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, OperationValueError, State, operation
from pyinfra.connectors.util import CommandOutput

from storekeeper.cli.document import Document
from storekeeper.cli.render import asked, sets
from storekeeper.cli.render import recover as recovered
from storekeeper.cli.render.layout import Paint

from .program import JobVerb, Verb, one_line, parse_document, value

Text = Callable[[Document, Paint], list[str]]


@operation(is_idempotent=False)
def examine(stack: str, store: str | None = None) -> Generator[JobVerb, None, None]:
    """
    Look inside the stores for damage, missing indexes and who holds locks. What is wrong is a warning: the host fails only where something
    could not be looked at.

    + stack: the stack's name
    + store: only this store

    **Example:**

    .. code:: python

        care.examine(name="Is maestro whole", stack="maestro")
    """
    yield _ToldJob(asked.examine, "examine", value("stack", stack), *([] if store is None else ["--store", value("store", store)]))


@operation(is_idempotent=False)
def history(stack: str, document: str, rule: str | None = None) -> Generator[Verb, None, None]:
    """
    Print in which sets a document is whole.

    + stack: the stack's name
    + document: the document's id
    + rule: only under this rule

    **Example:**

    .. code:: python

        care.history(name="Where is 4711", stack="maestro", document="4711")
    """
    words = [value("stack", stack), value("document", document)]
    yield _Told(sets.history, "history", *words, *([] if rule is None else ["--rule", value("rule", rule)]))


@operation(is_idempotent=False)
def recover(
    stack: str, store: str, nobody_uses: Sequence[str] = (), no_owners: Sequence[str] = (), confirm: str | None = None
) -> Generator[Verb | JobVerb, None, None]:
    """
    Make a damaged SQLite store anew of all that can be read of it; ``sets.restore(back=True)`` returns to the damaged file.

    + stack: the stack's name
    + store: the damaged store
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to make anew without the owners of their files
    + confirm: ``STACK@HOST``; where it is left out, only the plan is shown

    **Example:**

    .. code:: python

        care.recover(name="Rescue main", stack="maestro", store="main", confirm="maestro@prod-ai-1")
    """
    words = recover_words(stack, store, nobody_uses, no_owners, confirm)
    yield Verb("recover", *words) if confirm is None else _ToldJob(recovered.recover, "recover", *words)


def recover_words(stack: str, store: str, nobody_uses: Sequence[str], no_owners: Sequence[str], confirm: str | None) -> list[str]:
    """What is typed after `recover`: a plan unless it is confirmed. Raises OperationValueError for what cannot be meant."""
    words = [value("stack", stack), "--store", value("store", store)]
    for option, stores in {"--nobody-uses": nobody_uses, "--no-owners": no_owners}.items():
        if isinstance(stores, str):
            raise OperationValueError(f"{option} takes a list of stores, found the text {stores!r}")
        words += [word for each in stores for word in (option, value(option, each))]
    return [*words, "--plan"] if confirm is None else [*words, "--confirm", value("confirm", confirm)]


class _Told(Verb):
    """A verb whose text is printed, but for its first line, which says what is said anyway."""

    def __init__(self, text: Text, verb: str, *words: str) -> None:
        super().__init__(verb, *words)
        self._text = text

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        if done:
            _print(host, self._text, dict(self.document))
        return done, output


class _ToldJob(JobVerb):
    """The same of a job."""

    def __init__(self, text: Text, verb: str, *words: str) -> None:
        super().__init__(verb, *words)
        self._text = text

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        document = parse_document(output.stdout_lines)
        if document is not None:
            _print(host, self._text, document)
        return done, output


def _print(host: Host, text: Text, document: Any) -> None:
    if document["result"] is not None:
        for line in filter(None, text(document, Paint())[1:]):
            host.log(one_line(line), log_func=logger.info)

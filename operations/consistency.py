"""Compare what the stores of a host's stacks hold of each document, by the rules of their stack files, and repair what may be removed.

Each operation is one verb of the host program. A place that could not be read fails its own host and leaves the others alone: nothing is
known of it. A value that could be read as an option raises OperationValueError.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, State, operation
from pyinfra.connectors.util import CommandOutput

from .facts.sets import reasons
from .program import JobVerb, Verb, one_line, parse_document, say, value

_MOST_TOLD = 20  # findings of one look: the host has the rest
_LONGEST = 60  # signs of an id or a place in a line


@operation(is_idempotent=False)
def check(stack: str, rule: str | None = None, document: str | None = None, owner: str | None = None) -> Generator[JobVerb, None, None]:
    """
    Look at the rules of a stack, and tell what disagrees. That is a warning: the host fails only where a place could not be read.

    + stack: the stack's name
    + rule: only this rule; all when not given
    + document: tell only of the document with this id; such a look is not remembered
    + owner: tell only of documents of the owner with this id; likewise

    **Example:**

    .. code:: python

        consistency.check(name="Do the stores of maestro agree", stack="maestro")
    """
    given = {"rule": rule, "document": document, "owner": owner}
    words = [word for name, wanted in given.items() if wanted is not None for word in (f"--{name}", value(name, wanted))]
    yield _Look("check", value("stack", stack), *words)


@operation(is_idempotent=False)
def clean(stack: str) -> Generator[JobVerb, None, None]:
    """
    Have stores that agree: look at all rules of a stack, and fail the host where anything disagrees, or could not be read.

    What the application is working on is no disagreement. What the program only warns of, such as entries without an id, fails too.

    + stack: the stack's name

    **Example:**

    .. code:: python

        consistency.clean(name="The stores of maestro agree", stack="maestro")
    """
    yield _Agreement("check", value("stack", stack))


@operation(is_idempotent=False)
def plan(
    stack: str, rule: str | None = None, document: str | None = None, owner: str | None = None, at_once: bool = False
) -> Generator[Verb, None, None]:
    """
    Write down on the host what may be removed of what disagrees, and print it. Nothing is removed.

    + stack: the stack's name
    + rule: only this rule; all when not given
    + document: only the document with this id
    + owner: only documents of the owner with this id
    + at_once: also what was seen for the first time less than the rule's grace ago

    **Example:**

    .. code:: python

        consistency.plan(name="What may be cleaned up", stack="maestro")
    """
    given = {"rule": rule, "document": document, "owner": owner}
    words = [word for name, wanted in given.items() if wanted is not None for word in (f"--{name}", value(name, wanted))]
    yield Verb("repair", "plan", value("stack", stack), *words, *(["--at-once"] if at_once else []))


@operation(is_idempotent=False)
def apply(stack: str, plan: str, confirm: str, limit: int | None = None) -> Generator[JobVerb, None, None]:
    """
    Remove what a plan says, after another look at each document, and with all of it kept.

    + stack: the stack's name
    + plan: the plan's id, which ends with digits of its sha256: no other plan can be meant
    + confirm: ``STACK@HOST``
    + limit: so many documents of a rule, where its brake lets fewer through

    **Example:**

    .. code:: python

        consistency.apply(name="Clean up", stack="maestro", plan="20260101T030000Z-0123456789ab", confirm="maestro@prod-ai-1")
    """
    words = ["--confirm", value("confirm", confirm), *(["--limit", str(limit)] if limit is not None else [])]
    yield JobVerb("repair", "apply", value("stack", stack), value("plan", plan), *words)


@operation(is_idempotent=False)
def reingest(stack: str, plan: str, confirm: str, limit: int | None = None) -> Generator[JobVerb, None, None]:
    """
    Have the application take in again what a plan says is missing, by the command that the rule declares for that.

    What is missing still when the command has ended is a warning; the host fails where the command does.

    + stack: the stack's name
    + plan: the plan's id, which ends with digits of its sha256: no other plan can be meant
    + confirm: ``STACK@HOST``
    + limit: so many documents of a rule, where its brake lets fewer through

    **Example:**

    .. code:: python

        consistency.reingest(name="Take in again", stack="maestro", plan="20260101T030000Z-0123456789ab", confirm="maestro@prod-ai-1")
    """
    words = ["--confirm", value("confirm", confirm), *(["--limit", str(limit)] if limit is not None else [])]
    yield JobVerb("repair", "reingest", value("stack", stack), value("plan", plan), *words)


@operation(is_idempotent=False)
def undo(stack: str, plan: str, confirm: str) -> Generator[JobVerb, None, None]:
    """
    Put back all that a plan has removed, but for what the application has made anew meanwhile.

    + stack: the stack's name
    + plan: the plan's id
    + confirm: ``STACK@HOST``

    **Example:**

    .. code:: python

        consistency.undo(name="Take it back", stack="maestro", plan="20260101T030000Z-0123456789ab", confirm="maestro@prod-ai-1")
    """
    yield JobVerb("repair", "undo", value("stack", stack), value("plan", plan), "--confirm", value("confirm", confirm))


class _Look(JobVerb):
    """`check`, with the first of what was found printed."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        document = parse_document(output.stdout_lines)
        if document is not None and document["result"] is not None:
            for line in told(document):
                host.log(one_line(f"  {line}"), log_func=logger.info)
        return done, output


class _Agreement(_Look):
    """The same, where a look that ended with warnings is no success."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        document = parse_document(output.stdout_lines)
        if done and (document is None or document["outcome"] != "ok"):
            return say(state, host, _refusal(document)), output
        return done, output


def told(document: dict[str, Any]) -> Iterator[str]:
    """A line for each of the first findings of a look, and how many there are beyond."""
    rules = document["result"]["rules"]
    found = list(chain.from_iterable(rule["findings"] for rule in rules.values()))
    for each in found[:_MOST_TOLD]:
        since = f", since {each['since'][:19]}Z" if each["since"] else ""
        yield f"{each['class']}: {_short(each['document'])} in {_short(each['place'])}{since}: {each['detail']}"
    more = len(found[_MOST_TOLD:]) + sum(rule["left_out"] for rule in rules.values())
    if more:
        yield f"and {more:,} more"


def _refusal(document: dict[str, Any] | None) -> str:
    """What disagrees, in one sentence."""
    if document is None:
        return "what the stores hold is not known, so nothing says that they agree"
    counts = {name: _counted(rule["counts"]) for name, rule in document["result"]["rules"].items()}
    disagreeing = [f"{name}: {said}" for name, said in counts.items() if said]
    if disagreeing:
        return f"the stores of {document['stack']} disagree: {'; '.join(disagreeing)}"
    return f"nothing says that the stores of {document['stack']} agree: {reasons(document)}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count and kind != "in_flight")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

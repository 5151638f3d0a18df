"""query: what a declared query finds in its store now, or which queries a stack declares. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storekeeper.outcomes import Refused, StorekeeperError
from storekeeper.stack.mistakes import suggestion
from storekeeper.stack.model import Stack
from storekeeper.stack.queries import NamedQuery
from storekeeper.stores.protocol import Store
from storekeeper.stores.questions import Question
from storekeeper.verbs.report import Report

_LONGEST = 100_000  # signs of one argument


def list_queries(stack: Stack) -> Report:
    """The queries that a stack declares."""
    return Report({"queries": [_described(name, each) for name, each in stack.queries.items()]})


def chosen(stack: Stack, name: str) -> NamedQuery:
    """Raises Refused where the stack declares no such query."""
    if name not in stack.queries:
        near = suggestion(name, list(stack.queries))
        known = f"there are {', '.join(stack.queries)}" if stack.queries else "the stack declares none"
        raise Refused(
            f"there is no query {name[:60]!r}; {known}",
            next=f"storekeeper query {stack.stack} {near}" if near else "declare it in `queries:` of the stack file",
        )
    return stack.queries[name]


def query(stack: Stack, name: str, store: Store, values: Sequence[str], limit: int | None) -> Report:
    """Ask a declared query, with its values in their order. Raises Refused for the wrong number of values, for one that is no text, and for
    a limit beyond the declared one; and what the store raises.
    """
    declared = chosen(stack, name)
    usage = " ".join([f"storekeeper query {stack.stack} {name}", *(each.upper() for each in declared.arguments)])
    if len(values) != len(declared.arguments):
        wanted = ", ".join(declared.arguments) or "none"
        raise Refused(f"{name} takes {len(declared.arguments)} values ({wanted}), {len(values)} were given", next=usage)
    if limit is not None and not 1 <= limit <= declared.limit:
        raise Refused(f"{name} answers 1 to {declared.limit} rows, as the stack file says, and not {limit}", next=usage)
    for argument, value in zip(declared.arguments, values, strict=True):
        _refuse_what_is_no_text(argument, value)
    bound = dict(zip(declared.arguments, values, strict=True))
    try:
        found = store.answer(Question(declared.query, bound, limit or declared.limit))
    except StorekeeperError as error:
        raise error.about(declared.store) from None
    return Report({"query": name, "store": declared.store, "columns": list(found.columns), "rows": found.rows, "more": found.more})


def _refuse_what_is_no_text(argument: str, value: str) -> None:
    if len(value) > _LONGEST:
        raise Refused(f"{argument} has {len(value)} signs, at most {_LONGEST} are taken")
    if "\0" in value or any(0xD800 <= ord(sign) <= 0xDFFF for sign in value):
        raise Refused(f"{argument} is no text: it holds a NUL, or bytes that are no UTF-8")


def _described(name: str, declared: NamedQuery) -> dict[str, Any]:
    return {
        "name": name,
        "store": declared.store,
        "arguments": list(declared.arguments),
        "limit": declared.limit,
        "description": declared.description,
    }

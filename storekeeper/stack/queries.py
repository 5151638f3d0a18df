"""The named queries of a stack: what may be asked of a store by its name, with values that are bound and never pasted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from storekeeper.stack.mistakes import quoted
from storekeeper.stack.rules import Mistaken, Query, RuleName
from storekeeper.stack.types import Declared, Matching, StoreName, expected

MOST_ROWS = 10_000
ASKABLE = ("postgresql", "sqlite")
QueryName = RuleName
ArgumentName = RuleName
# What a query is made of, as far as it matters for finding `:name`: texts, quoted names, comments and casts are none.
_PIECE = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | :: | :(?P<name>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)
_WRITES = re.compile(r"\b(insert\s+into|delete\s+from|merge\s+into|update\s+\S+\s+set)\b", re.IGNORECASE)


def placeholders(query: str) -> list[str]:
    """The names that stand in a query as `:name`, each once, in their order."""
    return list(dict.fromkeys(found["name"] for found in _PIECE.finditer(query) if found["name"] is not None))


def numbered(query: str) -> tuple[str, list[str]]:
    """The query with `$1` for each `:name`, as PostgreSQL takes them, and the names in the order of these numbers."""
    names = placeholders(query)
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return _PIECE.sub(lambda found: numbers[found["name"]] if found["name"] is not None else found[0], query), names


def reads(text: str) -> str:
    """That it can do nothing else is the connection's work; this finds early what was meant otherwise."""
    if found := _WRITES.search(_PIECE.sub(" ", text)):
        raise expected(f"a query that reads; this one says {' '.join(found[0].split()).lower()}")
    return text


class NamedQuery(Declared):
    """One select that may be asked for by name. Its values stand in it as `:name`."""

    store: Annotated[StoreName, Field(description="the store that is asked, PostgreSQL or SQLite")]
    query: Annotated[
        Annotated[Query, AfterValidator(reads)],
        Field(description="one select; a value stands in it as `:name`, bound as text: `cast(:name as integer)` makes a number of it"),
    ]
    arguments: Annotated[
        tuple[ArgumentName, ...], Field(max_length=20, description="the names of its values, in the order they are typed")
    ] = ()
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS, description="at most so many rows are answered, whatever is asked for")] = 100
    description: Annotated[
        Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,200}", "one line of at most 200 signs")] | None, Field(description="what it is for")
    ] = None


def contradictions(queries: Mapping[str, NamedQuery], kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    """What no query may say of stores of these kinds: the path inside `queries`, and a sentence."""
    for name, each in queries.items():
        yield from (((name, *path), sentence) for path, sentence in wrong_store(each.store, kinds))
        if len(each.arguments) != len(set(each.arguments)):
            yield (name, "arguments"), "an argument stands twice"
        named = placeholders(each.query)
        if missing := [argument for argument in each.arguments if argument not in named]:
            yield (name, "arguments"), f"the query has no :{missing[0]}"
        if unknown := [placeholder for placeholder in named if placeholder not in each.arguments]:
            yield (name, "query"), f"{quoted(':' + unknown[0])} is none of its `arguments`"


def wrong_store(store: str, kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    """That a store is not there, or answers no query."""
    kind = kinds.get(store)
    if kind is None:
        yield ("store",), f'there is no store "{store}"'
    elif kind not in ASKABLE:
        yield ("store",), f"{store} is a {kind} store, which answers no query"

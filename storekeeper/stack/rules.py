"""The rules of a stack: which store says which documents exist, which stores must follow it, and what may be repaired by itself.

A *place* is where a store holds something of documents: the rows of a query, a collection, the entries that a pattern matches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import chain
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from storekeeper.stack import commands
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.mistakes import quoted
from storekeeper.stack.types import Declared, Duration, InnerPath, Matching, StoreName, expected

AuthorityColumn = Literal["id", "owner", "state", "at", "chunks"]
ReplicaColumn = Literal["id", "owner", "chunks"]
Removable = Literal["orphan", "leftover"]

ID, OWNER = "{id}", "{owner}"
_WILD = re.compile(r"[*?]")
_SELECTS = re.compile(r"\s*\(*\s*(select|with|values)\b", re.IGNORECASE)
_MOST_REPLICAS = 20
Mistaken = tuple[tuple[str | int, ...], str]


def _query(text: str) -> str:
    """One statement that reads. That it can do nothing else is the connection's work; this finds what was meant otherwise."""
    if not _SELECTS.match(text) or ";" in text or "\0" in text or len(text) > 4000:
        raise expected("one select without a semicolon, of at most 4000 characters")
    return text


def _pattern(text: str) -> str:
    if text.count(ID) != 1 or text.count(OWNER) > 1 or "**" in text:
        raise expected("a path with one {id}, at most one {owner}, and * or ? within a name")
    for name in text.split("/"):
        if re.search(r"(\{id\}|\{owner\}|\*|\?)(\{id\}|\{owner\})|(\{id\}|\{owner\})[*?]", name):
            raise expected("a sign between {id} and what else may be anything, such as {id}_*")
        if re.search(r"[{}\[\]]", name.replace(ID, "").replace(OWNER, "")):
            raise expected("no other braces or brackets than those of {id} and {owner}")
    return text


Query = Annotated[str, AfterValidator(_query)]
Pattern = Annotated[InnerPath, AfterValidator(_pattern)]
Name = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,200}", "a name without control characters, at most 200")]
TableName = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,200}", "a table's name, or schema.name")]
RuleName = Annotated[str, Matching(r"[a-z][a-z0-9_]{0,39}", "a name (a-z, 0-9, _, a letter first, at most 40)")]
Word = Annotated[str, Matching(r"[^\x00]{1,4000}", "a word without NUL")]


class Rows(Declared):
    """The rows of one table that belong to a document."""

    table: Annotated[TableName, Field(description="the table; in PostgreSQL also `schema.table`")]
    key: Annotated[Name, Field(description="the column that holds the document's id, or, with `of`, what `to` holds there")]
    of: Annotated[TableName | None, Field(description="a table that stands before this one, whose rows these belong to")] = None
    to: Annotated[Name | None, Field(description="the column of `of` that `key` refers to")] = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Rows:
        if (self.of is None) != (self.to is None):
            raise ValueError("`of` and `to` stand together, or neither does")
        return self


class Place(Declared):
    """Where a store holds something of documents: exactly one of `query` or `rows`, `collections` with `key`, and `pattern`."""

    store: Annotated[StoreName, Field(description="the store")]
    query: Annotated[
        Query | None, Field(description="PostgreSQL, SQLite: one select, a row for each document; `columns` says what its columns are")
    ] = None
    rows: Annotated[
        tuple[Rows, ...],
        Field(
            description="PostgreSQL, SQLite: which rows are a document's, those that refer to others after these; "
            "without it nothing is repaired there"
        ),
    ] = ()
    collections: Annotated[tuple[Name, ...], Field(description="Chroma: collections that each hold chunks of every document")] = ()
    key: Annotated[Name | None, Field(description="Chroma: the metadata key that holds the document's id")] = None
    owner: Annotated[Name | None, Field(description="Chroma: the metadata key that holds the owner's id")] = None
    pattern: Annotated[
        Pattern | None, Field(description="files: a path below the root, such as `pdfs/{id}_*`; `{owner}` may stand in it too")
    ] = None


class Authority(Place):
    """The place that says which documents exist, and whose they are."""

    columns: Annotated[
        tuple[AuthorityColumn, ...],
        Field(description="what the columns of `query` are, in their order; `chunks` is how many a complete document has"),
    ] = ("id", "owner", "state", "at")


class Replica(Place):
    """A place that must hold something of every complete document, unless it is `optional`, and of no other."""

    columns: Annotated[
        tuple[ReplicaColumn, ...], Field(description="what the columns of `query` are; `chunks` is how many the place holds")
    ] = ("id",)
    optional: Annotated[
        bool, Field(description="whether a complete document may have nothing there; what is there is compared all the same")
    ] = False


class States(Declared):
    """What the authority's words for states mean. A word that stands nowhere counts as in flight, and is said."""

    complete: Annotated[tuple[Word, ...], Field(min_length=1, description="documents that must be everywhere")]
    failed: Annotated[tuple[Word, ...], Field(description="documents of which nothing should be left in replicas")] = ()
    in_flight: Annotated[tuple[Word, ...], Field(description="documents that are being worked on, and are never reported")] = ()

    @model_validator(mode="after")
    def _each_once(self) -> States:
        words = [*self.complete, *self.failed, *self.in_flight]
        again = next((word for number, word in enumerate(words) if word in words[:number]), None)
        if again is not None:
            raise ValueError(f"the state {quoted(again)} stands twice, and can mean one thing only")
        return self


class Brake(Declared):
    """Beyond which a repair asks first: the smaller of the two."""

    percent: Annotated[float, Field(ge=0, le=100, description="of the authority's documents")] = 1.0
    documents: Annotated[int, Field(ge=0, le=1_000_000_000, description="documents")] = 100


class Reingest(DeclaredCommand):
    """A command by which the application takes documents in again. Which, it reads from its standard input."""

    input: Annotated[
        Literal["lines", "ids"],
        Field(description="what it reads: `lines`, one of JSON for each document as in `reingest.jsonl`, or `ids`, one a line"),
    ] = "lines"


class Rule(Declared):
    """One kind of document, the place that says which there are, and those that must follow."""

    authority: Annotated[Authority, Field(description="the place that says which documents exist")]
    replicas: Annotated[tuple[Replica, ...], Field(min_length=1, max_length=_MOST_REPLICAS, description="the places that must follow")]
    states: Annotated[States | None, Field(description="what the authority's `state` means; every document is complete without it")] = None
    grace: Annotated[Duration, Field(description="how long a disagreement must have lasted before it may be repaired")] = timedelta(
        hours=24
    )
    brake: Annotated[Brake, Field(description="beyond which a repair asks first")] = Brake()
    reingest: Annotated[
        Reingest | None, Field(description="has the application take in again what is missing: `repair reingest` runs it")
    ] = None
    automatic: Annotated[
        tuple[Removable, ...],
        Field(description="what `check --repair-declared` removes without being asked, within grace and brake; nothing when left out"),
    ] = ()

    @property
    def digest(self) -> str:
        """What it says of stores, as one word: what was seen under another rule of the same name tells nothing of this one."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True, exclude={"automatic", "reingest"}).encode()).hexdigest()

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that must follow, each once."""
        return tuple(dict.fromkeys(each.store for each in self.replicas))


def places_of(rule: Rule) -> Iterator[tuple[tuple[str | int, ...], Authority | Replica]]:
    """Every place of a rule, with its path in the file."""
    return chain([(("authority",), rule.authority)], ((("replicas", number), each) for number, each in enumerate(rule.replicas)))


_FORMS: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("query", "rows", "columns"),
    "sqlite": ("query", "rows", "columns"),
    "chroma": ("collections", "key", "owner"),
    "files": ("pattern",),
}
_NEEDED: Mapping[str, str] = {
    "postgresql": "`query` or `rows`",
    "sqlite": "`query` or `rows`",
    "chroma": "`collections` and `key`",
    "files": "`pattern`",
}


def contradictions(rules: Mapping[str, Rule], kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    """What no rule may say of stores of these kinds: the path inside `consistency`, and a sentence."""
    for name, rule in rules.items():
        for path, place in places_of(rule):
            for where, sentence in _of_place(place, kinds):
                yield (name, *path, *where), sentence
        yield from (((name, *where), sentence) for where, sentence in _of_states(rule))
        if rule.reingest is not None:
            yield from (((name, "reingest", *where), sentence) for where, sentence in commands.mistakes(rule.reingest, list(kinds)))


def _of_place(place: Authority | Replica, kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    kind = kinds.get(place.store)
    if kind is None:
        yield ("store",), f'there is no store "{place.store}"'
        return
    for key in sorted(set(chain.from_iterable(_FORMS.values())) - set(_FORMS[kind])):
        if key in place.model_fields_set:
            yield (key,), f"{place.store} is a {kind} store, whose places are named by {_NEEDED[kind]}"
            return
    is_whole = {
        "chroma": bool(place.collections) and place.key is not None,
        "files": place.pattern is not None,
    }.get(kind, place.query is not None or bool(place.rows))
    if not is_whole:
        yield (), f"{place.store} is a {kind} store: declare {_NEEDED[kind]}"
        return
    if isinstance(place, Authority) and len(place.collections) > 1:
        yield ("collections",), "an authority is one collection"
    elif len(place.collections) != len(set(place.collections)):
        again = next(name for number, name in enumerate(place.collections) if name in place.collections[:number])
        yield ("collections",), f"the collection {quoted(again)} stands twice"
    yield from _of_columns(place)
    yield from _of_rows(place)


def _of_columns(place: Authority | Replica) -> Iterator[Mistaken]:
    if place.columns[:1] != ("id",) or len(place.columns) != len(set(place.columns)):
        yield ("columns",), f"expected id first, then each of {', '.join(_columns_of(place)[1:])} at most once"
    elif place.query is None and "columns" in place.model_fields_set:
        yield ("columns",), "there is no `query` whose columns they could be"


def _columns_of(place: Authority | Replica) -> tuple[str, ...]:
    return get_args(AuthorityColumn if isinstance(place, Authority) else ReplicaColumn)


def _of_rows(place: Authority | Replica) -> Iterator[Mistaken]:
    above: set[str] = set()
    for number, rows in enumerate(place.rows):
        if number == 0 and rows.of is not None:
            yield ("rows", number), "the first table holds the document itself, and belongs to no other"
        elif rows.of is not None and rows.of not in above:
            yield ("rows", number, "of"), f"expected a table that stands before it, found {quoted(rows.of)}"
        above.add(rows.table)


def _of_states(rule: Rule) -> Iterator[Mistaken]:
    has_states = rule.authority.query is not None and "state" in rule.authority.columns
    if rule.states is not None and not has_states:
        yield ("states",), "the authority has no column `state` that they could explain"

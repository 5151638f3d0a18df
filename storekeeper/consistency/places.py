"""The places of a rule: where each store holds something of documents, and how that is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from storekeeper.stack.rules import Authority, Replica, Rows, Rule
from storekeeper.stores.identities import CollectionSource, PatternSource, RowsSource, Source, SqlSource


@dataclass(frozen=True)
class Place:
    """`replica` is the number of the declaration that it comes from, several collections have one; None for the authority.

    `label` is its name within the store. `counts` says that what it tells as a count is a number of chunks, as the authority's is.
    """

    store: str
    source: Source
    replica: int | None
    counts: bool
    label: str
    optional: bool = False  # a complete document may have nothing there

    @cached_property
    def name(self) -> str:
        """`vectors/research_papers_dense`."""
        return f"{self.store}/{self.label}"


def authority_of(rule: Rule) -> Place:
    return next(_expanded(rule.authority, None))


def replicas_of(rule: Rule) -> tuple[Place, ...]:
    """All places that must follow; a declaration of several collections stands for as many places."""
    return places_of(rule)[1:]


def places_of(rule: Rule) -> tuple[Place, ...]:
    """The authority, then the replicas: their numbers name what is kept of them, and no two have one name."""
    authority = authority_of(rule)
    named = {authority.name: authority}
    declared = ((each, place) for number, each in enumerate(rule.replicas) for place in _expanded(each, number))
    for place in (replace(place, optional=each.optional) for each, place in declared):
        labels = (place.label, *(f"{place.label} {number}" for number in range(2, len(named) + 2)))  # the first that is free
        own = next(each for each in (replace(place, label=label) for label in labels) if each.name not in named)
        named[own.name] = own
    return tuple(named.values())


def rows_of(rule: Rule, place: Place) -> tuple[Rows, ...]:
    """The rows of a document that its declaration names; empty where there are none to name, or none are named."""
    declared = rule.authority if place.replica is None else rule.replicas[place.replica]
    return declared.rows


def can_mend(rule: Rule, place: Place) -> bool:
    """Whether it is declared what of a document stands there: a query alone cannot say what to remove."""
    return not isinstance(place.source, SqlSource | RowsSource) or bool(rows_of(rule, place))


def _expanded(declared: Authority | Replica, replica: int | None) -> Iterator[Place]:
    if declared.pattern is not None:
        yield _place(declared.store, PatternSource(declared.pattern), replica, counts=False)
    elif declared.query is not None:
        exact = "columns" in declared.model_fields_set
        source = SqlSource(declared.query, tuple(declared.columns), exact)
        place = _place(declared.store, source, replica, counts="chunks" in declared.columns)
        yield replace(place, label=declared.rows[0].table) if declared.rows else place
    elif declared.rows:
        yield _place(declared.store, RowsSource(declared.rows[0].table, declared.rows[0].key), replica, counts=False)
    for collection in declared.collections:
        yield _place(declared.store, CollectionSource(collection, str(declared.key), declared.owner), replica, counts=True)


def _place(store: str, source: Source, replica: int | None, *, counts: bool) -> Place:
    return Place(store, source, replica, counts, source.label)

"""What agrees at a glance is counted by SQLite: whatever else there is comes out as if every document had been compared by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeeper.consistency.clearing import Clearing
from storekeeper.consistency.comparison import Comparison, Stream, Tally
from storekeeper.consistency.findings import Finding
from storekeeper.consistency.places import Place
from storekeeper.outcomes import Unknown
from storekeeper.stack.rules import States
from storekeeper.stores.identities import Identity, Sorted
from tests.unit.test_comparison import AUTHORITY, DENSE, FILES, GRACE, LATELY, LONG_AGO, NOW, ROWS, SPARSE, STATES, done

PLACES = (ROWS, DENSE, SPARSE, FILES)
Outcome = tuple[list[Finding], Tally, datetime | None] | str


def outcome(work: Path, streams: Sequence[Stream], states: States | None, *, clearing: bool) -> Outcome:
    """What comes out of a comparison: of all documents, or of those that are left by a clearing."""
    comparison = Comparison(states, GRACE, NOW)
    authority, *replicas = streams
    cleared = Clearing(work / "odd", states, authority, replicas) if clearing else None
    try:
        found = list(comparison.findings(*(cleared.doubtful() if cleared else (authority, replicas))))
    except Unknown as error:
        return str(error)
    if cleared:
        comparison.tally.add(cleared.tally)
    tally = replace(comparison.tally, held=+comparison.tally.held, chunks=+comparison.tally.chunks)
    return found, tally, comparison.until


def opened(stack: ExitStack, work: Path, held: Sequence[tuple[Place, Sequence[Identity]]], ends: Sequence[str] = ()) -> list[Stream]:
    return [
        Stream(place, stack.enter_context(Sorted(found, work, str(number))), tuple(ends) if place is FILES else ())
        for number, (place, found) in enumerate(held)
    ]


def doubtful(work: Path, *held: tuple[Place, Sequence[Identity]]) -> tuple[list[str], Tally]:
    """The ids that are left to be compared, and the count of the others."""
    with ExitStack() as stack:
        authority, *replicas = opened(stack, work, held)
        cleared = Clearing(work / "odd", STATES, authority, replicas)
        with closing(sqlite3.connect(work / "odd")) as connection:
            return [key.decode() for (key,) in connection.execute("select key from odd order by key")], cleared.tally


IDS = st.sampled_from(["a", "b", "1", "01", "é_", "\udc80", "\uffff", "\U0001f9ea"])
OWNERS = st.sampled_from([None, "ann", "ann", "ann", "bob", ""])
WORDS = st.sampled_from([None, "done", "done", "done", "failed", "work", "odd"])
MOMENTS = st.sampled_from([None, LONG_AGO, LATELY])
CHUNKS = st.sampled_from([None, 0, 1, 2, 2, 2, -1])
RECORDS = st.lists(st.builds(Identity, IDS, OWNERS, WORDS, MOMENTS, CHUNKS), max_size=8)
HELD = st.lists(st.builds(Identity, IDS, OWNERS, st.none(), st.none(), CHUNKS), max_size=12)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=RECORDS,
    held=st.tuples(HELD, HELD, HELD, HELD),
    optional=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    unique=st.booleans(),
    counts=st.booleans(),
    states=st.sampled_from([STATES, None]),
    ends=st.sampled_from([(), (), ("_",)]),
)
def test_the_same_comes_out_as_of_all_documents(
    tmp_path: Path,
    records: list[Identity],
    held: tuple[list[Identity], ...],
    optional: tuple[bool, ...],
    unique: bool,
    counts: bool,
    states: States | None,
    ends: tuple[str, ...],
) -> None:
    if unique:
        records = list({each.id: each for each in records}.values())
    places = [replace(place, optional=each) for place, each in zip(PLACES, optional, strict=True)]
    with ExitStack() as stack:
        streams = opened(stack, tmp_path, [(replace(AUTHORITY, counts=counts), records), *zip(places, held, strict=True)], ends)
        assert outcome(tmp_path, streams, states, clearing=True) == outcome(tmp_path, streams, states, clearing=False)


def test_nothing_that_agrees_is_doubtful_and_all_of_it_is_counted(tmp_path: Path) -> None:
    """With owners and without, with a count and without: else each document would be read one by one again."""
    records = [done("a", "ann", 2), done("b", None, 3), done("c", "")]
    dense = [Identity("a", "ann", chunks=1), Identity("a", "ann", chunks=1), Identity("b", "bob", chunks=3), Identity("c", None, chunks=9)]
    left, tally = doubtful(tmp_path, (AUTHORITY, records), (DENSE, dense), (ROWS, [Identity(each) for each in "abc"]))
    assert left == []
    assert (tally.documents, tally.held, tally.chunks) == (3, {DENSE.name: 3, ROWS.name: 3}, {DENSE.name: 14})


def test_what_may_be_absent_is_not_doubtful_where_nothing_stands_beside_it(tmp_path: Path) -> None:
    records, chunks = [done("a", "ann", 1), done("b", "ann", 1)], [Identity("a", "ann", chunks=1)]
    alone, tally = doubtful(tmp_path, (AUTHORITY, records), (replace(DENSE, optional=True), chunks))
    assert (alone, tally.held) == ([], {DENSE.name: 1})
    pair, _ = doubtful(tmp_path, (AUTHORITY, records), (replace(DENSE, optional=True), chunks), (replace(SPARSE, optional=True), chunks))
    assert pair == ["b"]


@pytest.mark.parametrize(
    ("record", "chunks"),
    [
        (done("x", "ann", 2), []),
        (done("x", "ann", 2), [Identity("x", "ann", chunks=1)]),
        (done("x", "ann", 2), [Identity("x", "bob", chunks=2)]),
        (done("x", "ann", 2), [Identity("x", "ann", chunks=2), Identity("x", "bob", chunks=1)]),
        (done("x", "ann", 2), [Identity("x", "ann", chunks=3), Identity("x", "ann", chunks=-1)]),
        (Identity("x", "ann", "failed", LONG_AGO, 2), [Identity("x", "ann", chunks=2)]),
        (Identity("x", "ann", "work", LONG_AGO, 2), [Identity("x", "ann", chunks=2)]),
        (None, [Identity("x", "ann", chunks=2)]),
    ],
    ids=["nothing there", "too few", "another owner", "a second owner", "taken away again", "failed", "at work", "nobody's"],
)
def test_every_kind_of_disagreement_is_left_to_the_comparison(tmp_path: Path, record: Identity | None, chunks: list[Identity]) -> None:
    agreeing = [done("a", "ann", 1), *([record] if record else [])]
    left, tally = doubtful(tmp_path, (AUTHORITY, agreeing), (DENSE, [Identity("a", "ann", chunks=1), *chunks]))
    assert (left, tally.documents) == (["x"], 1)


def test_what_nobody_could_say_anything_of_is_left_to_the_comparison(tmp_path: Path) -> None:
    """A document that the authority names twice, and one whose id holds what ends an id in a pattern."""
    twice, _ = doubtful(tmp_path, (AUTHORITY, [done("a"), done("x", "ann"), done("x", "bob")]), (ROWS, [Identity("a"), Identity("x")]))
    assert twice == ["x"]
    with ExitStack() as stack:
        authority, files = opened(stack, tmp_path, [(AUTHORITY, [done("a"), done("x_")]), (FILES, [Identity("a"), Identity("x_")])], "_")
        Clearing(tmp_path / "odd", STATES, authority, [files])
        with closing(sqlite3.connect(tmp_path / "odd")) as connection:
            assert connection.execute("select key from odd").fetchall() == [(b"x_",)]

"""The merge of an authority with its replicas: every class of disagreement, nothing else, and the same as plain sets would say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeeper.consistency.comparison import Comparison, Stream, Tally
from storekeeper.consistency.findings import Class, Finding
from storekeeper.consistency.places import Place
from storekeeper.outcomes import Unknown
from storekeeper.stack.rules import States
from storekeeper.stores.identities import CollectionSource, Identity, PatternSource, RowsSource, Sorted, SqlSource, key_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GRACE = timedelta(hours=24)
LONG_AGO, LATELY = NOW - timedelta(days=3), NOW - timedelta(hours=1)
STATES = States(complete=("done",), failed=("failed",), in_flight=("work",))

AUTHORITY = Place("main", SqlSource("select", ("id", "owner", "state", "at", "chunks")), None, counts=True, label="query")
ROWS = Place("meta", RowsSource("papers", "id"), 0, counts=False, label="papers")
DENSE = Place("vectors", CollectionSource("dense", "doc", "user"), 1, counts=True, label="dense")
SPARSE = Place("vectors", CollectionSource("sparse", "doc", "user"), 1, counts=True, label="sparse")
FILES = Place("papers", PatternSource("{id}.md"), 2, counts=False, label="{id}.md")
Told = tuple[str, str, str, str | None]


def done(document: str, owner: str | None = "ann", chunks: int | None = None) -> Identity:
    return Identity(document, owner, "done", LONG_AGO, chunks)


@contextmanager
def streams(work: Path, *held: tuple[Place, Sequence[Identity]]) -> Iterator[list[Stream]]:
    with ExitStack() as stack:
        yield [Stream(place, stack.enter_context(Sorted(found, work, str(n)))) for n, (place, found) in enumerate(held)]


def compared(
    work: Path, authority: Sequence[Identity], *held: tuple[Place, Sequence[Identity]], states: States | None = STATES
) -> tuple[list[Finding], Tally]:
    """Findings and tally of one comparison."""
    comparison = Comparison(states, GRACE, NOW)
    with streams(work, (AUTHORITY, authority), *held) as (first, *others):
        return list(comparison.findings(first, others)), comparison.tally


def told(found: Sequence[Finding]) -> list[Told]:
    return [(str(each.kind), each.place, each.document, each.owner) for each in found]


def test_agreement_is_no_finding(tmp_path: Path) -> None:
    found, tally = compared(
        tmp_path,
        [done("a", chunks=2), done("b", "bob", 1)],
        (ROWS, [Identity("a", chunks=1), Identity("b", chunks=1)]),
        (DENSE, [Identity("a", "ann", chunks=2), Identity("b", "bob", chunks=1)]),
        (SPARSE, [Identity("a", "ann", chunks=2), Identity("b", "bob", chunks=1)]),
        (FILES, [Identity("a", chunks=1), Identity("b", chunks=1)]),
    )
    assert found == []
    assert (tally.documents, tally.in_flight, tally.held["meta/papers"], tally.chunks["vectors/dense"]) == (2, 0, 2, 3)


def test_a_document_that_the_authority_has_not_is_an_orphan_in_each_place_that_holds_something(tmp_path: Path) -> None:
    found, _ = compared(
        tmp_path,
        [],
        (ROWS, [Identity("x", chunks=1)]),
        (DENSE, [Identity("x", "ann", chunks=3)]),
        (SPARSE, []),
        (FILES, [Identity("x", chunks=2)]),
    )
    assert told(found) == [
        ("orphan", "meta/papers", "x", None),
        ("orphan", "papers/{id}.md", "x", None),
        ("orphan", "vectors/dense", "x", "ann"),
    ]
    assert [each.detail for each in found] == ["1 entry", "2 entries", "3 chunks"]


def test_an_orphan_under_two_owners_is_told_for_each_of_them(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, [], (DENSE, [Identity("x", "ann", chunks=1), Identity("x", "bob", chunks=2)]))
    assert told(found) == [("orphan", "vectors/dense", "x", "ann"), ("orphan", "vectors/dense", "x", "bob")]


def test_a_complete_document_of_which_a_place_has_nothing_is_missing_there_alone(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, [done("a")], (ROWS, []), (FILES, [Identity("a", chunks=1)]))
    assert told(found) == [("missing", "meta/papers", "a", "ann")]
    assert found[0].detail == "nothing there"


def test_of_several_collections_one_without_it_is_partial_and_all_without_it_are_missing(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, [done("a"), done("b")], (DENSE, [Identity("a", "ann", chunks=1)]), (SPARSE, []))
    assert told(found) == [
        ("partial", "vectors/sparse", "a", "ann"),
        ("missing", "vectors/dense", "b", "ann"),
        ("missing", "vectors/sparse", "b", "ann"),
    ]


def test_collections_of_two_declarations_do_not_stand_for_each_other(tmp_path: Path) -> None:
    other = Place("vectors", CollectionSource("other", "doc"), 7, counts=True, label="other")
    found, _ = compared(tmp_path, [done("a")], (DENSE, [Identity("a", "ann", chunks=1)]), (other, []))
    assert told(found) == [("missing", "vectors/other", "a", "ann")]


@pytest.mark.parametrize(("chunks", "detail"), [(2, "2 of 3 chunks"), (4, "4 of 3 chunks"), (1234, "1,234 of 3 chunks")])
def test_another_number_of_chunks_than_the_record_says_is_partial_less_or_more(tmp_path: Path, chunks: int, detail: str) -> None:
    found, _ = compared(tmp_path, [done("a", chunks=3)], (DENSE, [Identity("a", "ann", chunks=chunks)]))
    assert (told(found), found[0].detail) == ([("partial", "vectors/dense", "a", "ann")], detail)


def test_chunks_are_not_compared_where_the_record_or_the_place_counts_none(tmp_path: Path) -> None:
    assert compared(tmp_path, [done("a")], (DENSE, [Identity("a", "ann", chunks=5)]))[0] == []
    assert compared(tmp_path, [done("a", chunks=3)], (FILES, [Identity("a", chunks=1)]), (ROWS, [Identity("a", chunks=9)]))[0] == []


def test_chunks_in_several_rows_of_one_owner_are_added_up_before_they_are_compared(tmp_path: Path) -> None:
    assert compared(tmp_path, [done("a", chunks=3)], (DENSE, [Identity("a", "ann", chunks=1), Identity("a", "ann", chunks=2)]))[0] == []


def test_a_count_of_nothing_is_nothing(tmp_path: Path) -> None:
    """A row of `count(embedding)` for a document of which none is embedded."""
    found, tally = compared(
        tmp_path, [done("a")], (DENSE, [Identity("a", "ann", chunks=0), Identity("x", "ann", chunks=0)]), (FILES, [Identity("a", chunks=1)])
    )
    assert told(found) == [("missing", "vectors/dense", "a", "ann")]
    assert tally.held["vectors/dense"] == 0


def test_an_authority_whose_document_should_have_no_chunk_has_it_all_the_same(tmp_path: Path) -> None:
    found, tally = compared(tmp_path, [done("a", chunks=0)], (FILES, [Identity("a", chunks=1)]))
    assert (found, tally.documents) == ([], 1)


def test_what_stands_under_another_owner_is_foreign_and_its_chunks_are_not_the_documents(tmp_path: Path) -> None:
    found, _ = compared(
        tmp_path, [done("a", chunks=3)], (DENSE, [Identity("a", "ann", chunks=2), Identity("a", "bob", chunks=1)]), (SPARSE, [])
    )
    assert told(found) == [
        ("foreign", "vectors/dense", "a", "ann"),
        ("partial", "vectors/dense", "a", "ann"),
        ("partial", "vectors/sparse", "a", "ann"),
    ]
    assert [each.detail for each in found] == ["1 chunk under bob", "2 of 3 chunks", "nothing in this collection"]


def test_all_of_it_under_another_owner_is_foreign_and_not_missing_as_well(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, [done("a", chunks=3)], (DENSE, [Identity("a", "bob", chunks=3)]))
    assert told(found) == [("foreign", "vectors/dense", "a", "ann")]


@pytest.mark.parametrize(("mine", "theirs"), [(None, "bob"), ("ann", None), (None, None), ("ann", "ann")])
def test_where_one_side_names_no_owner_nothing_is_foreign(tmp_path: Path, mine: str | None, theirs: str | None) -> None:
    assert compared(tmp_path, [done("a", mine, 2)], (DENSE, [Identity("a", theirs, chunks=2)]))[0] == []


@pytest.mark.parametrize(("at", "is_left"), [(LONG_AGO, True), (LATELY, False), (NOW - GRACE, False), (None, True)])
def test_what_a_failed_document_left_is_told_once_the_grace_is_over_or_its_time_is_not_known(
    tmp_path: Path, at: datetime | None, is_left: bool
) -> None:
    found, _ = compared(tmp_path, [Identity("a", "ann", "failed", at, 3)], (DENSE, [Identity("a", "ann", chunks=1)]), (SPARSE, []))
    assert told(found) == ([("leftover", "vectors/dense", "a", "ann")] if is_left else [])
    assert [(each.since, each.detail) for each in found] == ([(at, "failed, 1 chunk")] if is_left else [])


def test_a_failed_document_of_which_nothing_is_left_is_no_finding(tmp_path: Path) -> None:
    assert compared(tmp_path, [Identity("a", "ann", "failed", LONG_AGO)], (ROWS, []), (DENSE, []))[0] == []


@pytest.mark.parametrize("holds", [True, False])
def test_a_document_in_flight_is_counted_and_never_wrong(tmp_path: Path, holds: bool) -> None:
    held = [Identity("a", "bob", chunks=1)] if holds else []
    found, tally = compared(tmp_path, [Identity("a", "ann", "work", LONG_AGO, 5)], (DENSE, held), (ROWS, []))
    assert (found, tally.documents, tally.in_flight) == ([], 1, 1)


def test_a_state_that_stands_nowhere_counts_as_in_flight_and_is_remembered(tmp_path: Path) -> None:
    found, tally = compared(tmp_path, [Identity("a", None, "odd"), Identity("b", None, None), Identity("c", None, "DONE")], (ROWS, []))
    assert (found, tally.in_flight, tally.unknown_states) == ([], 3, {"odd", "", "DONE"})


def test_of_very_many_unknown_states_a_few_are_remembered(tmp_path: Path) -> None:
    _, tally = compared(tmp_path, [Identity(str(number), None, f"odd {number}") for number in range(100)], (ROWS, []))
    assert (tally.in_flight, len(tally.unknown_states)) == (100, 5)


def test_without_states_every_document_is_complete(tmp_path: Path) -> None:
    found, tally = compared(tmp_path, [Identity("a", None, "work")], (ROWS, []), states=None)
    assert (told(found), tally.in_flight) == ([("missing", "meta/papers", "a", None)], 0)


@pytest.mark.parametrize("others", [[], [Identity("a", chunks=1)]])
def test_an_authority_that_names_a_document_twice_is_unknown(tmp_path: Path, others: list[Identity]) -> None:
    """A join that multiplies rows: which of them holds, nobody knows."""
    with pytest.raises(Unknown, match="main/query names document 'a' 2 times") as caught:
        compared(tmp_path, [done("a"), done("a", "bob")], (ROWS, others))
    assert caught.value.store == "main"


def test_an_id_that_holds_what_ends_ids_in_a_pattern_is_unknown_and_one_of_an_orphan_is_not_asked(tmp_path: Path) -> None:
    raw = Place("papers", PatternSource("raw/{id}_*"), 0, counts=False, label="raw/{id}_*")
    with streams(tmp_path, (AUTHORITY, [done("two_words")]), (raw, [Identity("two", chunks=1)])) as (authority, replica):
        ending = Stream(replica.place, replica.identities, ("_",))
        with pytest.raises(Unknown, match=r"document 'two_words' holds '_', which ends an id in papers/raw/\{id\}_\*"):
            list(Comparison(STATES, GRACE, NOW).findings(authority, [ending]))
    with streams(tmp_path, (AUTHORITY, []), (raw, [Identity("two", chunks=1)])) as (authority, replica):
        ending = Stream(replica.place, replica.identities, ("_",))
        assert told(list(Comparison(STATES, GRACE, NOW).findings(authority, [ending]))) == [("orphan", "papers/raw/{id}_*", "two", None)]


@pytest.mark.parametrize("first", ["1", "é", "\udc80", "\U0001f9ea", "a\0", " "])
def test_streams_meet_in_the_order_of_bytes(tmp_path: Path, first: str) -> None:
    """With any other order one of the streams would run ahead, and what both hold would be an orphan and missing."""
    ids = sorted({first, "0", "z", "\uffff", "\udcff", "\U0010ffff"})
    found, tally = compared(tmp_path, [done(each) for each in ids], (ROWS, [Identity(each, chunks=1) for each in reversed(ids)]))
    assert (found, tally.held["meta/papers"]) == ([], len(ids))


IDS = st.sampled_from(["a", "b", "1", "01", "é", "\udc80", "\uffff", "\U0001f9ea"])
OWNERS = st.sampled_from([None, "ann", "bob"])
RECORDS = st.dictionaries(
    IDS,
    st.tuples(
        OWNERS,
        st.sampled_from(["done", "done", "failed", "work", "odd"]),
        st.sampled_from([None, LONG_AGO, LATELY]),
        st.none() | st.integers(0, 3),
    ),
)
HELD = st.dictionaries(st.tuples(IDS, OWNERS), st.integers(0, 3))
Records = Mapping[str, tuple[str | None, str, datetime | None, int | None]]
Chunks = Mapping[tuple[str, str | None], int]


def naive(records: Records, held: Sequence[tuple[Place, Chunks]]) -> list[Told]:
    """What disagrees, said document by document with plain sets and no order. One finding stands for each class, place and document."""
    found: set[Told] = set()
    present = {place.name: {document for (document, _), count in chunks.items() if count} for place, chunks in held}
    for place, chunks in held:
        siblings = [each.name for each, _ in held if each.replica == place.replica]
        for (document, owner), count in chunks.items():
            if count and document not in records:
                found.add(("orphan", place.name, document, owner))
        for document, (owner, state, at, wanted) in records.items():
            theirs = {whose: count for (each, whose), count in chunks.items() if each == document and count}
            own = {whose: count for whose, count in theirs.items() if whose is None or owner is None or whose == owner}
            if state == "failed" and theirs and (at is None or at == LONG_AGO):
                found.add(("leftover", place.name, document, owner))
            if state != "done":
                continue
            if theirs.keys() - own.keys():
                found.add(("foreign", place.name, document, owner))
            if not theirs:
                has_any = any(document in present[each] for each in siblings)
                found.add(("partial" if has_any else "missing", place.name, document, owner))
            elif own and place.counts and wanted is not None and sum(own.values()) != wanted:
                found.add(("partial", place.name, document, owner))
    return sorted(found, key=_place_of)


def _place_of(each: Told) -> tuple[bytes, str, str, str]:
    kind, place, document, owner = each
    return key_of(document), place, kind, owner or ""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, rows=HELD, dense=HELD, sparse=HELD, files=HELD)
def test_the_merge_finds_what_plain_sets_find_and_in_order(
    tmp_path: Path, records: Records, rows: Chunks, dense: Chunks, sparse: Chunks, files: Chunks
) -> None:
    held = [(ROWS, rows), (DENSE, dense), (SPARSE, sparse), (FILES, files)]
    found, tally = compared(
        tmp_path,
        [Identity(document, *record) for document, record in records.items()],
        *((place, [Identity(document, owner, chunks=count) for (document, owner), count in chunks.items()]) for place, chunks in held),
    )
    said = list(dict.fromkeys(told(found)))  # two foreign owners of one document are two findings of one key
    assert [each for each in said if each[3] is not None] == [each for each in naive(records, held) if each[3] is not None]
    assert set(said) == set(naive(records, held))
    assert [each.key for each in found] == sorted(each.key for each in found)
    assert tally.documents == len(records)
    assert tally.in_flight == sum(state in ("work", "odd") for _, state, _, _ in records.values())
    assert {Class(each.kind) for each in found} <= set(Class)
    for place, chunks in held:
        assert tally.held[place.name] == len({document for (document, _), count in chunks.items() if count})


def test_a_replica_may_be_optional_and_what_it_has_is_compared_all_the_same(tmp_path: Path) -> None:
    """Nothing is missing there; a part, somebody else's and nobody's are found as elsewhere."""
    authority = [done(each, "ann", 2) for each in ("absent", "foreign", "half", "one", "whole")]
    held = {
        DENSE: [Identity("foreign", "bob", chunks=2), Identity("half", "ann", chunks=1), Identity("one", "ann", chunks=2)],
        SPARSE: [Identity("foreign", "ann", chunks=2), Identity("half", "ann", chunks=2)],
    }
    for place in (DENSE, SPARSE):
        held[place] += [Identity("nobody's", "ann", chunks=1), Identity("whole", "ann", chunks=2)]
    found, _ = compared(tmp_path, authority, *((replace(place, optional=True), each) for place, each in held.items()))
    expected = [
        ("foreign", DENSE.name, "foreign"),
        ("orphan", DENSE.name, "nobody's"),
        ("orphan", SPARSE.name, "nobody's"),
        ("partial", DENSE.name, "half"),
        ("partial", SPARSE.name, "one"),
    ]
    assert sorted(each[:3] for each in told(found)) == expected
    strictly, _ = compared(tmp_path, authority, *held.items())
    assert {each[:3] for each in told(strictly)} - set(expected) == {("missing", place.name, "absent") for place in held}

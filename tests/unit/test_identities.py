"""Which documents a place holds, as text in one order: ids and moments of every type, and a sorted stream on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores.identities import (
    LONGEST_ID,
    CollectionSource,
    Identity,
    PatternSource,
    Remarks,
    RowsSource,
    Sorted,
    SqlSource,
    count_of,
    identities,
    key_of,
    merged,
    moment_of,
    text_of,
)
from tests.harness.program import CHECKOUT

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-11-21T12:00:00Z",
        "2026-11-21T12:00:00+00:00",
        "2026-11-21T13:00:00+01:00",
        "2026-11-21T12:00:00",
        "2026-11-21 12:00:00",
        "2026-11-21 12:00",
        "2026-11-21 12:00:00.000000",
        "  2026-11-21 12:00:00\n",
        "20261121T120000Z",
        int(NOON.timestamp()),
        float(NOON.timestamp()),
        int(NOON.timestamp() * 1000),
        f"{NOON.timestamp():.0f}",
        f"{NOON.timestamp() * 1000:.0f}",
    ],
)
def test_a_moment_is_understood_in_every_form_in_which_applications_keep_one(value: object) -> None:
    assert moment_of(value) == NOON
    assert moment_of(value).tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-21", NOON.replace(hour=0)),
        (NOON.timestamp() + 0.25, NOON.replace(microsecond=250_000)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-86400, datetime(1969, 12, 31, tzinfo=UTC)),
        (100_000_000_000, datetime(5138, 11, 16, 9, 46, 40, tzinfo=UTC)),
        (100_000_000_001, datetime(1973, 3, 3, 9, 46, 40, 1000, tzinfo=UTC)),
    ],
)
def test_days_fractions_and_far_numbers_are_the_moments_that_they_say(value: object, moment: datetime) -> None:
    assert moment_of(value) == moment


@pytest.mark.parametrize("value", [None, "", "yesterday", "21.11.2026", "nan", "inf", 1e300, 10**30, True, b"2026-11-21", [1], "9" * 400])
def test_what_is_no_moment_is_none_and_never_a_wrong_one(value: object) -> None:
    assert moment_of(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        ("", ""),
        (" 1", " 1"),
        ("01", "01"),
        (1, "1"),
        (-7, "-7"),
        (2**70, str(2**70)),
        (UUID("0b54c2a2-8a4c-4a36-9a3a-0d7b7e6a4f11"), "0b54c2a2-8a4c-4a36-9a3a-0d7b7e6a4f11"),
        (Decimal(12), "12"),
        ("a\0b\n'\"%s", "a\0b\n'\"%s"),
        ("x" * LONGEST_ID, "x" * LONGEST_ID),
    ],
)
def test_an_id_is_its_text_and_nothing_is_made_equal_that_is_written_otherwise(value: object, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [True, False, 1.0, b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_an_id_whose_text_nobody_agrees_on_is_unknown(value: object) -> None:
    with pytest.raises(Unknown, match=f"an id is stored as {type(value).__name__}, which has no one text: let the query make one of it"):
        text_of(value)


def test_an_id_of_no_sensible_length_is_unknown() -> None:
    with pytest.raises(Unknown, match="an id has 64001 signs: what is read as an id is none"):
        text_of("x" * (LONGEST_ID + 1))


@pytest.mark.parametrize(("value", "count"), [(None, None), (0, 0), (3, 3), ("3", 3), (Decimal(3), 3)])
def test_a_number_of_chunks_is_a_number_however_it_is_stored(value: object, count: int | None) -> None:
    assert count_of(value) == count


@pytest.mark.parametrize("value", ["many", "", "1.5", 1.5, b"3"])
def test_a_number_of_chunks_that_is_none_is_unknown_and_not_zero(value: object) -> None:
    with pytest.raises(Unknown, match="a number of chunks was expected, found"):
        count_of(value)


def one(columns: Sequence[str], row: Sequence[object]) -> Identity | None:
    """The identity of one row; None, with a remark, where it has no id."""
    remarks = Remarks()
    found = list(identities(columns, [row], remarks))
    assert len(found) + remarks.nameless == 1
    return found[0] if found else None


def test_a_row_becomes_what_its_columns_say_in_any_order_of_them() -> None:
    row = one(("id", "chunks", "owner", "state", "at"), [7, "4", 2, "done", "2026-11-21 12:00"])
    assert row == Identity("7", "2", "done", NOON, 4)
    assert one(("id",), ["a"]) == Identity("a")
    assert one(("id", "owner", "state", "at"), ["a", None, None, "never"]) == Identity("a")


def test_a_row_without_an_id_is_none_and_an_empty_id_is_one() -> None:
    assert one(("id", "owner"), [None, "ann"]) is None
    assert one(("id",), [""]) == Identity("")


def test_an_owner_whose_text_nobody_agrees_on_is_unknown_too() -> None:
    with pytest.raises(Unknown, match="stored as bytes"):
        one(("id", "owner"), ["a", b"ann"])


def test_a_query_has_the_columns_that_are_declared_or_is_refused() -> None:
    usual = SqlSource("select", ("id", "owner", "state", "at"))
    usual.refuse_other_columns(["a"])
    usual.refuse_other_columns(["a", "b", "c", "d"])
    with pytest.raises(Refused, match="the query has the columns a, b, c, d, e, `columns` says id, owner, state, at"):
        usual.refuse_other_columns(["a", "b", "c", "d", "e"])
    with pytest.raises(Refused, match="the query has the columns a, `columns` says id, owner"):
        SqlSource("select", ("id", "owner"), exact=True).refuse_other_columns(["a"])


def test_a_source_is_named_by_what_a_person_declared() -> None:
    sources = (SqlSource("select 1", ("id",)), RowsSource("papers", "id"), CollectionSource("dense", "doc"), PatternSource("{id}.md"))
    assert [each.label for each in sources] == ["query", "papers", "dense", "{id}.md"]


ORDER = ["", "\0", " 1", "!", "01", "1", "10", "2", "ABC", "a", "a\0", "ab", "é", "ﬀ", "\uffff", "\U0001f9ea", "\udc80", "\udcff"]


def test_order_is_that_of_bytes_also_beyond_the_first_plane_and_for_what_is_no_utf_8(tmp_path: Path) -> None:
    """Python's own order of text puts an escaped byte between them by the number of its escape."""
    with Sorted((Identity(each) for each in reversed(ORDER)), tmp_path, "a") as kept:
        found = [each.id for each in kept]
    assert found == sorted(ORDER, key=os.fsencode)
    assert found == sorted(found, key=key_of)
    assert found != sorted(ORDER)
    assert found.index("\udc80") < found.index("é") < found.index("\U0001f9ea") < found.index("\udcff")


def test_control_in_the_order_of_text_two_streams_would_be_merged_wrongly() -> None:
    assert sorted(ORDER) != sorted(ORDER, key=key_of)
    assert ("é" < "\udc80", key_of("é") < key_of("\udc80")) == (True, False)
    assert ("\udcff" < "\uffff", key_of("\udcff") < key_of("\uffff")) == (True, False)


IDENTITIES = st.builds(
    Identity,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.none() | st.text("ab", max_size=1),
    st.none() | st.sampled_from(["done", "failed"]),
    st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    st.none() | st.integers(0, 99),
)


@settings(max_examples=60, deadline=None)
@given(found=st.lists(IDENTITIES, max_size=30))
def test_what_is_kept_comes_back_whole_in_order_and_as_often_as_one_likes(
    found: list[Identity], tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("work")
    with Sorted(found, work, "a") as kept:
        first, second = list(kept), list(kept)
    assert first == second
    assert Counter(first) == Counter(found)
    places = [(key_of(each.id), each.owner is not None, key_of(each.owner or "")) for each in first]
    assert places == sorted(places)
    assert not list(work.iterdir())


def test_two_readers_of_one_stream_do_not_disturb_each_other(tmp_path: Path) -> None:
    with Sorted((Identity(each) for each in "cab"), tmp_path, "a") as kept:
        assert [(one.id, other.id) for one, other in zip(kept, kept, strict=True)] == [("a", "a"), ("b", "b"), ("c", "c")]


def test_what_several_rows_hold_of_one_document_and_owner_is_added_up() -> None:
    found = [Identity("a", None, chunks=1), Identity("a", "x", chunks=2), Identity("a", "x", chunks=3), Identity("b", "x", chunks=4)]
    assert list(merged(found)) == [Identity("a", None, chunks=1), Identity("a", "x", chunks=5), Identity("b", "x", chunks=4)]
    assert list(merged([Identity("a"), Identity("a", chunks=2), Identity("a")])) == [Identity("a", chunks=2)]
    assert list(merged([Identity("a"), Identity("a")])) == [Identity("a")]
    assert list(merged([])) == []


@settings(max_examples=60, deadline=None)
@given(found=st.lists(st.builds(Identity, st.sampled_from("ab"), st.sampled_from([None, "x", "y"]), chunks=st.integers(0, 9))))
def test_adding_up_loses_and_invents_nothing(found: list[Identity], tmp_path_factory: pytest.TempPathFactory) -> None:
    with Sorted(found, tmp_path_factory.mktemp("work"), "a") as kept:
        sums = [(each.id, each.owner, each.chunks) for each in merged(kept)]
    naive = {(one.id, one.owner): sum(each.chunks or 0 for each in found if each[:2] == one[:2]) for one in found}
    assert {(document, owner): count for document, owner, count in sums} == naive
    assert len(sums) == len(naive)


def test_owners_and_states_are_counted(tmp_path: Path) -> None:
    found = [Identity("a", "x", "done"), Identity("b", "y", "done"), Identity("c", "x", "failed"), Identity("d")]
    with Sorted(found, tmp_path, "a") as kept:
        assert kept.owners() == 2
        assert list(kept.states().items()) == [("done", 2), ("failed", 1)]


def test_of_very_many_states_only_the_most_frequent_are_told(tmp_path: Path) -> None:
    """A column of free text that was declared as the state."""
    found = [Identity(str(number), None, f"state {number}") for number in range(500)] + [Identity("x", None, "state 499")]
    with Sorted(found, tmp_path, "a") as kept:
        told = kept.states()
    assert len(told) == 50
    assert next(iter(told.items())) == ("state 499", 2)


def test_the_file_is_gone_afterwards_and_nothing_is_read_from_outside_the_block(tmp_path: Path) -> None:
    with Sorted([Identity("a")], tmp_path, "a") as kept:
        assert [each.name for each in tmp_path.iterdir()] == ["a.db"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="inside the block"):
        list(kept)


def test_a_stream_that_breaks_is_its_own_error_and_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[Identity]:
        yield from (Identity(str(number)) for number in range(2500))
        raise Unknown("the store went away")

    with pytest.raises(Unknown, match="the store went away"), Sorted(breaking(), tmp_path, "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_not_counted(tmp_path: Path) -> None:
    with Sorted([Identity("a"), Identity("b")], tmp_path, "a"):
        left = (tmp_path / "a.db").read_bytes()
    (tmp_path / "a.db").write_bytes(left)
    with Sorted([Identity("c")], tmp_path, "a") as kept:
        assert [each.id for each in kept] == ["c"]


def test_where_no_scratch_file_can_be_made_it_is_a_sentence_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ids could not be kept in") as caught, Sorted([Identity("a")], tmp_path / "gone", "a"):
        pass
    assert caught.value.next == "set `scratch:` in storekeeper.yml to a directory with room"


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from storekeeper.outcomes import Failed
from storekeeper.stores.identities import Identity, Sorted

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
work = Path(sys.argv[1])
try:
    with Sorted((Identity(f"document-{number:08}") for number in range(400_000)), work, "a") as kept:
        print("kept", sum(1 for _ in kept))
except Failed as error:
    print("failed", error.message, error.next)
print("left", [each.name for each in work.iterdir()])
"""


def test_no_room_is_a_failure_with_a_remedy_and_never_a_short_stream(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk: SQLite hears of both from write(2)."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, check=True, env=_environment()
    )
    said = done.stdout.splitlines()
    assert said[0].startswith(f"failed ids could not be kept in {tmp_path}: ")
    assert said[0].endswith("set `scratch:` in storekeeper.yml to a directory with room")
    assert said[1] == "left []"


_MEASURED = """
import sys
from pathlib import Path
from storekeeper.stores.identities import Identity, Sorted

count = int(sys.argv[2])
found = (Identity(f"document-{number * 7919 % count:08}", f"user-{number % 1000}", "done", None, number) for number in range(count))
before = None
with Sorted(found, Path(sys.argv[1]), "a") as kept:
    for _ in range(2):
        for each in kept:
            if before is not None and before > each.id:
                raise SystemExit(f"{each.id} comes after {before}")
            before = each.id
        before = None
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


def _peak_mb(work: Path, count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(work), str(count)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    return int(done.stdout) / 1024


def test_memory_is_flat_at_three_hundred_thousand_documents(tmp_path: Path) -> None:
    assert _peak_mb(tmp_path, 300_000) - _peak_mb(tmp_path, 3_000) < 20


def test_control_the_same_documents_in_a_list_are_not(tmp_path: Path) -> None:
    listed = _MEASURED.replace("with Sorted(found", "found = list(found)\nwith Sorted(found")
    done = subprocess.run(
        [sys.executable, "-c", listed, str(tmp_path), "300000"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    assert int(done.stdout) / 1024 - _peak_mb(tmp_path, 3_000) > 40


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}

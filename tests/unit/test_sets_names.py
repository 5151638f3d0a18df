"""How a person names a set, and what hostile names do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeeper.outcomes import Refused
from storekeeper.sets.names import format_id, parse_id, read_id, shown, wanted

HOSTILE = [
    "../x",
    "-rf",
    "latest; x",
    "a\0b",
    "x" * 4096,
    "2025\n",
    "20250109T030000Z-000001\n",
    "$(x)",
    "`x`",
    "",
    " ",
    "latest ",
    "２０２５",
    "é" * 50,
]
WHEN = datetime(2025, 1, 9, 3, 0, 0, tzinfo=UTC)


def test_an_id_says_its_time_in_utc_and_its_number():
    berlin = WHEN.astimezone(timezone(timedelta(hours=1)))
    assert format_id(WHEN, 123) == format_id(berlin, 123) == "20250109T030000Z-000123"
    assert parse_id("20250109T030000Z-000123").sequence == 123
    assert parse_id("20250109T030000Z-000123").time == WHEN


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), st.integers(1, 10**8))
def test_every_id_is_read_back_as_it_was_written(time, sequence):
    time = time.replace(tzinfo=UTC, microsecond=0)
    assert (parse_id(format_id(time, sequence)).time, parse_id(format_id(time, sequence)).sequence) == (time, sequence)


def test_ids_longer_than_six_digits_sort_by_number_and_not_as_text():
    assert parse_id("20250109T030000Z-1000000").sequence > parse_id("20250109T030000Z-999999").sequence


@pytest.mark.parametrize(
    "name",
    [
        "20251309T030000Z-000001",
        "20250109T030000Z-1",
        "20250109T030000Z-0000001",
        "20250109T030000Z",
        "notes",
        ".trash",
        "20250109T036100Z-000001",
    ],
)
def test_what_no_set_would_be_called_is_no_id(name):
    assert read_id(name) is None
    with pytest.raises(ValueError, match="is no set's id"):
        parse_id(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_in_one_short_line_that_repeats_at_most_60_characters(name):
    with pytest.raises(Refused) as refusal:
        wanted(name)
    message = refusal.value.message
    assert message.isprintable()
    assert message.isascii()
    assert len(message.split(" names no set")[0]) <= 62


@pytest.mark.parametrize(
    ("name", "matching", "other"),
    [
        ("latest", "20250109T030000Z-000123", None),
        ("20250109T030000Z-000123", "20250109T030000Z-000123", "20250109T030000Z-000124"),
        ("20250109_030000", "20250109T030000Z-000123", "20250109T030001Z-000123"),
        ("20250109T030000Z", "20250109T030000Z-000001", "20250109T030001Z-000001"),
        ("20250109", "20250109T235959Z-000001", "20250110T000000Z-000001"),
        ("20250109T03", "20250109T030000Z-000001", "20250109T040000Z-000001"),
        ("20250109T030000Z-0001", "20250109T030000Z-000123", "20250109T030000Z-000023"),
        ("2", "20250109T030000Z-000123", "19990109T030000Z-000123"),
    ],
)
def test_a_set_is_named_by_latest_its_id_its_time_or_the_start_of_its_id(name, matching, other):
    assert wanted(name).matches(matching)
    assert other is None or not wanted(name).matches(other)


@given(st.text(max_size=5000))
def test_whatever_is_shown_of_a_name_is_short_and_printable(text):
    assert len(shown(text)) <= 62
    assert shown(text).isprintable()

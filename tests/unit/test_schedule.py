"""When a verb runs next, also in the nights when the clock changes; and what is no time at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from storekeeper.stack.cron import CronTime, local_zone
from storekeeper.stack.schedule import VERBS, ScheduleEntry, Schedules

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: forward on 29 March at 02:00, back on 25 October at 03:00
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # changes by half an hour
APIA = ZoneInfo("Pacific/Apia")  # left out 30 December 2011


def runs(text: str, zone: ZoneInfo, start: str, end: str) -> list[str]:
    """All runs between two local times, as local times with their offset."""
    moment, last = (datetime.fromisoformat(each).replace(tzinfo=zone) for each in (start, end))
    time, found = CronTime.parse(text), []
    while (moment := time.next_after(moment, zone)) <= last:
        found.append(moment.isoformat(sep=" ", timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 3 * * *", "2026-01-09 03:00", "2026-01-10 03:00"),
        ("0 3 * * *", "2026-01-09 02:59:59.999999", "2026-01-09 03:00"),
        ("*/15 * * * *", "2026-01-09 03:00:01", "2026-01-09 03:15"),
        ("0,30 8-10 * * *", "2026-01-09 08:30", "2026-01-09 09:00"),
        ("0 4 * * 0", "2026-01-09 03:00", "2026-01-11 04:00"),
        ("0 4 * * 7", "2026-01-09 03:00", "2026-01-11 04:00"),
        ("0 4 * * 5-7", "2026-01-09 05:00", "2026-01-10 04:00"),
        ("0 0 1 1 *", "2026-01-09 03:00", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2026-01-09 03:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2097-01-09 03:00", "2104-02-29 00:00"),
        ("0 0 31 * *", "2026-01-31 00:00", "2026-03-31 00:00"),
        ("10-40/15 1 * * *", "2026-01-09 01:25", "2026-01-09 01:40"),
    ],
)
def test_the_next_run_is_the_first_that_matches(text: str, after: str, expected: str) -> None:
    found = CronTime.parse(text).next_after(datetime.fromisoformat(after).replace(tzinfo=UTC), UTC)
    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_day_of_month_or_day_of_week_is_enough_when_both_are_given() -> None:
    assert runs("0 0 13 * 5", BERLIN, "2026-01-01 00:01", "2026-01-20 00:00") == [
        "2026-01-02 00:00+01:00",
        "2026-01-09 00:00+01:00",
        "2026-01-13 00:00+01:00",
        "2026-01-16 00:00+01:00",
    ]


def test_both_days_must_match_when_one_begins_with_a_star() -> None:
    assert runs("0 0 */10 * 1", BERLIN, "2026-01-01 00:01", "2026-06-02 00:00") == ["2026-05-11 00:00+02:00", "2026-06-01 00:00+02:00"]


@pytest.mark.fault("C6")
def test_a_run_in_the_hour_that_is_left_out_comes_once_right_after_the_change() -> None:
    assert runs("30 2 * * *", BERLIN, "2026-03-28 00:00", "2026-03-31 00:00") == [
        "2026-03-28 02:30+01:00",
        "2026-03-29 03:00+02:00",
        "2026-03-30 02:30+02:00",
    ]


@pytest.mark.fault("C6")
def test_a_run_in_the_hour_that_comes_twice_happens_once() -> None:
    assert runs("30 2 * * *", BERLIN, "2026-10-24 00:00", "2026-10-27 00:00") == [
        "2026-10-24 02:30+02:00",
        "2026-10-25 02:30+02:00",
        "2026-10-26 02:30+01:00",
    ]


@pytest.mark.control("C6")
def test_the_naive_reading_doubles_and_skips_runs_in_those_nights() -> None:
    """The control: minute by minute on the wall clock, 02:30 comes twice in October and never on 29 March."""

    def on_the_wall(day: str) -> int:
        start = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(UTC)
        minutes = ((start + timedelta(minutes=count)).astimezone(BERLIN) for count in range(1440))
        return sum((minute.hour, minute.minute) == (2, 30) for minute in minutes)

    assert (on_the_wall("2026-03-29"), on_the_wall("2026-10-25")) == (0, 2)


def test_an_hourly_run_goes_on_every_hour_through_both_nights() -> None:
    for start, end in (("2026-03-28 22:30", "2026-03-29 06:00"), ("2026-10-24 22:30", "2026-10-25 06:00")):
        found = [datetime.fromisoformat(each) for each in runs("0 * * * *", BERLIN, start, end)]
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_changes_of_half_an_hour_and_of_a_whole_day_lose_no_run() -> None:
    assert runs("15 2 * * *", LORD_HOWE, "2026-10-03 00:00", "2026-10-05 00:00") == ["2026-10-03 02:15+10:30", "2026-10-04 02:30+11:00"]
    assert runs("0 3 * * *", APIA, "2011-12-29 00:00", "2012-01-01 00:00") == [
        "2011-12-29 03:00-10:00",
        "2011-12-31 00:00+14:00",
        "2011-12-31 03:00+14:00",
    ]


@settings(max_examples=60, deadline=None)
@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(BERLIN)),
)
def test_a_daily_run_comes_within_25_hours_and_always_later(minute: int, hour: int, moment: datetime) -> None:
    start = moment.astimezone(UTC)
    found = CronTime.parse(f"{minute} {hour} * * *").next_after(moment, BERLIN).astimezone(UTC)
    assert start < found <= start + timedelta(hours=25)


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("0 3 * * *", timedelta(days=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 * * * *", timedelta(hours=1)),
        ("0 8,20 * * *", timedelta(hours=12)),
        ("0 8-18 * * *", timedelta(hours=14)),
        ("0 3 * * 1-5", timedelta(days=3)),
        ("0 3 * * 1", timedelta(days=7)),
        ("0 3 1 * *", timedelta(days=31)),
        ("0 3 31 * *", timedelta(days=61)),
        ("0 0 29 2 *", timedelta(days=2921)),
    ],
)
def test_the_longest_time_between_two_runs_is_known(text: str, gap: timedelta) -> None:
    assert CronTime.parse(text).gap() == gap


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 3 * *",
        "0 3 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "*/0 * * * *",
        "*/99 * * * *",
        "5/10 * * * *",
        "30-10 * * * *",
        "1,,2 * * * *",
        "a * * * *",
        "mon * * * *",
        "@daily",
        "0 3 * * mon",
        "1.5 * * * *",
        "0 3\n* * *",
        "0\t3 * * *",
        "٣ * * * *",
        "0 3 * * *\n",
        "0 3 * * *%x",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 31 2 */2",
        "1" * 500,
        "* " * 300,
    ],
)
def test_what_is_no_time_or_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|no month|needs"):
        CronTime.parse(text)


def test_a_day_that_never_comes_is_taken_where_the_week_gives_another() -> None:
    assert CronTime.parse("0 0 31 2 1").next_after(datetime(2026, 1, 9, tzinfo=UTC), UTC) == datetime(2026, 2, 2, tzinfo=UTC)


def test_spaces_do_not_make_another_time() -> None:
    assert CronTime.parse("  0  3 * * * ") == CronTime.parse("0 3 * * *")
    assert str(CronTime.parse(" 0 3  * * *")) == "0 3 * * *"


def test_the_host_has_a_zone() -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert CronTime.parse("0 3 * * *").next_after(moment).utcoffset() == moment.astimezone(local_zone()).utcoffset()


READ = TypeAdapter(Schedules)


def test_the_short_form_and_the_list_say_the_same() -> None:
    short = READ.validate_python({"backup": "0 3 * * *", "check": "0 * * * *"})
    long = READ.validate_python([{"verb": "backup", "at": "0 3 * * *"}, {"verb": "check", "arguments": [], "at": "0 * * * *"}])
    assert short == long
    assert [entry.verb for entry in short] == ["backup", "check"]


def test_it_is_written_as_a_list_and_read_back_equal() -> None:
    entries = READ.validate_python([{"verb": "verify", "arguments": ["--read-subset", "1/7"], "at": "0 4 * * *"}])
    assert READ.dump_python(entries, mode="json") == [{"verb": "verify", "arguments": ["--read-subset", "1/7"], "at": "0 4 * * *"}]
    assert READ.validate_json(READ.dump_json(entries)) == entries


@pytest.mark.parametrize("argument", ["--all", "--read-subset=1/7", "1/7", "latest", "20250109T030000Z-000123", "--dry-run"])
def test_plain_words_may_be_arguments(argument: str) -> None:
    assert ScheduleEntry(verb="verify", arguments=(argument,), at=CronTime.parse("0 4 * * *")).arguments == (argument,)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "a b",
        "a\nb",
        "a\n",
        "50%",
        "; reboot",
        "$(reboot)",
        "`reboot`",
        "a|b",
        "a&b",
        "a>b",
        "'a'",
        '"a"',
        "a\\b",
        "-rf",
        "*",
        "~",
        "é",
        "a\0b",
        "x" * 200,
    ],
)
def test_an_argument_that_cron_or_a_shell_would_read_is_refused(argument: str) -> None:
    with pytest.raises(ValidationError):
        ScheduleEntry.model_validate({"verb": "verify", "arguments": (argument,), "at": "0 4 * * *"})


@pytest.mark.parametrize("verb", ["restore", "reset", "measure", "bakup", "backup ", "backup\n", "", "backup; reboot"])
def test_only_verbs_that_need_nobody_are_scheduled(verb: str) -> None:
    assert verb not in VERBS
    with pytest.raises(ValidationError):
        READ.validate_python({verb: "0 3 * * *"})

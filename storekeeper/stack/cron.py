"""The five time fields of a cron line (crontab(5)), read by our own model so that the next run can be told.

No library of the stack file is needed here: what is asked often must start quickly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_ELEMENT = re.compile(r"(?:(\*)|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([0-9]{1,2}))?")
_DAY = timedelta(days=1)
# A Sunday the 29th of February comes 40 years after the one before when a year such as 2100 lies between them.
_LONGEST_WAIT = 41 * 366
_REACHES = (3, 40, 800, _LONGEST_WAIT)  # days that are looked through backwards, one after the other
_RARE_DAYS = (date(2060, 1, 1), date(2140, 1, 1))
_PLAIN_DAYS = (date(2060, 1, 1), date(2060, 1, 22))


@dataclass(frozen=True)
class CronTime:
    """When something runs: `text` is the five fields with single spaces between them; made by `parse`."""

    text: str
    minutes: tuple[int, ...] = field(repr=False)
    hours: tuple[int, ...] = field(repr=False)
    days: frozenset[int] = field(repr=False)
    months: frozenset[int] = field(repr=False)
    weekdays: frozenset[int] = field(repr=False)
    either_day: bool = field(repr=False)  # day of the month and day of the week are both restricted: one of them is enough
    every: bool = field(repr=False)  # minute or hour begins with `*`: such a job follows the clock through a change, others run once a day

    @classmethod
    def parse(cls, text: str) -> CronTime:
        """Raises ValueError, with a sentence, for anything but five fields that come true some day."""
        words = text.split(" ") if len(text) <= 200 else []
        words = [word for word in words if word]
        if len(words) != len(_FIELDS):
            raise ValueError(f"expected five fields such as 0 3 * * *, found {_shown(text)}")
        minutes, hours, days, months, weekdays = (_read(word, *field) for word, field in zip(words, _FIELDS, strict=True))
        found = cls(
            text=" ".join(words),
            minutes=tuple(sorted(minutes)),
            hours=tuple(sorted(hours)),
            days=days,
            months=months,
            weekdays=frozenset(day % 7 for day in weekdays),
            either_day=not words[2].startswith("*") and not words[4].startswith("*"),
            every=words[0].startswith("*") or words[1].startswith("*"),
        )
        if not found._comes_true():
            raise ValueError(f"no month in {words[3]} has a day {words[2]}")
        return found

    def __str__(self) -> str:
        return self.text

    def next_after(self, moment: datetime, zone: tzinfo | None = None) -> datetime:
        """The first run after `moment`, as a time in `zone` (the host's own when none is given).

        Where the clock is put forward, a run at a time that does not exist comes right after the change; where it is put back,
        a time that comes twice runs the first time only. Jobs with `*` in minute or hour follow the clock, as cron(8) says.
        """
        zone = zone or local_zone()
        after = moment.astimezone(UTC)
        first = moment.astimezone(zone).date() - _DAY
        for day in self._days_from(first, first + _LONGEST_WAIT * _DAY):
            for run in self._runs_on(day, zone):
                if run > after:
                    return run.astimezone(zone)
        raise ValueError(f"{self.text} never comes")

    def latest_until(self, moment: datetime, zone: tzinfo | None = None) -> datetime | None:
        """The last run up to `moment`, as `next_after` counts; None where the last 41 years have none."""
        zone = zone or local_zone()
        last = moment.astimezone(zone).date() + _DAY
        for reach in _REACHES:
            until = [run for day in self._days_from(last - reach * _DAY, last + _DAY) for run in self._runs_on(day, zone) if run <= moment]
            if until:
                return max(until).astimezone(zone)
        return None

    def gap(self) -> timedelta:
        """The longest time between two runs, as a clock on the wall counts it: a change of the clock may add its hour."""
        return _gap(self)

    def _comes_true(self) -> bool:
        return self.either_day or any(day <= _LONGEST_MONTH.get(month, 31) for month in self.months for day in self.days)

    def _days_from(self, first: date, last: date) -> Iterator[date]:
        day = first
        while day < last:
            if day.month not in self.months:
                day = (day.replace(day=28) + 4 * _DAY).replace(day=1)
                continue
            if self._is_day(day):
                yield day
            day += _DAY

    def _is_day(self, day: date) -> bool:
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week

    def _runs_on(self, day: date, zone: tzinfo) -> list[datetime]:
        """All runs of a local day in UTC, in their order."""
        clock = (datetime(day.year, day.month, day.day, hour, minute) for hour in self.hours for minute in self.minutes)
        read = _followed if self.every else _once
        return sorted({run for local in clock for run in read(local, zone)})


@lru_cache(maxsize=64)
def _gap(time: CronTime) -> timedelta:
    restricted_by_week_only = len(time.days) == 31 and len(time.months) == 12
    days = list(time._days_from(*(_PLAIN_DAYS if restricted_by_week_only else _RARE_DAYS)))
    between_days = max((later - earlier for earlier, later in pairwise(days)), default=_DAY)
    clock = [timedelta(hours=hour, minutes=minute) for hour in time.hours for minute in time.minutes]
    overnight = between_days - clock[-1] + clock[0]
    return max([overnight, *(later - earlier for earlier, later in pairwise(clock))])


def local_zone() -> tzinfo:
    """The zone that cron on this host counts in: /etc/localtime, UTC when there is none."""
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except FileNotFoundError:
        return UTC


def _read(text: str, name: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for element in text.split(","):
        found = _ELEMENT.fullmatch(element)
        if found is None:
            raise ValueError(f"{name}: expected a number, *, a range or a list, found {_shown(element)}")
        values |= _expanded(found, name, low, high)
    return frozenset(values)


def _expanded(found: re.Match[str], name: str, low: int, high: int) -> set[int]:
    star, first, last, step = found.groups()
    start, end = (low, min(high, 6) if high == 7 else high) if star else (int(first), int(last or first))
    if not low <= start <= end <= high:
        raise ValueError(f"{name}: expected {low} to {high}, found {found[0]}")
    if step is not None and not star and last is None:
        raise ValueError(f"{name}: a step needs a range or *, found {found[0]}")
    if step is not None and not 1 <= int(step) <= high:
        raise ValueError(f"{name}: expected a step of 1 to {high}, found {found[0]}")
    return set(range(start, end + 1, int(step or 1)))


def _once(local: datetime, zone: tzinfo) -> list[datetime]:
    run = local.replace(tzinfo=zone).astimezone(UTC)
    return [run if _exists(local, zone) else _change(local, zone)]


def _followed(local: datetime, zone: tzinfo) -> list[datetime]:
    if not _exists(local, zone):
        return []
    return [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]


def _exists(local: datetime, zone: tzinfo) -> bool:
    """Whether the clock on the wall ever shows this time."""
    return local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == local


def _change(local: datetime, zone: tzinfo) -> datetime:
    """The instant, in UTC, at which the clock is put forward over `local`."""
    before, after = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (1, 0))
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

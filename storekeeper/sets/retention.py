"""Which sets are kept: decided from what is known of them, without touching one.

Kept is the union of the rules; each kept or removed set has its reasons in words. Only verified and proven sets count as
backups. Order is the sequence number; the clock only says how old a set is, and is not believed where it contradicts the sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from storekeeper.outcomes import Problem, Severity
from storekeeper.sets.entry import SetEntry
from storekeeper.stack.model import Keep

_JUMP = timedelta(days=90)  # without a set: then either nobody backed up, or the clock went forward


@dataclass(frozen=True)
class Decisions:
    """Every set in exactly one of `kept` (with all reasons) and `removed` (with one), oldest first."""

    kept: tuple[tuple[str, tuple[str, ...]], ...]
    removed: tuple[tuple[str, str], ...]
    warnings: tuple[Problem, ...] = ()


def decide(
    entries: Sequence[SetEntry], keep: Keep, now: datetime, *, newest_run_failed: bool = False, in_use: Collection[str] = ()
) -> Decisions:
    """Decide for all sets of a stack, in any order. Pure: the same answer for the same arguments."""
    rules = _Rules(sorted(entries, key=lambda entry: entry.sequence), keep, now)
    if (why := rules.nothing_goes(newest_run_failed=newest_run_failed)) is not None:
        rules.keep_all(why)
    rules.apply(in_use)
    return rules.decisions()


class _Rules:
    """The reasons to keep each set, gathered rule by rule."""

    def __init__(self, entries: Sequence[SetEntry], keep: Keep, now: datetime) -> None:
        self._entries = entries
        self._keep = keep
        self._now = now
        self._reasons: dict[str, list[str]] = defaultdict(list)
        self._warnings: list[str] = []
        self._future = [entry for entry in entries if entry.time > now]
        # What the time rules look at: backups, without those that the clock says are not made yet.
        self._good = [entry for entry in entries if entry.usable and entry.time <= now]

    def nothing_goes(self, *, newest_run_failed: bool) -> str | None:
        """Why no set may be removed now, whatever its age; None when the rules may be applied."""
        if newest_run_failed:
            return "the newest run failed: nothing is removed"
        usable = [entry for entry in self._entries if entry.usable]
        if usable and usable[-1].time > self._now:
            self._warnings.append(f"the clock is behind the newest set {usable[-1].id}: nothing is removed until it is right")
            return "the clock is behind the newest set"
        if jump := self._jump():
            before, after = jump
            self._warnings.append(
                f"there is no set between {before:%Y-%m-%d} and {after:%Y-%m-%d}: if the clock jumped, ages are wrong; "
                f"nothing is removed until {self._keep.at_least + 1} newer sets are there"
            )
            return "too few sets are newer than a long gap"
        return None

    def keep_all(self, reason: str) -> None:
        for entry in self._entries:
            self._because(entry, reason)

    def apply(self, in_use: Collection[str]) -> None:
        for entry in self._entries:
            if entry.pinned is not None and entry.pinned.holds(self._now):
                self._because(entry, f"pinned: {entry.pinned.reason}")
            if entry.id in in_use:
                self._because(entry, "in use")
            if timedelta() <= self._now - entry.time < timedelta(days=self._keep.days):
                self._because(entry, f"younger than {self._keep.days} days")
        for entry in self._future:
            self._because(entry, "dated after now")
        if self._future:
            self._warnings.append(
                f"{len(self._future)} sets are dated after now, from {self._future[0].id} on: they are kept and not counted"
            )
        for entry in self._good[-self._keep.at_least :]:
            self._because(entry, f"one of the newest {self._keep.at_least}")
        self._newest_of_each("day", self._keep.daily, lambda time: time.date())
        self._newest_of_each("week", self._keep.weekly, lambda time: time.isocalendar()[:2])
        self._newest_of_each("month", self._keep.monthly, lambda time: (time.year, time.month))
        for entry in self._entries:
            if not entry.usable:
                self._spare_bad(entry)

    def decisions(self) -> Decisions:
        kept = tuple((entry.id, tuple(self._reasons[entry.id])) for entry in self._entries if entry.id in self._reasons)
        removed = tuple((entry.id, self._why_removed(entry)) for entry in self._entries if entry.id not in self._reasons)
        return Decisions(kept, removed, tuple(Problem(text, Severity.WARNING) for text in self._warnings))

    def _because(self, entry: SetEntry, reason: str) -> None:
        self._reasons[entry.id].append(reason)

    def _newest_of_each(self, name: str, count: int, period: Callable[[datetime], Hashable]) -> None:
        """Keep the newest backup of each of the last `count` periods that have one, in UTC."""
        newest = {period(entry.time.astimezone(UTC)): entry for entry in self._good}
        last = sorted(newest.items(), key=lambda item: item[1].time)[-count:] if count else []
        for _, entry in last:
            self._because(entry, f"the newest of its {name}")

    def _spare_bad(self, entry: SetEntry) -> None:
        """What is no backup goes with its age, and only when enough good ones came after it. What may not be ours never goes."""
        newer = sum(1 for good in self._good if good.sequence > entry.sequence)
        if not entry.has_manifest:
            self._because(entry, "has no manifest: it may not be ours")
            self._warnings.append(f"{entry.id} has no manifest, so it is left alone: remove it by hand")
        elif not entry.readable and entry.state == "unprovable":
            self._because(entry, "a newer version made it")
        elif newer < self._keep.at_least:
            self._because(entry, f"{entry.state}, but only {newer} good ones are newer")

    def _jump(self) -> tuple[datetime, datetime] | None:
        """A gap in time, unlike the usual ones, that too few backups have followed to believe the clock after it."""
        times = [*(entry.time for entry in self._good), self._now]
        gaps = [(after - before, before, after) for before, after in pairwise(times)]
        if len(self._good) <= self._keep.at_least:
            return None
        usual = sorted(length for length, _, _ in gaps)[len(gaps) // 2]
        longest = max(_JUMP, timedelta(days=self._keep.days), 3 * usual)
        return next(((before, after) for length, before, after in gaps[-self._keep.at_least - 1 :] if length > longest), None)

    def _why_removed(self, entry: SetEntry) -> str:
        if entry.usable:
            return f"older than {self._keep.days} days, and no other rule keeps it"
        return f"{entry.state}, older than {self._keep.days} days, and {self._keep.at_least} good ones are newer"

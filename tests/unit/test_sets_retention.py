"""Which sets are kept, decided without a disk: each rule, what the clock may not do, and what holds for any history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from storekeeper.sets.entry import SetEntry
from storekeeper.sets.names import format_id
from storekeeper.sets.records import Pin
from storekeeper.sets.retention import Decisions, decide
from storekeeper.stack.loader import load_stack
from storekeeper.stack.mistakes import StackFileErrors
from storekeeper.stack.model import Keep
from tests.harness.campaign import Campaign
from tests.harness.sets import START

NONE = Keep(days=0, daily=0, weekly=0, monthly=0, at_least=1)
STATES = ("verified", "proven", "damaged", "unprovable", "incomplete")


def entry(sequence: int, time: datetime, state: str = "verified", pin: Pin | None = None, **more: bool) -> SetEntry:
    name = format_id(time, sequence)
    return SetEntry(name, sequence, time, Path("/none") / name, "demo", state, pinned=pin, **more)  # type: ignore[arg-type]


def daily(days: int, state: str = "verified", first: datetime = START) -> list[SetEntry]:
    return [entry(number + 1, first + timedelta(days=number), state) for number in range(days)]


def kept(decisions: Decisions) -> list[int]:
    return [int(set_id.rpartition("-")[2]) for set_id, _ in decisions.kept]


def reasons(decisions: Decisions, sequence: int) -> tuple[str, ...]:
    return next(why for set_id, why in decisions.kept if set_id.endswith(f"-{sequence:06d}"))


def test_the_newest_are_kept_whatever_their_age():
    assert kept(decide(daily(10), NONE.model_copy(update={"at_least": 3}), START + timedelta(days=50))) == [8, 9, 10]


def test_the_young_are_kept_to_the_second():
    keep, sets = NONE.model_copy(update={"days": 2}), daily(5)
    third_is_two_days_old = START + timedelta(days=4)
    assert kept(decide(sets, keep, third_is_two_days_old)) == [4, 5]
    assert kept(decide(sets[:4], keep, third_is_two_days_old - timedelta(seconds=1))) == [3, 4]


def test_the_newest_of_each_of_the_last_days_that_have_one_is_kept():
    sets = [entry(1, START), entry(2, START + timedelta(hours=5)), entry(3, START + timedelta(days=3)), entry(4, START + timedelta(days=9))]
    decisions = decide(sets, NONE.model_copy(update={"daily": 3}), START + timedelta(days=20))
    assert kept(decisions) == [2, 3, 4]
    assert reasons(decisions, 2) == ("the newest of its day",)


@pytest.mark.fault("C6")
def test_days_are_days_of_utc_whatever_the_zone_of_the_host(monkeypatch: pytest.MonkeyPatch):
    late, early = datetime(2025, 1, 9, 23, 30, tzinfo=UTC), datetime(2025, 1, 10, 0, 30, tzinfo=UTC)
    for zone in ("Pacific/Kiritimati", "America/Adak", "UTC"):
        monkeypatch.setenv("TZ", zone)
        assert kept(decide([entry(1, late), entry(2, early)], NONE.model_copy(update={"daily": 2}), early)) == [1, 2]


def test_weeks_are_iso_weeks_also_over_new_year():
    """2024-12-30 and 2025-01-05 are one week: both in week 1 of 2025."""
    sets = [entry(1, datetime(2024, 12, 29, 3, tzinfo=UTC)), *daily(7, first=datetime(2024, 12, 30, 3, tzinfo=UTC))]
    sets = [entry(number, each.time) for number, each in enumerate(sets, start=1)]
    assert kept(decide(sets, NONE.model_copy(update={"weekly": 2}), datetime(2025, 1, 20, tzinfo=UTC))) == [1, 8]


def test_months_are_those_of_their_year():
    sets = [
        entry(1, datetime(2024, 1, 31, tzinfo=UTC)),
        entry(2, datetime(2025, 1, 2, tzinfo=UTC)),
        entry(3, datetime(2025, 1, 3, tzinfo=UTC)),
    ]
    assert kept(decide(sets, NONE.model_copy(update={"monthly": 2}), datetime(2025, 2, 1, tzinfo=UTC))) == [1, 3]


def test_a_set_kept_by_several_rules_says_all_of_them():
    decisions = decide(daily(1), Keep(), START)
    assert reasons(decisions, 1) == (
        "younger than 30 days",
        "one of the newest 3",
        "the newest of its day",
        "the newest of its week",
        "the newest of its month",
    )


def test_a_removed_set_says_why():
    assert decide(daily(2), NONE, START + timedelta(days=2)).removed == ((daily(2)[0].id, "older than 0 days, and no other rule keeps it"),)


@pytest.mark.parametrize("state", ["damaged", "unprovable", "incomplete"])
@pytest.mark.fault("C1")
def test_what_is_no_backup_counts_for_no_rule(state: str):
    sets = [*daily(2), *(entry(number, START + timedelta(days=number), state) for number in range(3, 30))]
    decisions = decide(sets, Keep(days=0, daily=1, weekly=1, monthly=1, at_least=1), START + timedelta(days=40))
    assert {1, 2} & set(kept(decisions)) == {2}
    assert reasons(decisions, 3) == (f"{state}, but only 0 good ones are newer",)


@pytest.mark.parametrize("state", ["damaged", "unprovable", "incomplete"])
def test_what_is_no_backup_goes_with_its_age_when_enough_good_ones_are_newer(state: str):
    keep = Keep(days=10, daily=0, weekly=0, monthly=0, at_least=2)
    sets = [entry(1, START, state), entry(2, START + timedelta(days=1)), entry(3, START + timedelta(days=2))]
    assert kept(decide(sets, keep, START + timedelta(days=10) - timedelta(seconds=1))) == [1, 2, 3]
    assert kept(decide(sets, keep, START + timedelta(days=10))) == [2, 3]
    assert kept(decide(sets[:2], keep, START + timedelta(days=60))) == [1, 2]


@pytest.mark.fault("C13")
def test_a_pinned_set_outlives_every_rule_until_its_pin_ends():
    until = START + timedelta(days=30)
    sets = [entry(1, START, pin=Pin("before a restore", until)), entry(2, START, "damaged", Pin("mine")), *daily(5)[2:]]
    before, after = decide(sets, NONE, until - timedelta(seconds=1)), decide(sets, NONE, until)
    assert kept(before) == [1, 2, 5]
    assert reasons(before, 1) == ("pinned: before a restore",)
    assert kept(after) == [2, 5]


def test_a_set_in_use_is_kept():
    sets = daily(5)
    decisions = decide(sets, NONE, START + timedelta(days=50), in_use=[sets[0].id])
    assert kept(decisions) == [1, 5]
    assert reasons(decisions, 1) == ("in use",)


@pytest.mark.fault("C2")
@pytest.mark.control("C2")
def test_nothing_goes_after_a_run_that_failed():
    decisions = decide(daily(60), NONE, START + timedelta(days=61), newest_run_failed=True)
    assert len(decisions.kept) == 60
    assert decide(daily(60), NONE, START + timedelta(days=61)).removed, "the control: otherwise sets go"


@pytest.mark.fault("C2")
def test_sixty_days_of_failed_backups_cost_no_set():
    sets = daily(20)
    for day in range(60):
        assert decide(sets, Keep(), sets[-1].time + timedelta(days=day), newest_run_failed=True).removed == ()


@pytest.mark.fault("C5")
def test_a_clock_in_1970_removes_nothing_and_says_so():
    decisions = decide(daily(60), NONE, datetime(1970, 1, 1, tzinfo=UTC))
    assert decisions.removed == ()
    assert "the clock is behind the newest set" in decisions.warnings[0].message


@pytest.mark.fault("C4")
@pytest.mark.control("C4")
def test_a_clock_that_jumps_a_year_ahead_and_back_removes_nothing_it_should_not():
    """Five sets of one day; then a run a year ahead, then the clock is right again. Without the check of gaps three of them would go."""
    keep, sets = Keep(), [entry(number, START + timedelta(hours=number)) for number in range(1, 6)]
    assert decide(sets, keep, START + timedelta(days=1)).removed == ()
    ahead = [*sets, entry(6, START + timedelta(days=366))]
    jumped = decide(ahead, keep, START + timedelta(days=366))
    assert jumped.removed == ()
    assert "if the clock jumped, ages are wrong" in jumped.warnings[0].message
    control = decide([*sets, entry(6, START + timedelta(days=80))], keep, START + timedelta(days=80))
    assert len(control.removed) == 3
    back = [*ahead, entry(7, START + timedelta(hours=8))]
    assert decide(ahead, keep, START + timedelta(hours=7)).removed == ()
    again = decide(back, keep, START + timedelta(hours=9))
    assert again.removed == ()
    assert reasons(again, 6) == ("dated after now",)
    assert "1 sets are dated after now" in again.warnings[0].message


@pytest.mark.fault("C4")
def test_sets_dated_after_now_do_not_take_the_places_of_real_ones():
    sets = [
        *daily(3),
        *(entry(number, START + timedelta(days=400 + number)) for number in range(4, 10)),
        entry(10, START + timedelta(days=3)),
    ]
    decisions = decide(sets, NONE.model_copy(update={"at_least": 2, "daily": 3}), START + timedelta(days=4))
    assert kept(decisions) == [2, 3, *range(4, 10), 10]


def test_a_long_gap_is_believed_once_enough_sets_have_followed_it():
    keep, old = NONE, daily(10)
    later = START + timedelta(days=200)
    one, two = entry(11, later), entry(12, later + timedelta(days=1))
    assert decide([*old, one], keep, later).removed == ()
    assert kept(decide([*old, one, two], keep, later + timedelta(days=1))) == [12]


def test_backups_that_are_always_far_apart_are_no_jump():
    sets = [entry(number, START + timedelta(days=100 * number)) for number in range(1, 9)]
    assert kept(decide(sets, NONE, sets[-1].time)) == [8]


def test_what_has_no_manifest_is_never_removed():
    sets = [entry(1, START, "damaged", readable=False, has_manifest=False), *daily(9)[1:]]
    decisions = decide(sets, NONE, START + timedelta(days=60))
    assert kept(decisions) == [1, 9]
    assert "remove it by hand" in decisions.warnings[0].message


def test_a_set_of_a_newer_version_is_never_removed():
    sets = [entry(1, START, "unprovable", readable=False), *daily(9)[1:]]
    assert reasons(decide(sets, NONE, START + timedelta(days=60)), 1) == ("a newer version made it",)


def test_no_sets_are_no_reason_to_fail():
    assert decide([], Keep(), START) == Decisions((), ())


@pytest.mark.parametrize("wrong", [{"at_least": 0}, {"days": -1}, {"daily": -1}, {"weekly": "4"}, {"months": 1}])
@pytest.mark.fault("C7")
def test_a_policy_that_keeps_nothing_cannot_be_declared(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        Keep(**wrong)  # type: ignore[arg-type]


HISTORIES = st.lists(
    st.tuples(
        st.integers(-3 * 24 * 60, 40 * 24 * 60),  # minutes since the set before: also backwards
        st.sampled_from(STATES + ("verified",) * 5),
        st.sampled_from([None] * 8 + [Pin("mine"), Pin("safety", START + timedelta(days=100))]),
        st.booleans(),
    ),
    max_size=60,
)
POLICIES = st.builds(
    Keep,
    days=st.integers(0, 60),
    daily=st.integers(0, 10),
    weekly=st.integers(0, 6),
    monthly=st.integers(0, 6),
    at_least=st.integers(1, 5),
)


@pytest.mark.fault("C14")
def test_whatever_the_history_no_rule_is_broken(campaign: Campaign):
    trials, tried, violated = campaign.trials(reduced=1_000, full=10_000), 0, 0

    @given(HISTORIES, POLICIES, st.integers(-400, 1200), st.booleans())
    @settings(max_examples=trials, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def hold(history: list[tuple[int, str, Pin | None, bool]], keep: Keep, day_of_run: int, failed: bool) -> None:
        nonlocal tried, violated
        tried, violated = tried + 1, violated + 1
        _hold_to_the_rules(history, keep, START + timedelta(days=day_of_run), failed)
        violated -= 1

    try:
        hold()
    finally:
        campaign.found(tried, "generated histories and policies", f"{violated} rules broken")
    assert tried >= trials


def _hold_to_the_rules(history: list[tuple[int, str, Pin | None, bool]], keep: Keep, now: datetime, failed: bool) -> None:
    time, sets = START, []
    for number, (minutes, state, pin, _) in enumerate(history, start=1):
        time += timedelta(minutes=minutes)
        sets.append(entry(number, time, state, pin))
    in_use = {each.id for each, (*_, used) in zip(sets, history, strict=True) if used and each.sequence % 5 == 0}
    decisions = decide(sets, keep, now, newest_run_failed=failed, in_use=in_use)
    _check_invariants(sets, keep, now, failed, in_use, decisions)
    assert decide(list(reversed(sets)), keep, now, newest_run_failed=failed, in_use=in_use) == decisions


def _check_invariants(sets: Sequence[SetEntry], keep: Keep, now: datetime, failed: bool, in_use: set[str], decisions: Decisions) -> None:
    by_id = {each.id: each for each in sets}
    stay, go = {set_id for set_id, _ in decisions.kept}, {set_id for set_id, _ in decisions.removed}
    good = [each for each in sets if each.usable]
    present = [each for each in good if each.time <= now]
    assert stay | go == set(by_id)
    assert not stay & go
    assert all(why for _, why in decisions.kept)
    assert all(why for _, why in decisions.removed)
    assert not (failed and go), "a run failed"
    assert not any(by_id[set_id].time > now for set_id in go), "dated after now"
    assert not (good and good[-1].time > now and go), "the clock is behind"
    assert not any(pin is not None and pin.holds(now) for pin in (by_id[set_id].pinned for set_id in go)), "pinned"
    assert not go & in_use
    assert {each.id for each in present[-keep.at_least :]} <= stay, "the newest good ones"
    assert not any(now - by_id[set_id].time < timedelta(days=keep.days) for set_id in go), "young"
    for count, period in ((keep.daily, "%Y%m%d"), (keep.weekly, "%G%V"), (keep.monthly, "%Y%m")):
        newest: dict[str, SetEntry] = {each.time.strftime(period): each for each in present}
        wanted = sorted(newest)[-count:] if count else []
        assert {newest[name].id for name in wanted} <= stay, period
    for set_id in go:
        newer_good = [each for each in present if each.sequence > by_id[set_id].sequence]
        assert len(newer_good) >= keep.at_least, "something is removed that too few good ones follow"


@pytest.mark.control("C14")
def test_the_invariants_catch_a_rule_that_forgets_the_newest_good_set():
    """The control: decisions that go by age alone break them."""
    sets = [entry(1, START), entry(2, START + timedelta(days=1), "damaged")]
    naive = Decisions(((sets[1].id, ("newest",)),), ((sets[0].id, "old"),))
    with pytest.raises(AssertionError):
        _check_invariants(sets, NONE, START + timedelta(days=9), False, set(), naive)


@pytest.mark.fault("C5")
@pytest.mark.control("C5")
def test_a_set_that_was_taken_in_1970_is_the_newest_all_the_same():
    """The clock of a host without a battery. The control: in the order of the clock the newest backup would be the oldest, and go."""
    sets = [*daily(9), entry(10, datetime(1970, 1, 1, 0, 5, tzinfo=UTC)), entry(11, datetime(1970, 1, 1, 1, 5, tzinfo=UTC))]
    now, keep = START + timedelta(days=60), NONE.model_copy(update={"at_least": 2})
    assert {10, 11} <= set(kept(decide(sets, keep, now)))
    by_clock = sorted(sets, key=lambda each: each.time)
    naive = decide([replace(each, sequence=number) for number, each in enumerate(by_clock, start=1)], keep, now)
    assert [int(set_id.rpartition("-")[2]) for set_id, _ in naive.removed][:2] == [10, 11]


@pytest.mark.fault("C7")
@pytest.mark.parametrize("policy", ["{}", "", "[]", "30", "{at_least: 0}", "{days: -1}", "{daily: many}", "{forever: true}"])
def test_a_policy_that_is_empty_or_keeps_nothing_is_refused_when_the_stack_file_is_read(tmp_path: Path, policy: str):
    file = tmp_path / "demo.yml"
    file.write_text(f"stack: demo\nstores:\n  papers: {{kind: files, path: /srv}}\nbackup:\n  keep: {policy}\n")
    if policy == "{}":
        assert load_stack(file).backup.keep == Keep(), "none of its own is the one that is documented, which keeps a month"
        return
    with pytest.raises(StackFileErrors, match="keep"):
        load_stack(file)


@pytest.mark.control("C7")
def test_a_policy_of_nothing_that_nobody_refuses_is_taken_for_one_of_everything():
    nothing = Keep.model_construct(days=0, daily=0, weekly=0, monthly=0, at_least=0)
    assert decide(daily(100), nothing, START + timedelta(days=200)).removed == (), "no set would ever go, and the disk fills"
    assert len(decide(daily(100), NONE, START + timedelta(days=101)).removed) == 99

"""What cron and systemd are given for a schedule: the same moments, and words that neither of them reads as anything else."""

from __future__ import annotations

from typing import Any

import pytest

from operations.program import Program
from operations.schedule import cron_lines, timers
from storekeeper.stack.loader import StackFileErrors, check_text
from storekeeper.stack.model import Stack

PROGRAM = Program("/opt/sk/bin/storekeeper", "/etc/storekeeper")


def stack(schedule: str, scheduler: str = "{by: systemd}") -> Stack:
    text = f"stack: demo\nstores: {{papers: {{kind: files, path: /srv/papers}}}}\nschedule: {schedule}\nscheduler: {scheduler}\n"
    return check_text(text, "demo.yml")


@pytest.mark.parametrize(
    ("at", "calendar"),
    [
        ("0 3 * * *", ["*-*-* 03:00:00"]),
        ("*/15 * * * *", ["*-*-* *:00,15,30,45:00"]),
        ("30 4 * * 0", ["Sun *-*-* 04:30:00"]),
        ("0 0 1,15 6-8 *", ["*-06,07,08-01,15 00:00:00"]),
        ("0 0 13 * 5", ["*-*-13 00:00:00", "Fri *-*-* 00:00:00"]),
        ("* * * * *", ["*-*-* *:*:00"]),
    ],
)
def test_a_time_is_the_same_moments_for_systemd(at: str, calendar: list[str]) -> None:
    (timer,) = timers(stack(f"{{backup: '{at}'}}"), PROGRAM)
    assert list(timer.calendar) == calendar
    (timer,) = timers(stack(f"{{backup: '{at}'}}", "{by: systemd, zone: Europe/Berlin}"), PROGRAM)
    assert list(timer.calendar) == [f"{each} Europe/Berlin" for each in calendar]


def test_each_entry_has_a_timer_of_its_own_name() -> None:
    text = "[{verb: verify, at: 0 4 * * *}, {verb: verify, arguments: [--all], at: 0 5 * * 0}, {verb: backup, at: 0 3 * * *}]"
    found = timers(stack(text), PROGRAM)
    assert [timer.name for timer in found] == ["storekeeper-demo-verify", "storekeeper-demo-verify-2", "storekeeper-demo-backup"]
    assert found[1].command == '"/opt/sk/bin/storekeeper" "--config" "/etc/storekeeper" "--quiet" "verify" "demo" "--all"'


def test_a_path_with_signs_of_systemd_is_taken_for_what_it_is() -> None:
    (timer,) = timers(stack("{backup: '0 3 * * *'}"), Program('/opt/a "b" $HOME %h\\x/storekeeper', "/etc/sk"))
    assert timer.command.startswith(r'"/opt/a \"b\" $$HOME %%h\\x/storekeeper" ')


def test_only_one_of_both_starts_a_stack() -> None:
    for scheduler, cron, systemd in (("{by: cron}", 2, 0), ("{by: systemd}", 0, 1)):
        found = stack("{backup: '0 3 * * *'}", scheduler)
        assert (len(cron_lines(found, PROGRAM, "host")), len(timers(found, PROGRAM))) == (cron, systemd)
    assert cron_lines(stack("{}", "{by: cron}"), PROGRAM, "host") == []


def test_cron_asks_each_hour_what_is_owed_at_a_minute_that_is_the_hosts_own() -> None:
    found = stack("{backup: '0 3 * * *'}", "{by: cron, spread: 10m}")
    first, owed = cron_lines(found, PROGRAM, "host-1")
    assert first.command == "/opt/sk/bin/storekeeper --config /etc/storekeeper --quiet --spread 600 backup demo"
    assert owed.command == "/opt/sk/bin/storekeeper --config /etc/storekeeper --quiet due demo"
    assert cron_lines(found, PROGRAM, "host-1")[1] == owed
    assert len({cron_lines(found, PROGRAM, f"host-{number}")[1].time for number in range(40)}) > 10


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        ("{zone: Europe/Berlin}", "cron counts in the host's own zone"),
        ("{by: systemd, zone: Europe/Atlantis}", "expected a time zone that this machine knows"),
        ("{by: systemd, zone: ../../etc/passwd}", "expected a time zone"),
        ("{by: anacron}", "cron"),
        ("{spread: 2h}", "at most 1h"),
    ],
)
def test_what_cannot_be_kept_is_refused(scheduler: str, sentence: str) -> None:
    with pytest.raises(StackFileErrors, match=sentence):
        stack("{backup: '0 3 * * *'}", scheduler)


def test_control_a_scheduler_that_can_be_kept_is_read() -> None:
    known: dict[str, Any] = stack("{backup: '0 3 * * *'}", "{by: systemd, zone: Europe/Berlin, spread: 1h}").scheduler.model_dump(
        mode="json"
    )
    assert known == {"by": "systemd", "zone": "Europe/Berlin", "spread": "1h"}

"""Schedules as real cron and real systemd carry them out, what was missed, and what site.py leaves alone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from operations.program import Program
from operations.schedule import timers
from storekeeper.stack.cron import CronTime
from storekeeper.stack.loader import check_text
from tests.harness.guest import booted
from tests.harness.target import PROGRAM, Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

_STACK = "stack: {name}\nstores: {{papers: {{kind: files, path: /srv/{name}/papers}}}}\nschedule: {schedule}\nscheduler: {scheduler}\n"


class Server(Target):
    def schedule(self, name: str, schedule: str, scheduler: str, **more: Any) -> None:
        self.said("mkdir", "-p", f"/srv/{name}/papers")
        self.said("touch", f"/srv/{name}/papers/a")
        text = _STACK.format(name=name, schedule=schedule, scheduler=scheduler)
        self.declare(storekeeper_stacks={name: text}, **more)

    def site(self) -> None:
        done = self.deploy("site")
        assert done.code == 0, done.said
        again = self.deploy("site")
        assert (again.code, again.changed) == (0, []), again.said

    def jobs(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.said(PROGRAM, "--json", "jobs", name))["result"]["jobs"]
        return found

    def files(self) -> list[str]:
        return sorted(self.guest.run("ls /etc/cron.d /etc/systemd/system | grep storekeeper- || true").stdout.split())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="schedules", number=87) as guest:
        yield Server(guest, tmp_path_factory.mktemp("control"))


def _wait_until(holds: Callable[[], bool], patience_s: float = 100.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.5)


@pytest.mark.fault("I5", "G11")
def test_systemd_begins_a_backup_in_the_environment_that_it_gives(server: Server) -> None:
    server.schedule("alone", "{backup: '* * * * *'}", "{by: systemd}")
    server.site()
    before = {job["id"] for job in server.jobs("alone")}
    _wait_until(lambda: any(job["outcome"] == "ok" for job in server.jobs("alone") if job["id"] not in before))
    status = json.loads(server.guest.run(f"{PROGRAM} --json status alone", check=False).stdout)
    assert status["result"]["stacks"]["alone"]["next_run"] is not None


def test_a_change_of_the_scheduler_leaves_one_of_both_and_a_stack_that_is_gone_none(server: Server) -> None:
    server.schedule("moved", "{backup: '0 3 * * *'}", "{by: cron}")
    server.site()
    assert server.files() == ["storekeeper-moved"]
    server.schedule("moved", "{backup: '0 3 * * *'}", "{by: systemd, zone: Europe/Berlin, spread: 10m}")
    server.site()
    assert server.files() == ["storekeeper-moved-backup.service", "storekeeper-moved-backup.timer"]
    assert "storekeeper-moved-backup.timer" in server.said("systemctl", "list-timers", "--all", "--no-legend")
    server.guest.run("printf '# mine\\n' >/etc/cron.d/storekeeper-mine")
    server.declare()
    server.site()
    assert server.files() == ["storekeeper-mine"]
    assert "storekeeper-moved" not in server.said("systemctl", "list-timers", "--all", "--no-legend")
    server.said("rm", "/etc/cron.d/storekeeper-mine")


@pytest.mark.parametrize(
    "at", ["0 3 * * *", "*/15 8-10 * * *", "30 4 * * 0", "0 0 13 * 5", "0 0 29 2 *", "5 4 1,15 */3 *", "59 23 31 12 *", "0 0 1-7 * *"]
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
def test_systemd_reads_the_same_moments_as_we_do(server: Server, at: str, zone: str) -> None:
    """The next three, from before a change of the clocks on."""
    begin = datetime(2026, 3, 20, 12, tzinfo=UTC)
    (timer,) = timers(
        check_text(_STACK.format(name="same", schedule=f"{{backup: '{at}'}}", scheduler=f"{{by: systemd, zone: {zone}}}"), "s"), Program()
    )
    typed = [
        f"TZ=UTC systemd-analyze calendar --iterations=8 --base-time='{begin:%Y-%m-%d %H:%M:%S} UTC' '{each}'" for each in timer.calendar
    ]
    told = server.guest.run("; ".join(typed)).stdout
    theirs = sorted(set(re.findall(r"(?:Next elapse|Iter\w*\.? #[0-9]+|\(in UTC\)): \w+ ([0-9: -]{19}) UTC", told)))
    ours, moment = [], begin
    for _ in range(3):
        moment = CronTime.parse(at).next_after(moment, ZoneInfo(zone))
        ours.append(f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}")
    assert theirs[:3] == ours


@pytest.mark.control("I5")
def test_control_there_a_program_is_not_found_by_its_name_and_nobody_is_at_home(server: Server) -> None:
    outside = "systemd-run --quiet --wait --pipe sh -c"
    server.guest.run("ln -sf /opt/storekeeper/current/bin/storekeeper /opt/by-name")
    assert server.guest.run("env PATH=$PATH:/opt by-name --version").returncode == 0
    assert server.guest.run(f"{outside} 'by-name --version'", check=False).returncode == 127
    assert server.guest.run(f"{outside} 'echo home=$HOME'").stdout == "home=\n"


@pytest.mark.fault("I6")
@pytest.mark.control("I6")
def test_what_a_host_that_was_off_has_missed_is_caught_up_with_once(server: Server) -> None:
    server.schedule("asleep", "{backup: '0 3 * * *'}", "{by: cron}")
    server.site()
    due = f"{PROGRAM} --json due asleep"
    assert json.loads(server.guest.run(due).stdout)["result"]["runs"] == [], "nothing is owed of the time before"
    # as it stands on a host that looked last years ago, and was off since
    server.guest.run('sed -i \'s/"20[0-9T:.Z-]*"/"2020-01-01T00:00:00Z"/\' /var/lib/storekeeper/asleep/due.json')
    assert server.jobs("asleep") == [], "cron itself has forgotten it"
    (run,) = json.loads(server.guest.run(due).stdout)["result"]["runs"]
    assert (run["verb"], run["outcome"]) == ("backup", "ok")
    assert json.loads(server.guest.run(due).stdout)["result"]["runs"] == []
    assert len(server.jobs("asleep")) == 1


@pytest.mark.fault("I1")
def test_a_schedule_that_nobody_starts_is_an_alarm_at_the_control_machine(server: Server) -> None:
    server.schedule("silent", "{backup: '0 * * * *'}", "{by: cron}")
    server.site()
    server.said("systemctl", "stop", "cron")
    try:
        server.said(PROGRAM, "--quiet", "backup", "silent")
        status = server.guest.run(f"faketime -f '+1d' {PROGRAM} --json status silent", check=False)
        alerts = json.loads(status.stdout)["result"]["stacks"]["silent"]["alerts"]
        assert any("its schedule allows 3 h" in alert["message"] for alert in alerts), alerts
        assert status.returncode == 4
    finally:
        server.said("systemctl", "start", "cron")


@pytest.mark.control("I1")
def test_control_a_stack_that_declares_no_schedule_may_be_as_old_as_it_likes(server: Server) -> None:
    server.schedule("quiet", "{}", "{by: cron}")
    server.site()
    server.said(PROGRAM, "--quiet", "backup", "quiet")
    status = server.guest.run(f"faketime -f '+300d' {PROGRAM} --json status quiet", check=False)
    alerts = json.loads(status.stdout)["result"]["stacks"]["quiet"]["alerts"]
    assert not any("its schedule allows" in alert["message"] for alert in alerts), alerts


def test_a_host_without_what_is_declared_to_start_its_schedules_is_refused(server: Server) -> None:
    server.schedule("none", "{backup: '0 3 * * *'}", "{by: cron}")
    server.guest.run("mv /usr/sbin/cron /usr/sbin/cron.away")
    try:
        refused = server.deploy("site")
        assert refused.code == 1
        assert "has no cron to start the schedules" in refused.said
    finally:
        server.guest.run("mv /usr/sbin/cron.away /usr/sbin/cron")

"""What starts the verbs of a stack's schedule: a file of cron, or units of systemd. Both are written from the stack file alone."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.facts import get_fact

from storekeeper.stack.cron import CronTime
from storekeeper.stack.model import Stack
from storekeeper.stack.schedule import ScheduleEntry

from .facts.schedule import Schedules
from .program import CONFIG, Program, unread

SYSTEM = "/etc/cron.d"
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class CronLine:
    """One line of a file in /etc/cron.d (crontab(5)): its time, and the command with every word quoted."""

    time: str
    command: str


@dataclass(frozen=True)
class Timer:
    """One entry of a schedule as a timer and its service (systemd.timer(5)); `name` is that of both, without its ending."""

    name: str
    about: str
    calendar: Sequence[str]
    command: str
    spread_s: int


def owner_of(directory: str, user: str) -> str:
    """Who must own a directory of schedules and the files in it: cron reads nothing but root's from its own, whoever the lines run as."""
    return "root" if directory == SYSTEM else user


def cron_file(stack: str) -> str:
    """Its name in the directory of cron files: no dot, or cron does not read it."""
    return f"storekeeper-{stack}"


def cron_lines(stack: Stack, program: Program, target: str) -> list[CronLine]:
    """What cron runs for a stack. It prints nothing but what went wrong, which is what cron mails.

    Cron forgets what it could not start, so it also asks each hour what is owed. A percent sign means a new line to cron: it is escaped.
    """
    if not stack.schedule or stack.scheduler.by != "cron":
        return []
    spread = int(stack.scheduler.spread.total_seconds()) if stack.scheduler.spread else 0
    lines = [CronLine(str(entry.at), _command(stack, entry, program, spread)) for entry in stack.schedule]
    minute = int.from_bytes(hashlib.sha256(f"{target}\0{stack.stack}".encode()).digest()[:4]) % 60
    owed = [program.path, "--config", program.config, "--quiet", "due", stack.stack]
    return [*lines, CronLine(f"{minute} * * * *", _quoted(owed))]


def timers(stack: Stack, program: Program) -> list[Timer]:
    """What systemd starts for a stack. It catches up by itself, once, what was missed."""
    if stack.scheduler.by != "systemd":
        return []
    spread = int(stack.scheduler.spread.total_seconds()) if stack.scheduler.spread else 0
    found: list[Timer] = []
    for entry in stack.schedule:
        base = f"storekeeper-{stack.stack}-{entry.verb}"
        number = sum(timer.name == base or timer.name.startswith(f"{base}-") for timer in found)
        words = [program.path, "--config", program.config, "--quiet", entry.verb, stack.stack, *entry.arguments]
        found.append(
            Timer(
                name=f"{base}-{number + 1}" if number else base,
                about=" ".join([entry.verb, stack.stack, *entry.arguments]),
                calendar=list(_calendar(entry.at, stack.scheduler.zone)),
                command=" ".join(_as_systemd_reads(word) for word in words),
                spread_s=spread,
            )
        )
    return found


@operation()
def only(
    cron: Collection[str], units: Collection[str], config: str = CONFIG, cron_directory: str = SYSTEM, unit_directory: str = UNITS
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Remove the schedules that were written for stacks of this configuration and are declared no longer. Any other file is left alone.

    + cron: the names of the cron files that stay
    + units: the names of the timers that stay, without their ending
    + config: the directory of the configuration
    + cron_directory: where cron files are
    + unit_directory: where units are

    **Example:**

    .. code:: python

        schedule.only(name="No other schedules", cron=["storekeeper-maestro"], units=[])
    """
    asked = {"config": config, "cron_directory": cron_directory, "unit_directory": unit_directory}
    found = get_fact(host.state, host, Schedules, kwargs=asked, apply_failed_hosts=False)
    if found is None:
        yield unread("which schedules there are")
        return
    gone_files = sorted(set(found.cron) - set(cron))
    gone_timers = sorted({name.rpartition(".")[0] for name in found.units} - set(units))
    if not gone_files and not gone_timers:
        host.noop(f"{len(found.cron)} cron files and {len(set(units))} timers are those that are declared")
        return
    for name in gone_files:
        yield StringCommand(f"rm -f {shlex.quote(f'{cron_directory}/{name}')}")
    for name in gone_timers:
        timer, service = (shlex.quote(f"{unit_directory}/{name}.{kind}") for kind in ("timer", "service"))
        yield StringCommand(
            f"systemctl disable --quiet --now {shlex.quote(f'{name}.timer')}; rm -f {timer} {service}; systemctl daemon-reload"
        )


def _command(stack: Stack, entry: ScheduleEntry, program: Program, spread: int) -> str:
    own = ["--spread", str(spread)] if spread else []
    return _quoted([program.path, "--config", program.config, "--quiet", *own, entry.verb, stack.stack, *entry.arguments])


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words).replace("%", r"\%")


def _as_systemd_reads(word: str) -> str:
    """systemd.service(5), "Command lines": in double quotes, with its specifiers and variables taken for what they are."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _calendar(time: CronTime, zone: str | None) -> Iterator[str]:
    """The same moments as systemd.time(7) writes them. Two where cron's rule is "one of both days is enough"."""
    clock = f"{_listed(time.hours, 24)}:{_listed(time.minutes, 60)}:00"
    months, days = _listed(time.months, 12), _listed(time.days, 31)
    weekdays = "" if len(time.weekdays) == 7 else ",".join(_DAYS[day] for day in sorted(time.weekdays)) + " "
    ending = f" {zone}" if zone else ""
    if time.either_day:
        yield f"*-{months}-{days} {clock}{ending}"
        yield f"{weekdays}*-{months}-* {clock}{ending}"
    else:
        yield f"{weekdays}*-{months}-{days} {clock}{ending}"


def _listed(values: Collection[int], all_of: int) -> str:
    return "*" if len(values) == all_of else ",".join(f"{value:02d}" for value in sorted(values))

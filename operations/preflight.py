"""What must hold on a host before a deploy does anything there. A refusal is one sentence for its host, and stops only that host."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

from pyinfra import host
from pyinfra.api import FactBase, FunctionCommand, Host, operation
from pyinfra.api.facts import get_fact

from .facts.ground import NO_SUDO, Found, Ground, Login, Logins
from .login import STRICT
from .packing import FLOOR
from .program import one_line, refused, unread, value
from .release import PYTHON
from .report import PATIENCE_S
from .wire import watch

DISTRIBUTIONS: Mapping[str, Sequence[str]] = {"debian": ("12", "13")}  # that are provisioned
_APART_S = 60.0  # how far two clocks may be apart: names of sets, schedules and ages are times
_BYTES, _INODES = 64 << 20, 1_000  # for records, configuration and a release; a backup foresees its own room
T = TypeVar("T")
_LENIENT = ("no", "off", "accept-new", "ask")


@operation()
def ready(
    places: Sequence[str] = (),
    puts: Sequence[str] = (),
    python: str | None = PYTHON,
    root: bool = True,
    distributions: Mapping[str, Sequence[str]] | None = None,
    cron: bool = False,
    systemd: bool = False,
) -> Generator[FunctionCommand, None, None]:
    """
    Refuse a host on which the deploy could not end well, before anything is done there.

    + places: the directories that will be written to
    + puts: those that pyinfra itself puts files into, which it does by way of its temporary directory
    + python: the interpreter that a release of the host program is made with; None where there is none
    + root: whether what follows needs the rights of root
    + cron: whether schedules are cron's
    + systemd: whether schedules are systemd's
    + distributions: the only ones that what follows is made for; any Linux when left out

    **Example:**

    .. code:: python

        preflight.ready(name="Preflight", places=["/var/lib/storekeeper"])
    """
    watch(host)
    if (why := _unsafe_wire(host)) is not None:
        yield refused(why)
        return
    login = _asked(Logins, **_tried())
    if login is None:
        yield unread(f"who logs in to {host.name}")
        return
    if (why := next(_unfit(login, puts=bool(puts)), None)) is not None:
        yield refused(why)
        return
    if puts and (way := _on_the_way()) is not None:
        puts = [*puts, str(PurePosixPath(login.home or "/") / way)]
    wanted = [value("places", place) for place in dict.fromkeys([*places, *puts])]
    before = time.time()
    found = _asked(Ground, places=wanted, python="false" if python is None else value("python", python))
    if found is None:
        yield unread(f"what {host.name} is")
        return
    refusals = (
        _refusals(found, python, root=root, distributions=distributions, between=(before, time.time())),
        _no_scheduler(found, cron=cron, systemd=systemd),
        _no_room(found, puts),
    )
    if (why := next(chain(*refusals), None)) is not None:
        yield refused(why)
        return
    uses = " and ".join(word for word, is_used in (("cron", cron), ("systemd timers", systemd)) if is_used)
    host.noop(f"{found.name} is fit: {found.distribution} {found.version}{', with schedules by ' + uses if uses else ''}")


def _asked(fact: type[FactBase[T]], **arguments: Any) -> T | None:
    """A fact of this host; None where it could not be read in the time that a host may take to say how it is."""
    known = {**arguments, "_timeout": int(host.data.get("storekeeper_patience", PATIENCE_S))}
    return cast("T | None", get_fact(host.state, host, fact, kwargs=known, apply_failed_hosts=False))


def _tried() -> dict[str, Any]:
    """What of sudo is to be tried: nothing where it is not used, or gets a password."""
    known = _rights()
    is_tried = bool(known.get("_sudo")) and not known.get("_sudo_password")
    return {"sudo": is_tried, "sudo_user": known.get("_sudo_user") or None, "_sudo": False}


def _rights() -> Mapping[str, Any]:
    """How the operation works on the host: with sudo, and as whom."""
    return cast("Mapping[str, Any]", host.current_op_global_arguments or {})


def _on_the_way() -> PurePosixPath | None:
    """Where pyinfra puts what goes somewhere with sudo: a relative path is below the home of who logs in. None without sudo."""
    return PurePosixPath(host.get_temp_dir_config()) if _rights().get("_sudo") else None  # type: ignore[no-untyped-call]


def _unfit(login: Login, *, puts: bool) -> Iterator[str]:
    instead = "log in as root and declare storekeeper_sudo = False"
    if login.chatter is not None:
        told = one_line(login.chatter)[:60]
        yield f"each login of {login.user} on {host.name} prints {told!r}, which mixes with every answer: take it out of ~/.bashrc"
    if login.sudo == NO_SUDO:
        yield f"there is no sudo on {host.name}: apt-get install sudo, or {instead}"
    if login.sudo is not None:
        line = f"{login.user} ALL=(ALL) NOPASSWD: ALL"
        yield f"sudo does not work for {login.user} on {host.name} ({login.sudo}): put '{line}' into /etc/sudoers.d, or {instead}"
    way = _on_the_way() if puts else None
    if login.home is None and way is not None and not way.is_absolute():
        yield f"{login.user} has no home on {host.name} that can be written to, and files go there first: mkhomedir_helper {login.user}"
    if puts and not login.umask & 0o002:
        yield f"what {login.user} makes on {host.name} can be written by everybody (umask {login.umask:03o}): set UMASK 022 (pam_umask)"


def _no_scheduler(found: Found, *, cron: bool, systemd: bool) -> Iterator[str]:
    if cron and not found.cron:
        yield f"{found.name} has no cron to start the schedules: apt-get install cron, or declare scheduler: {{by: systemd}}"
    if systemd and not found.systemd:
        yield f"{found.name} is not run by systemd, which a stack declares as its scheduler: declare scheduler: {{by: cron}}"


def _unsafe_wire(target: Host) -> str | None:
    """A key that is not compared could be anybody's."""
    known: Any = target.connector.data  # with pyinfra's own default
    checking = str(known.get(STRICT, "yes"))
    if checking not in _LENIENT:
        return None
    return f"{STRICT} is {checking}: whoever answers at {target.name} would be believed; declare yes, and its key in known_hosts"


def _refusals(
    found: Found, python: str | None, *, root: bool, distributions: Mapping[str, Sequence[str]] | None, between: tuple[float, float]
) -> Iterator[str]:
    if found.system != "Linux":
        yield f"{found.name} runs {found.system}; this is made for Linux"
    if distributions is not None and found.version not in distributions.get(found.distribution, ()):
        known = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in distributions.items())
        yield f"{found.name} runs {f'{found.distribution} {found.version}'.strip() or 'what has no name'}; this is made for {known}"
    if root and found.user != 0:
        yield f"on {found.name} this is user {found.user}, not root: declare storekeeper_sudo = True, or log in as root"
    if python is not None and found.python is None:
        yield f"{python} does not run on {found.name}: apt-get install python3 python3-venv"
    if python is not None and found.python is not None and found.python < FLOOR:
        yield f"{python} on {found.name} is Python {found.python[0]}.{found.python[1]}, the program needs {FLOOR[0]}.{FLOOR[1]} or later"
    behind, ahead = between[0] - found.clock, found.clock - between[1]
    if max(behind, ahead) > _APART_S:
        apart = f"{behind:.0f} s behind" if behind > ahead else f"{ahead:.0f} s ahead of"
        yield f"the clock of {found.name} is {apart} this machine's: set it (apt-get install systemd-timesyncd)"


def _no_room(found: Found, puts: Sequence[str]) -> Iterator[str]:
    for place, room in found.free.items():
        if room.bytes is None:
            yield f"what is free at {place} on {found.name} could not be told: df {place}"
        elif room.bytes < _BYTES:
            yield f"{place} on {found.name} has {room.bytes >> 20} MiB free, {_BYTES >> 20} are needed to work at all: make room"
        if room.inodes is not None and room.inodes < _INODES:
            yield f"{place} on {found.name} has {room.inodes} inodes free, {_INODES} are needed to work at all: make room"
        if place in puts and not room.writable:
            yield f"{place} on {found.name} cannot be written to: is its file system read-only (findmnt --target {place})?"

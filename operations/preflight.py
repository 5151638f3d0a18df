"""What must hold on a host before a deploy does anything there. A refusal is one sentence for its host, and stops only that host."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, operation
from pyinfra.api.facts import get_fact

from .facts.ground import Found, Ground
from .packing import FLOOR
from .program import refused, unread, value
from .release import PYTHON

DISTRIBUTIONS: Mapping[str, Sequence[str]] = {"debian": ("12", "13")}  # that are provisioned
_APART_S = 60.0  # how far two clocks may be apart: names of sets, schedules and ages are times
_BYTES, _INODES = 64 << 20, 1_000  # for records, configuration and a release; a backup foresees its own room
_LENIENT = ("no", "off", "accept-new", "ask")


@operation()
def ready(
    places: Sequence[str] = (), python: str | None = PYTHON, root: bool = True, distributions: Mapping[str, Sequence[str]] | None = None
) -> Generator[FunctionCommand, None, None]:
    """
    Refuse a host on which the deploy could not end well, before anything is done there.

    + places: the directories that will be written to
    + python: the interpreter that a release of the host program is made with; None where there is none
    + root: whether what follows needs the rights of root
    + distributions: the only ones that what follows is made for; any Linux when left out

    **Example:**

    .. code:: python

        preflight.ready(name="Preflight", places=["/var/lib/storekeeper"])
    """
    asked = {"places": [value("places", place) for place in places], "python": "false" if python is None else value("python", python)}
    if (why := _unsafe_wire(host)) is not None:
        yield refused(why)
        return
    before = time.time()
    found = get_fact(host.state, host, Ground, kwargs=asked, apply_failed_hosts=False)
    if found is None:
        yield unread("what the host is (can this user log in, and use sudo without a password?)")
        return
    why = next(_refusals(found, python, root=root, distributions=distributions, between=(before, time.time())), None)
    if why is not None:
        yield refused(why)
        return
    host.noop(f"{found.name} is fit: {found.distribution} {found.version}")


def _unsafe_wire(target: Host) -> str | None:
    """A key that is not compared could be anybody's."""
    checking = str(target.data.get("ssh_strict_host_key_checking", "yes"))
    if target.name.startswith("@") or checking not in _LENIENT:
        return None
    declare = "declare yes, and its key in known_hosts"
    return f"ssh_strict_host_key_checking is {checking}: whoever answers at {target.name} would be believed; {declare}"


def _refusals(
    found: Found, python: str | None, *, root: bool, distributions: Mapping[str, Sequence[str]] | None, between: tuple[float, float]
) -> Iterator[str]:
    if found.system != "Linux":
        yield f"{found.name} runs {found.system}; this is made for Linux"
    if distributions is not None and found.version not in distributions.get(found.distribution, ()):
        known = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in distributions.items())
        yield f"{found.name} runs {found.distribution} {found.version}; this is made for {known}"
    if root and found.user != 0:
        yield f"on {found.name} this is user {found.user}, not root: declare storekeeper_sudo = True, or log in as root"
    if python is not None and found.python is None:
        yield f"{python} does not run on {found.name}: apt-get install python3 python3-venv"
    if python is not None and found.python is not None and found.python < FLOOR:
        yield f"{python} on {found.name} is Python {found.python[0]}.{found.python[1]}, the program needs {FLOOR[0]}.{FLOOR[1]} or later"
    apart = max(between[0] - found.clock, found.clock - between[1], 0.0)
    if apart > _APART_S:
        yield f"the clock of {found.name} is {apart:.0f} s away from this machine's: set it (apt-get install systemd-timesyncd)"
    for place, room in found.free.items():
        if room.bytes < _BYTES:
            yield f"{place} on {found.name} has {room.bytes >> 20} MiB free, {_BYTES >> 20} are needed to work at all: make room"
        if room.inodes is not None and room.inodes < _INODES:
            yield f"{place} on {found.name} has {room.inodes} inodes free, {_INODES} are needed to work at all: make room"

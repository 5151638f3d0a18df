"""Facts about a host itself, before anything is done there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from .answer import typed, whole

NO_SUDO = "there is none"
_BEGIN = "storekeeper-begin"
_LOGIN = """
echo {begin}
echo "user $(id -un)"
echo "umask $(umask)"
echo "home $(test -w "$HOME" && echo "$HOME")"
{sudo}
"""
_SUDO = """
if command -v sudo >/dev/null; then
    said=$(LC_ALL=C sudo -H -n {whom} sh -c true 2>&1 </dev/null)
    echo "sudo $? $(printf '%s' "$said" | tail -n 1)"
else
    echo "sudo 127 {none}"
fi
"""
_GROUND = """
echo {begin}
echo "user $(id -u)"
echo "name $(uname -n)"
echo "system $(uname -s)"
echo "clock $(date -u +%s)"
if [ -r /etc/os-release ]; then . /etc/os-release; fi
echo "distribution $ID $VERSION_ID"
echo "python $({python} -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)"
echo "cron $(command -v cron crond /usr/sbin/cron | head -n 1)"
echo "systemd $(test -d /run/systemd/system && echo yes)"
for place in {places}; do
    there=$place
    while [ ! -e "$there" ]; do there=$(dirname "$there"); done
    test -w "$there" && writable=yes || writable=no
    echo "free $writable $(stat -f -c '%a %S %d %c' "$there" || echo - - - -) $place"
done
"""


@dataclass(frozen=True)
class Login:
    """Who logs in, and with what. `sudo` is why sudo does not work without a password; None where it does, or is not needed."""

    user: str
    umask: int
    home: str | None  # None where there is none that can be written to
    sudo: str | None
    chatter: str | None  # what is printed at each login, which mixes with all answers


@dataclass(frozen=True)
class Room:
    """What is free where a place is or will be. None where it could not be told, or where a file system counts no inodes."""

    writable: bool
    bytes: int | None
    inodes: int | None


@dataclass(frozen=True)
class Found:
    user: int
    name: str
    system: str
    clock: int  # seconds since 1970
    distribution: str
    version: str
    python: tuple[int, int] | None
    systemd: bool
    cron: bool
    free: dict[str, Room]


class Logins(FactBase[Login]):
    """
    Who we are where we log in, before sudo, and whether sudo works without a password. Asked without sudo.

    **Example:**

    .. code:: python

        found = host.get_fact(Logins, sudo=True, _sudo=False)
    """

    def command(self, sudo: bool, sudo_user: str | None = None) -> str:
        whom = f"-u {shlex.quote(sudo_user)}" if sudo_user else ""
        return typed(_LOGIN.format(begin=_BEGIN, sudo=_SUDO.format(whom=whom, none=NO_SUDO) if sudo else ""))

    def process(self, output: list[str]) -> Login:
        before, lines = _parted(output)
        said = _said(lines)
        code, _, words = said.get("sudo", "0").partition(" ")
        try:
            umask = int(said["umask"], 8)
        except (KeyError, ValueError):
            raise FactProcessError("the answer of the host is not understood") from None
        chatter = next((line for line in before if line.strip()), None)
        return Login(said["user"], umask, said.get("home") or None, None if code == "0" else words or f"it ended with {code}", chatter)


class Ground(FactBase[Found]):
    """
    Who we are on a host, what it is called and runs, what its clock says, and what is free where we will write: one round trip.

    **Example:**

    .. code:: python

        found = host.get_fact(Ground, places=["/var/lib/storekeeper"], python="/usr/bin/python3")
    """

    def command(self, places: Sequence[str], python: str) -> str:
        quoted = " ".join(shlex.quote(place) for place in places)
        return typed(_GROUND.format(begin=_BEGIN, places=quoted, python=shlex.quote(python)))

    def process(self, output: list[str]) -> Found:
        _, lines = _parted(output)
        said = _said(line for line in lines if not line.startswith("free "))
        try:
            distribution, _, version = said["distribution"].partition(" ")
            python = said["python"].split()
            return Found(
                user=int(said["user"]),
                name=said["name"],
                system=said["system"],
                clock=int(said["clock"]),
                distribution=distribution,
                version=version.strip(),
                python=(int(python[0]), int(python[1])) if len(python) == 2 else None,
                systemd=said["systemd"] == "yes",
                cron=bool(said["cron"]),
                free=dict(_room(line) for line in lines if line.startswith("free ")),
            )
        except (KeyError, ValueError):
            raise FactProcessError("the answer of the host is not understood") from None


def _parted(output: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a login prints by itself, and the lines of the answer."""
    lines = whole(output)
    if _BEGIN not in lines:
        raise FactProcessError("the answer of the host is not understood")
    begin = lines.index(_BEGIN)
    return lines[:begin], lines[begin + 1 :]


def _said(lines: Iterable[str]) -> dict[str, str]:
    parted = (line.partition(" ") for line in lines)
    return {word: rest.strip() for word, _, rest in parted}


def _room(line: str) -> tuple[str, Room]:
    writable, available, block, inodes, capacity, place = line.removeprefix("free ").split(" ", 5)
    numbers = [int(each) if each.isdigit() else None for each in (available, block, inodes, capacity)]
    free, size, left, most = numbers
    return place, Room(writable == "yes", None if free is None or size is None else free * size, left if most else None)

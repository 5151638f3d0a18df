"""Facts about a host itself, before anything is done there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

_END = "storekeeper-end"
_SCRIPT = """
echo "user $(id -u)"
echo "name $(uname -n)"
echo "system $(uname -s)"
echo "clock $(date -u +%s.%N)"
if [ -r /etc/os-release ]; then . /etc/os-release; fi
echo "distribution $ID $VERSION_ID"
echo "python $({python} -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)"
echo "systemd $(test -d /run/systemd/system && echo yes)"
for place in {places}; do
    there=$place
    while [ ! -e "$there" ]; do there=$(dirname "$there"); done
    echo "free $(stat -f -c '%a %S %d %c' "$there") $place"
done
echo {end}
"""


@dataclass(frozen=True)
class Room:
    """What is free where a place is or will be. `inodes` is None on a file system that does not count them."""

    bytes: int
    inodes: int | None


@dataclass(frozen=True)
class Found:
    user: int
    name: str
    system: str
    clock: float  # seconds since 1970
    distribution: str
    version: str
    python: tuple[int, int] | None
    systemd: bool
    free: dict[str, Room]


class Ground(FactBase[Found]):
    """
    Who we are on a host, what it is called and runs, what its clock says, and what is free where we will write: one round trip.

    **Example:**

    .. code:: python

        found = host.get_fact(Ground, places=["/var/lib/storekeeper"], python="/usr/bin/python3")
    """

    def command(self, places: Sequence[str], python: str) -> str:
        quoted = " ".join(shlex.quote(place) for place in places)
        return "sh -c " + shlex.quote(_SCRIPT.format(places=quoted, python=shlex.quote(python), end=_END))

    def process(self, output: list[str]) -> Found:
        if not output or output[-1] != _END:
            raise FactProcessError("the answer of the host was cut off")
        said = dict(line.split(" ", 1) for line in output[:-1] if not line.startswith("free "))
        free = {}
        for line in output[:-1]:
            if line.startswith("free "):
                available, block, inodes, capacity, place = line.removeprefix("free ").split(" ", 4)
                free[place] = Room(int(available) * int(block), int(inodes) if int(capacity) else None)
        distribution, _, version = said["distribution"].partition(" ")
        python = said["python"].split()
        return Found(
            user=int(said["user"]),
            name=said["name"],
            system=said["system"],
            clock=float(said["clock"]),
            distribution=distribution,
            version=version.strip(),
            python=(int(python[0]), int(python[1])) if len(python) == 2 else None,
            systemd=said["systemd"].strip() == "yes",
            free=free,
        )

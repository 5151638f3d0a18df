"""Facts about the schedules that Storekeeper wrote on a host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

from .answer import typed, whole

# A directory that cannot be listed is not one without schedules.
_SCRIPT = """
for each in {cron} {units}; do
    if [ -e "$each" ] && ! ls "$each" >/dev/null; then exit 1; fi
done
for each in {cron}/storekeeper-* {units}/storekeeper-*.timer {units}/storekeeper-*.service; do
    if head -n 1 "$each" 2>/dev/null | grep -F '# Written by deploys/site.py for the stack ' | grep -Fq {whose}; then echo "$each"; fi
done
"""


@dataclass(frozen=True)
class Found:
    """The names of files that were written for one configuration, in each of the two directories."""

    cron: tuple[str, ...]
    units: tuple[str, ...]


class Schedules(FactBase[Found]):
    """
    The cron files and units that Storekeeper wrote for the stacks of one configuration, by their first line: one round trip.

    **Example:**

    .. code:: python

        found = host.get_fact(Schedules, config="/etc/storekeeper", cron_directory="/etc/cron.d", unit_directory="/etc/systemd/system")
    """

    def command(self, config: str, cron_directory: str, unit_directory: str) -> str:
        whose = shlex.quote(f" of {config}: change its stack file")
        script = _SCRIPT.format(cron=shlex.quote(cron_directory), units=shlex.quote(unit_directory), whose=whose)
        return typed(script)

    def process(self, output: list[str]) -> Found:
        names = [path.rpartition("/")[2] for path in whole(output)]
        units = tuple(name for name in names if name.endswith((".timer", ".service")))
        return Found(tuple(name for name in names if name not in units), units)

"""Facts about the schedules that Storekeeper wrote on a host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

_END = "storekeeper-end"
_SCRIPT = """
for each in {cron}/storekeeper-* {units}/storekeeper-*.timer {units}/storekeeper-*.service; do
    if head -n 1 "$each" 2>/dev/null | grep -F '# Written by deploys/site.py for the stack ' | grep -Fq {whose}; then echo "$each"; fi
done
echo {end}
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
        script = _SCRIPT.format(cron=shlex.quote(cron_directory), units=shlex.quote(unit_directory), whose=whose, end=_END)
        return "sh -c " + shlex.quote(script)

    def process(self, output: list[str]) -> Found:
        if not output or output[-1] != _END:
            raise FactProcessError("the answer of the host was cut off")
        names = [path.rpartition("/")[2] for path in output[:-1]]
        units = tuple(name for name in names if name.endswith((".timer", ".service")))
        return Found(tuple(name for name in names if name not in units), units)

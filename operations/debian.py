"""Packages of Debian."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.facts import get_fact
from pyinfra.facts.deb import DebPackages

from .program import unread, value

WAIT_S = 300  # for another apt: a server's own updates at night take minutes

# For scripts: `ready` ends when no other apt is at work, and fails where an installation was interrupted; `index` reads the index of
# packages, for whose lock apt-get itself does not wait. Both say in one line why they fail.
FUNCTIONS = f"""
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt() {{ apt-get -q -q -y -o DPkg::Lock::Timeout={WAIT_S} -o Dpkg::Options::=--force-confold "$@"; }}
one_line() {{ printf '%s\\n' "$(printf %s "$1" | tr -s '[:space:]' ' ')"; }}
ready() {{
    if ! said=$(apt check 2>&1); then one_line "packages cannot be changed: $said" >&2; return 1; fi
    half=$(dpkg-query -W -f '${{db:Status-Abbrev}}${{Package}}\\n' | sed -n 's/^.[HUFWt].//p; s/^..R//p')
    if [ -n "$half" ]; then one_line "an installation was interrupted ($half): dpkg --configure -a" >&2; return 1; fi
}}
index() {{
    until said=$(apt "$@" update 2>&1); do
        case $said in *lists/lock*) ;; *) one_line "$said" >&2; return 1 ;; esac
        waited=$((${{waited:-0}} + 2))
        if [ "$waited" -gt {WAIT_S} ]; then one_line "$said" >&2; return 1; fi
        sleep 2
    done
}}
"""

_INSTALL = """
set -eu
{functions}
ready
index
apt --no-install-recommends install {missing}
"""


@operation()
def packages(packages: Sequence[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Have packages installed. The index is read only where one is missing, so that a second run changes nothing at any time.

    Another apt that is at work is waited for; where an installation was interrupted nothing is begun.

    + packages: their names

    **Example:**

    .. code:: python

        debian.packages(name="Packages", packages=["logrotate"])
    """
    found = get_fact(host.state, host, DebPackages, apply_failed_hosts=False)
    if not found:  # a Debian without any package is none
        yield unread("which packages are installed")
        return
    missing = [value("package", name) for name in packages if name not in found]
    if not missing:
        host.noop(f"{', '.join(packages)} {'is' if len(packages) == 1 else 'are'} installed")
        return
    script = _INSTALL.format(functions=FUNCTIONS, missing=" ".join(shlex.quote(name) for name in missing))
    yield StringCommand("sh -c " + shlex.quote(script))

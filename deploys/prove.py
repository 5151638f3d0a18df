"""Prove that a set restores: into a scratch place, every value read back and compared. The newest set, or one; with `within`, only where due.

    pyinfra INVENTORY deploys/prove.py --data stack=maestro --data within=7d
"""

from operations import declared, sets
from pyinfra import host

sudo = bool(host.data.get("storekeeper_sudo"))
for stack in host.loop(declared.chosen_stacks(host)):
    sets.prove(
        name=f"Prove {host.data.get('set') or 'the newest set'} of {stack}",
        stack=stack,
        set=host.data.get("set"),
        within=host.data.get("within"),
        _sudo=sudo,
    )

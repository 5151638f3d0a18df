"""Prove that a set restores, into a scratch place: the newest, or one; with `within`, only where the last proof is older.

pyinfra INVENTORY deploys/prove.py --data stack=maestro --data within=7d
"""

from pyinfra import host

from operations import declared, sets

sudo = bool(host.data.get("storekeeper_sudo"))
for stack in host.loop(declared.chosen_stacks(host)):
    sets.prove(
        name=f"Prove {host.data.get('set') or 'the newest set'} of {stack}",
        stack=stack,
        set=host.data.get("set"),
        within=host.data.get("within"),
        _sudo=sudo,
    )

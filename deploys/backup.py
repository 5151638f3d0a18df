"""Take a backup set of each stack, or of one; with `within`, only where there is no usable set that young.

pyinfra INVENTORY deploys/backup.py --data stack=maestro --data within=26h
"""

from pyinfra import host

from operations import declared, preflight, sets

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
within = declared.within(host)
for stack in host.loop(declared.chosen_stacks(host)):
    if within:
        sets.recent(name=f"Have a set of {stack} within {within}", stack=stack, within=within, _sudo=sudo)
    else:
        sets.backup(name=f"Back up {stack}", stack=stack, _sudo=sudo)

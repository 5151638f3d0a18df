"""Remove the sets that the declared retention keeps no longer; with `plan=yes`, only say which.

pyinfra INVENTORY deploys/prune.py --data plan=yes
"""

from pyinfra import host

from operations import declared, sets

sudo = declared.sudo(host)
for stack in host.loop(declared.chosen_stacks(host)):
    sets.prune(name=f"Prune {stack}", stack=stack, dry_run=declared.flag(host, "plan"), _sudo=sudo)

"""Remove the sets that the declared retention keeps no longer; with `plan=yes`, only say which.

pyinfra INVENTORY deploys/prune.py --data plan=yes
pyinfra INVENTORY deploys/prune.py --data stack=maestro --data confirm=maestro@prod-ai-1
"""

from pyinfra import host

from operations import declared, preflight, sets

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(declared.chosen_stacks(host)):
    dry_run, confirm = declared.flag(host, "plan"), declared.text(host, "confirm")
    sets.prune(name=f"Prune {stack}", stack=stack, dry_run=dry_run, confirm=confirm, _sudo=sudo)

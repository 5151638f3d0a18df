"""Print the sets of each stack, oldest first, each with its state and its last proof.

pyinfra INVENTORY deploys/list.py --data stack=maestro
"""

from pyinfra import host

from operations import declared, preflight, sets

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(declared.chosen_stacks(host)):
    sets.show(name=f"Sets of {stack}", stack=stack, _sudo=sudo)

"""Read sets back and decode them: all of a stack, or one.

pyinfra INVENTORY deploys/verify.py --data stack=maestro --data set=latest
"""

from pyinfra import host

from operations import declared, preflight, sets

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
chosen = declared.chosen_set(host)
for stack in host.loop(declared.chosen_stacks(host)):
    sets.verify(name=f"Verify {chosen or 'all sets'} of {stack}", stack=stack, set=chosen, all=chosen is None, _sudo=sudo)

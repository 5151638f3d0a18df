"""Read sets back and decode them: all of a stack, or one.

pyinfra INVENTORY deploys/verify.py --data stack=maestro --data set=latest
"""

from pyinfra import host

from operations import declared, sets

sudo = declared.sudo(host)
chosen = declared.chosen_set(host)
for stack in host.loop(declared.chosen_stacks(host)):
    sets.verify(name=f"Verify {chosen or 'all sets'} of {stack}", stack=stack, set=chosen, all=chosen is None, _sudo=sudo)

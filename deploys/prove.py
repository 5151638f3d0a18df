"""Prove that a set restores, into a scratch place: the newest, or one; with `within`, only where the last proof is older.

pyinfra INVENTORY deploys/prove.py --data stack=maestro --data within=7d
"""

from pyinfra import host

from operations import declared, preflight, sets

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
chosen = declared.chosen_set(host)
within = declared.within(host)
if chosen and within:
    raise SystemExit("a proof takes --data set=SET or --data within=TIME, not both")
for stack in host.loop(declared.chosen_stacks(host)):
    sets.prove(name=f"Prove {chosen or 'the newest set'} of {stack}", stack=stack, set=chosen, within=within, _sudo=sudo)

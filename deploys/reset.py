"""Empty all stores of one stack together, or none: what is left is their schema. Without a confirmation only the plan is shown.

pyinfra INVENTORY deploys/reset.py --data stack=maestro
pyinfra INVENTORY deploys/reset.py --data stack=maestro --data confirm=maestro@prod-ai-1
"""

from pyinfra import host
from pyinfra.api import OperationValueError

from operations import declared, preflight, sets

stacks = declared.chosen_stacks(host)
if len(stacks) != 1:
    raise SystemExit(f"a reset works on one stack: pass --data stack=NAME ({host.name} has {', '.join(stacks) or 'none'})")
wanted = {
    "stack": stacks[0],
    "nobody_uses": declared.names(host, "nobody_uses"),
    "no_owners": declared.names(host, "no_owners"),
    "accept_unreadable": declared.names(host, "accept_unreadable"),
    "confirm": declared.text(host, "confirm"),
}
try:
    sets.reset_words(**wanted)  # before any host is touched, not when its turn comes
except OperationValueError as error:
    raise SystemExit(f"{error}") from error
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
sets.reset(name=f"{'Reset' if wanted['confirm'] else 'Plan the reset of'} {stacks[0]}", **wanted, _sudo=sudo)

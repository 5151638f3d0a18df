"""Make a damaged SQLite store anew of all that can be read of it. Without a confirmation only the plan is shown.

pyinfra INVENTORY deploys/recover.py --data stack=maestro --data store=main
pyinfra INVENTORY deploys/recover.py --data stack=maestro --data store=main --data confirm=maestro@prod-ai-1
"""

from pyinfra import host
from pyinfra.api import OperationValueError

from operations import care, declared, preflight

stacks, store = declared.chosen_stacks(host), declared.text(host, "store")
if len(stacks) != 1 or store is None:
    raise SystemExit(
        f"a recovery works on one store: pass --data stack=NAME --data store=NAME ({host.name} has {', '.join(stacks) or 'none'})"
    )
wanted = {
    "stack": stacks[0],
    "store": store,
    "nobody_uses": declared.names(host, "nobody_uses"),
    "no_owners": declared.names(host, "no_owners"),
    "confirm": declared.text(host, "confirm"),
}
try:
    care.recover_words(**wanted)  # before any host is touched, not when its turn comes
except OperationValueError as error:
    raise SystemExit(f"{error}") from error
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
care.recover(name=f"{'Recover' if wanted['confirm'] else 'Plan the recovery of'} {store} of {stacks[0]}", **wanted, _sudo=sudo)

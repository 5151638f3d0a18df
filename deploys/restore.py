"""Put all stores of one stack back to a set, or none; or return from the last restore. Look at the plan first.

pyinfra INVENTORY deploys/restore.py --data stack=maestro --data set=latest --data plan=yes
pyinfra INVENTORY deploys/restore.py --data stack=maestro --data set=latest --data confirm=maestro@prod-ai-1
"""

from pyinfra import host

from operations import declared, sets

sudo = bool(host.data.get("storekeeper_sudo"))
stack, *others = declared.chosen_stacks(host)
if others:
    raise SystemExit("a restore works on one stack: pass --data stack=NAME")
sets.restore(
    name=f"Restore {stack}",
    stack=stack,
    set=host.data.get("set"),
    back=declared.flag(host, "back"),
    only=declared.names(host, "only"),
    nobody_uses=declared.names(host, "nobody_uses"),
    no_owners=declared.names(host, "no_owners"),
    plan=declared.flag(host, "plan"),
    confirm=host.data.get("confirm"),
    _sudo=sudo,
)

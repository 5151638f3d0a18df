"""Put all stores of one stack back to a set, or none; or one document out of it; or return from the last restore. Look at the plan first.

pyinfra INVENTORY deploys/restore.py --data stack=maestro --data set=latest --data plan=yes
pyinfra INVENTORY deploys/restore.py --data stack=maestro --data set=latest --data confirm=maestro@prod-ai-1
pyinfra INVENTORY deploys/restore.py --data stack=maestro --data set=latest --data document=4711 --data plan=yes
"""

from pyinfra import host
from pyinfra.api import OperationValueError

from operations import declared, preflight, sets

stacks = declared.chosen_stacks(host)
if len(stacks) != 1:
    raise SystemExit(f"a restore works on one stack: pass --data stack=NAME ({host.name} has {', '.join(stacks) or 'none'})")
wanted = {
    "stack": stacks[0],
    "set": declared.chosen_set(host),
    "back": declared.flag(host, "back"),
    "only": declared.names(host, "only"),
    "nobody_uses": declared.names(host, "nobody_uses"),
    "no_owners": declared.names(host, "no_owners"),
    "accept_unreadable": declared.names(host, "accept_unreadable"),
    "stage_dir": declared.text(host, "stage_dir"),
    "plan": declared.flag(host, "plan"),
    "confirm": declared.text(host, "confirm"),
    "source": declared.text(host, "from"),
    "document": declared.text(host, "document"),
    "rule": declared.text(host, "rule"),
}
try:
    sets.restore_words(**wanted)  # before any host is touched, not when its turn comes
except OperationValueError as error:
    raise SystemExit(f"{error}") from error
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
one = f", document {wanted['document']}" if wanted["document"] is not None else ""
sets.restore(name=f"{'Plan the restore of' if wanted['plan'] else 'Restore'} {stacks[0]}{one}", **wanted, _sudo=sudo)

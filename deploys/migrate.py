"""Run the application's own migration command, as the stack file declares it: on a copy of the newest proven set, and live only where
stack and host are named.

pyinfra INVENTORY deploys/migrate.py --data stack=maestro
pyinfra INVENTORY deploys/migrate.py --data stack=maestro --data confirm=maestro@prod-ai-1
pyinfra INVENTORY deploys/migrate.py --data stack=maestro --data action=downgrade --data values="0007" --data confirm=maestro@prod-ai-1

Several values stand in one word, separated and quoted as a shell would read them.
"""

import shlex

from pyinfra import host
from pyinfra.api import OperationValueError

from operations import declared, migrations, preflight

stacks = declared.chosen_stacks(host)
if len(stacks) != 1:
    raise SystemExit(f"a migration works on one stack: pass --data stack=NAME ({host.name} has {', '.join(stacks) or 'none'})")
try:
    wanted = {
        "stack": stacks[0],
        "action": declared.text(host, "action") or "upgrade",
        "values": shlex.split(declared.text(host, "values") or ""),
        "nobody_uses": declared.names(host, "nobody_uses"),
        "no_owners": declared.names(host, "no_owners"),
        "confirm": declared.text(host, "confirm"),
    }
    migrations.typed(**wanted)  # before any host is touched, not when its turn comes
except OperationValueError as error:
    raise SystemExit(f"{error}") from error
except ValueError as error:
    raise SystemExit(f"--data values= cannot be read: {error}") from error
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
migrations.migrate(name=f"{wanted['action'].capitalize()} {stacks[0]}{'' if wanted['confirm'] else ', on a copy'}", **wanted, _sudo=sudo)

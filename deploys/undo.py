"""Put back what a repair has removed.

pyinfra INVENTORY deploys/undo.py --data stack=maestro --data plan=PLAN --data confirm=maestro@prod-ai-1
"""

from pyinfra import host

from operations import consistency, declared, preflight

sudo = declared.sudo(host)
stack, confirm = declared.confirmed(host, declared.compared_stacks(host))
plan = declared.text(host, "plan")
if plan is None:
    raise SystemExit(f"{host.name}: say which repair is meant: --data plan=PLAN, as deploys/repair.py printed it")
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
consistency.undo(name=f"Undo the repair {plan} of {stack}", stack=stack, plan=plan, confirm=confirm, _sudo=sudo)

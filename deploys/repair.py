"""Plan what may be removed of what the stores disagree about; with a plan's id, apply it, or have what is missing taken in again. Look at
the plan first.

pyinfra INVENTORY deploys/repair.py --data stack=maestro
pyinfra INVENTORY deploys/repair.py --data stack=maestro --data document=4711 --data at_once=yes
pyinfra INVENTORY deploys/repair.py --data stack=maestro --data plan=PLAN --data confirm=maestro@prod-ai-1
pyinfra INVENTORY deploys/repair.py --data stack=maestro --data plan=PLAN --data reingest=yes --data confirm=maestro@prod-ai-1
"""

from pyinfra import host

from operations import consistency, declared, preflight

sudo = declared.sudo(host)
plan = declared.text(host, "plan")
stacks = declared.compared_stacks(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
if plan is None:
    wanted = {"rule": declared.text(host, "rule"), "document": declared.text(host, "document"), "owner": declared.text(host, "owner")}
    for stack in host.loop(stacks):
        consistency.plan(name=f"Plan a repair of {stack}", stack=stack, **wanted, at_once=declared.flag(host, "at_once"), _sudo=sudo)
else:
    stack, confirm = declared.confirmed(host, stacks)
    limit = declared.number(host, "limit")
    if declared.flag(host, "reingest"):
        consistency.reingest(name=f"Take in again in {stack}", stack=stack, plan=plan, confirm=confirm, limit=limit, _sudo=sudo)
    else:
        consistency.apply(name=f"Repair {stack}", stack=stack, plan=plan, confirm=confirm, limit=limit, _sudo=sudo)

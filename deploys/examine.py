"""Look inside the stores for damage, missing indexes and who holds locks: of every stack, or of one. Nothing is changed.

pyinfra INVENTORY deploys/examine.py
pyinfra INVENTORY deploys/examine.py --data stack=maestro --data store=main
"""

from pyinfra import host

from operations import care, declared, preflight

stacks, store = declared.chosen_stacks(host), declared.text(host, "store")
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(stacks):
    care.examine(name=f"Look inside {stack}" + (f", {store}" if store else ""), stack=stack, store=store, _sudo=sudo)

"""Compare what the stores hold of each document, by the rules of their stacks: all that declare any, or one.

pyinfra INVENTORY deploys/check.py --data stack=maestro --data rule=documents
pyinfra INVENTORY deploys/check.py --data stack=maestro --data document=4711

An id is taken as it was typed, also where pyinfra would make a number of it, as of 0042. The operation's name says which was looked for.
"""

from pyinfra import host

from operations import consistency, declared, preflight

stacks = declared.compared_stacks(host)
wanted = {"rule": declared.text(host, "rule"), "document": declared.text(host, "document"), "owner": declared.text(host, "owner")}
said = "".join(f", {key} {word}" for key, word in wanted.items() if word is not None)
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(stacks):
    consistency.check(name=f"Check {stack}{said}", stack=stack, **wanted, _sudo=sudo)

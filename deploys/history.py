"""Print in which sets of a stack a document is whole. Nothing is changed.

pyinfra INVENTORY deploys/history.py --data stack=maestro --data document=4711

The operation's name says which document was looked for.
"""

from pyinfra import host

from operations import care, declared, preflight

stacks, document, rule = declared.chosen_stacks(host), declared.text(host, "document"), declared.text(host, "rule")
if document is None:
    raise SystemExit("history is of one document: pass --data document=ID")
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(stacks):
    care.history(name=f"Sets of {stack} with document {document}", stack=stack, document=document, rule=rule, _sudo=sudo)

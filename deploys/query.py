"""Ask a named query of a stack file, or list them. Nothing is changed.

pyinfra INVENTORY deploys/query.py --data stack=maestro
pyinfra INVENTORY deploys/query.py --data stack=maestro --data query=recent_chats --data limit=5
pyinfra INVENTORY deploys/query.py --data stack=maestro --data query=chats_of --data values="'Ada Lovelace' 7"

Several values stand in one word, separated and quoted as a shell would read them.
"""

import shlex

from pyinfra import host

from operations import declared, preflight, queries

stacks = declared.chosen_stacks(host)
name, limit = declared.text(host, "query"), declared.number(host, "limit")
try:
    values = shlex.split(declared.text(host, "values") or "")
except ValueError as error:
    raise SystemExit(f"--data values= cannot be read: {error}") from error
sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
for stack in host.loop(stacks):
    said = f"Ask {name} of {stack}" if name else f"Queries of {stack}"
    queries.ask(name=said, stack=stack, query=name, values=values, limit=limit, _sudo=sudo)

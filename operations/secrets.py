"""Secrets of the control side: references of an inventory, read once, and put on a host as files that only one user can read."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Generator, Mapping

from pyinfra import host
from pyinfra.api import FunctionCommand, OperationValueError, StringCommand, operation

from storekeeper.outcomes import Refused
from storekeeper.stack.secrets import read_secret
from storekeeper.stack.types import SecretReference

from . import quiet
from .program import unread, value

_SAME, _END = "same", "storekeeper-end"
# The wanted contents come in on standard input and are compared here, so that not even a digest of them goes anywhere.
_COMPARE = """
cd {directory} 2>/dev/null || {{ cat >/dev/null; echo {end}; exit; }}
while read -r name content; do
    if [ -f "$name" ] && [ ! -L "$name" ] && [ "$(stat -c '%U %a' "$name")" = "{user} 600" ] &&
        printf %s "$content" | base64 -d | cmp -s - "$name"
    then echo "same $name"; fi
done
echo {end}
"""
# A name of its own that nobody can foresee, in a directory that only its user can enter.
_PUT = """
set -eu
cd {directory}
new=
trap 'rm -f "$new"' EXIT
while read -r name content; do
    new=$(mktemp ./.XXXXXXXXXXXX)
    printf %s "$content" | base64 -d >"$new"
    chown {user} "$new"
    chmod 600 "$new"
    mv -T "$new" "$name"
done
sync -f .
"""


@operation()
def put(directory: str, secrets: Mapping[str, str], user: str = "root") -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Have files with these secrets in a directory that is there and private: mode 0600, one newline at the end. Others in it are left alone.

    + directory: where they are
    + secrets: the name of each, and what it holds; it travels on standard input only
    + user: their owner

    **Example:**

    .. code:: python

        secrets.put(name="Secrets", directory="/etc/storekeeper/secrets", secrets=declared.secrets(host))
    """
    if not secrets:
        host.noop("no secret is declared")
        return
    where = {"directory": shlex.quote(value("directory", directory)), "user": shlex.quote(value("user", user))}
    lines = {name: f"{value('name', name)} {_encoded(secrets[name])}" for name in sorted(secrets)}
    found = quiet.asked(host, "sh -c " + shlex.quote(_COMPARE.format(**where, end=_END)), "\n".join(lines.values()))
    if found is None or found[-1:] != [_END]:
        yield unread(f"which secrets are in {directory}")
        return
    missing = [name for name in lines if f"{_SAME} {name}" not in found]
    if not missing:
        host.noop(f"{', '.join(lines)} {'is' if len(lines) == 1 else 'are'} as declared")
        return
    yield quiet.told("sh -c " + shlex.quote(_PUT.format(**where)), "\n".join(lines[name] for name in missing))


def read(reference: SecretReference, label: str) -> str:
    """What a reference of the control side points to. Raises ValueError that names the file or the variable, never what is in it."""
    try:
        return read_secret(reference, label)
    except Refused as refusal:
        raise ValueError(refusal.message) from None


def _encoded(secret: str) -> str:
    if not secret:
        raise OperationValueError("a secret is empty")
    return base64.b64encode(f"{secret}\n".encode()).decode()

"""Facts about what stands at paths of a host."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from .answer import typed, whole

# A name with a newline or a bar could not be told from the next one: what is declared has neither.
_SCRIPT = """
for each in {paths}; do
    sum=
    if [ -f "$each" ] && [ ! -L "$each" ]; then sum=$(sha256sum <"$each" 2>/dev/null); fi
    echo "$(stat -c '%F|%U|%G|%a' -- "$each" 2>/dev/null || echo '|||0')|${{sum%% *}}"
done
"""


@dataclass(frozen=True)
class Entry:
    """`kind` as stat(1) says it, empty where nothing could be seen; `digest` is the SHA-256 of a file that could be read, else empty."""

    kind: str
    user: str
    group: str
    mode: int
    digest: str


class Entries(FactBase[dict[str, Entry]]):
    """
    What stands at each of some paths: one round trip for all of them. A link is not followed.

    **Example:**

    .. code:: python

        found = host.get_fact(Entries, paths=("/etc/storekeeper", "/etc/storekeeper/storekeeper.yml"))
    """

    def command(self, paths: Sequence[str]) -> str:
        self._paths = tuple(paths)
        return typed(_SCRIPT.format(paths=" ".join(shlex.quote(path) for path in paths)))

    def process(self, output: list[str]) -> dict[str, Entry]:
        lines = whole(output)
        if len(lines) != len(self._paths):
            raise FactProcessError("the answer of the host is not understood")
        found = {}
        for path, line in zip(self._paths, lines, strict=True):
            kind, user, group, mode, digest = line.split("|")
            found[path] = Entry(kind, user, group, int(mode, 8), digest)
        return found

"""Facts about the releases of the host program on a host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

from .answer import by_word, typed, whole

# One line a fact, so that one round trip tells all of them. `used` are releases that a running program was started from.
_SCRIPT = """
cd {root}/releases 2>/dev/null && for each in $(ls -1t); do if test -e "$each/.complete"; then echo "complete $each"; fi; done
echo "current $(basename "$(readlink {root}/current)")"
for each in /proc/[0-9]*/cmdline; do
    tr '\\0' '\\n' <"$each" 2>/dev/null | head -n 2 | while IFS= read -r word; do
        case $word in {root}/releases/*/*) word=${{word#{root}/releases/}} && echo "used ${{word%%/*}}" ;; esac
    done
done
echo "machine $(uname -m)"
echo "libc $(getconf GNU_LIBC_VERSION 2>/dev/null)"
echo "python $({python} -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)"
echo "venv $({python} -c 'import ensurepip, venv; print("yes")' 2>/dev/null)"
"""


@dataclass(frozen=True)
class Found:
    """What a host has: its complete releases, newest first; which is current; which are in use; and what a new one needs."""

    complete: tuple[str, ...]
    current: str | None
    used: frozenset[str]
    machine: str
    libc: tuple[int, int] | None  # None where it is another libc than glibc
    python: tuple[int, int] | None  # None where the interpreter does not run
    has_venv: bool


class Releases(FactBase[Found]):
    """
    The releases of the host program below a directory, and what a new one would be made with.

    **Example:**

    .. code:: python

        found = host.get_fact(Releases, root="/opt/storekeeper", python="/usr/bin/python3")
    """

    def command(self, root: str, python: str) -> str:
        return typed(_SCRIPT.format(root=shlex.quote(root), python=shlex.quote(python)))

    def process(self, output: list[str]) -> Found:
        said = by_word(line.rstrip() for line in whole(output))
        libc = said["libc"][0].removeprefix("glibc ").split(".")
        python = said["python"][0].split()
        return Found(
            complete=tuple(said.get("complete", ())),
            current=said["current"][0] or None,
            used=frozenset(said.get("used", ())),
            machine=said["machine"][0],
            libc=(int(libc[0]), int(libc[1])) if len(libc) >= 2 else None,
            python=(int(python[0]), int(python[1])) if len(python) == 2 else None,
            has_venv=said["venv"][0] == "yes",
        )

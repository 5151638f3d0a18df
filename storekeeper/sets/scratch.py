"""Private directories to restore into for a proof, gone afterwards; what a killed run left is swept by the next.

Each is written down in the stack's state before it is made, so that only our own are ever removed. A scratch server that
outlived its run ends by itself when its directory is gone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from storekeeper.host import durable, locks
from storekeeper.outcomes import Refused, Unknown
from storekeeper.sets.context import Opened

_NOTED = "scratch"  # in the stack's state: one empty file for each directory


@contextmanager
def scratch_directory(context: Opened) -> Iterator[Path]:
    """An empty directory, 0700, that is this run's own while the block runs.

    Raises Refused where it cannot be made, Unknown while another run sweeps for longer than a minute.
    """
    noted = context.state / _NOTED
    durable.ensure_directory(noted)
    name = f"storekeeper-{context.stack.stack}-{secrets.token_hex(4)}"
    path = context.scratch / name
    with ExitStack() as held:
        with locks.turn(noted):  # so no sweep ever sees one between its making and its lock
            sweep(context)
            durable.write_file(noted / name, b"")
            try:
                durable.make_directory(path)
            except OSError as error:
                (noted / name).unlink()
                raise Refused(
                    f"{context.scratch} cannot hold a scratch copy: {error.strerror}", next="set `scratch:` in storekeeper.yml"
                ) from error
            if not held.enter_context(locks.hold_directory(path)):
                raise Unknown(f"{path} was locked by somebody else as soon as it was made")
        try:
            yield path
        finally:
            _forget(path, noted / name)


def sweep(context: Opened) -> list[str]:
    """Remove the directories of runs that are dead, and name them."""
    noted = context.state / _NOTED
    swept = []
    for name in sorted(os.listdir(noted)):
        path = context.scratch / name
        if not path.is_dir() or path.is_symlink():
            (noted / name).unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError), locks.hold_directory(path) as dead:  # a living run may remove its own just now
            if dead:
                _forget(path, noted / name)
                swept.append(name)
    return swept


def _forget(path: Path, note: Path) -> None:
    durable.remove_tree(path)
    note.unlink(missing_ok=True)

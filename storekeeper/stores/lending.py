"""Handing a copy in a scratch directory to the user of the system whose command is run on it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from storekeeper.host.processes import User
from storekeeper.stores.sealing import sha256_of


def give(path: Path, user: User | None) -> None:
    """All below a path, the directory that holds it too; links are not followed. Only root can, and only for root is it needed."""
    if user is None or os.geteuid() != 0:
        return
    os.chown(path.parent, user.uid, user.gid)
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        os.chown(each, user.uid, user.gid, follow_symlinks=False)


def let_through(directory: Path, user: User | None) -> None:
    """Let the user's own group through a private directory, and see nothing of what is in it."""
    if user is not None and os.geteuid() == 0:
        os.chown(directory, -1, user.gid)
        directory.chmod(0o710)


def fingerprint_of_tree(path: Path) -> str:
    """A digest of all files below a directory, with their names."""
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file() and not each.is_symlink():
            digest.update(f"{each.relative_to(path)}\0{sha256_of(each)[0]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()

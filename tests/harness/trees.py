"""Trees of files for tests of the files store: hostile names, every kind of entry, and their comparison in full."""

from __future__ import annotations

import base64
import os
import random
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storekeeper.stack.model import FilesModel
from storekeeper.stores.files import build
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.surroundings import Surroundings

HOSTILE = [
    b"-rf",
    b"--",
    b"new\nline",
    b"carriage\rreturn",
    b"tab\tquote'double\"back`tick$(reboot);|&",
    b"\xff\xfe no text",
    b"back\\slash",
    b" leading and trailing ",
    b"*?[a]{b}",
    b"\x01\x1b[31mred",
    "Ünïcode 表 🙂 e\u0301".encode(),
    b"n" * 255,
    b"...",
    b"~",
    b"CON",
]
# An access list that also lets user 4711 read: version 2, then tag, permissions and id of each entry (acl(5)).
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in [(1, 6, 0xFFFFFFFF), (2, 4, 4711), (4, 4, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
)


def store_at(
    root: Path, room: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = (), name: str = "papers", **around: bool
) -> FilesStore:
    declared = FilesModel(kind="files", path=root, include=tuple(include), exclude=tuple(exclude))
    return build(name, declared, Surroundings("tested", room, room, **{"nobody_uses": True, **around}))


def everything(root: Path) -> Path:
    """A tree with every kind of entry that a restore can put back, and names that break programs."""
    root.mkdir(parents=True, exist_ok=True)
    base = os.fsencode(root)
    for number, name in enumerate(HOSTILE):
        with open(base + b"/" + name, "wb") as file:
            file.write(name * number)
        os.mkdir(base + b"/d" + name[:200])
        with open(base + b"/d" + name[:200] + b"/" + name, "wb") as file:
            file.write(b"inside")
    for name in ("a", "a-b", "a.b", "a0", "a b"):
        (root / name).mkdir()
        (root / name / "x").write_text(name)
    (root / "a" / "empty").mkdir(mode=0o700)
    (root / "a" / "zero").write_bytes(b"")
    (root / "a" / "run").write_text("#!/bin/sh\n")
    (root / "a" / "run").chmod(0o4755)
    (root / "a" / "sticky").mkdir()
    (root / "a" / "sticky").chmod(0o3770)
    os.symlink("/etc/passwd", root / "a" / "absolute link")
    os.symlink("../nowhere", root / "a" / "dangling")
    os.symlink("x", root / "a" / "link")
    os.link(root / "a" / "x", root / "a-b" / "same as a x")
    os.link(root / "a" / "x", root / "a" / "y")
    os.mkfifo(root / "a" / "pipe", 0o640)
    os.setxattr(root / "a" / "x", "user.note", b"\x00binary\xff")
    os.setxattr(root / "a" / "sticky", "user.directory", b"1")
    os.setxattr(root / "a0" / "x", "system.posix_acl_access", ACL)
    os.setxattr(root / "a0", "system.posix_acl_default", ACL)
    with open(root / "a" / "sparse", "wb") as file:
        file.write(b"x")
        file.truncate(40 << 20)
    if os.geteuid() == 0:
        _owners(root)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(number, 1_000_000_000_123_456_789 + number), follow_symlinks=False)
    return root


def _owners(root: Path) -> None:
    os.chown(root / "a.b" / "x", 4711, 4712)
    os.chown(root / "a" / "link", 4711, 4712, follow_symlinks=False)
    os.chown(root / "a" / "run", 4711, 4711)
    (root / "a" / "run").chmod(0o4755)  # a change of owner takes the bit away
    os.setxattr(root / "a b" / "x", "security.capability", base64.b64decode("AAAAAgAEAAAAAAAAAAAAAAAAAAA="))


def snapshot(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """All that can be known of every path below a root. Hard links are told by the first path that has the same inode."""
    found: dict[bytes, tuple[Any, ...]] = {}
    first: dict[int, bytes] = {}
    for path in _paths(os.fsencode(root)):
        status = os.lstat(path)
        inner = path[len(os.fsencode(root)) + 1 :]
        first.setdefault(status.st_ino, inner)
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        found[inner] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            _contents(path, status),
            first[status.st_ino],
            xattrs,
        )
    return found


def _contents(path: bytes, status: os.stat_result) -> bytes | None:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return file.read()
    return None


def _paths(folder: bytes) -> Iterator[bytes]:
    for name in sorted(os.listdir(folder)):
        path = folder + b"/" + name
        if name.startswith(b".storekeeper-"):
            continue
        yield path
        if os.path.isdir(path) and not os.path.islink(path):
            yield from _paths(path)


def many(root: Path, files: int, *, seed: int = 1) -> Path:
    """A tree of small files in nested directories."""
    chance = random.Random(seed)
    for number in range(files):
        path = root / f"{number % 17}" / f"{number % 5}-{chance.randrange(3)}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(300)))
    return root


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """An unprivileged user, effectively, while the block runs; needs root."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)

"""What is mounted where (proc(5), mountinfo): names move only within one mount, and a mount point not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path


def mounts_in(paths: Iterable[str], *, itself: bool) -> list[Path]:
    """What is mounted below these paths, or on them (`itself`)."""
    below: dict[str, set[Path]] = {}
    for mount in set(_mounts()):
        for place in (*([mount] if itself else []), *mount.parents):
            below.setdefault(str(place), set()).add(mount)
    return sorted({mount for path in paths for mount in below.get(path, ())})


def mount_of(path: Path) -> Path:
    """The mount point that a path is below: by name, because a bind mount is the same device and yet another mount."""
    mounts, real = set(_mounts()), path.resolve()
    return next((each for each in (real, *real.parents) if each in mounts), Path("/"))


def _mounts() -> Iterator[Path]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            yield Path(_unescaped(line.split()[4]))


def _unescaped(field: str) -> str:
    """Space, tab, newline and backslash stand as octal numbers."""
    for number, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(number, sign)
    return field

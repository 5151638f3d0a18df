"""What this process can put back: all as root, else what belongs to its own user. Asked before anything is written."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SET_ID = 0o6000
_LABEL = "security.selinux"  # this host's policy gives one to every file
# The least access list that there is (acl(5)): version 2; owner, group and others, each with no identity.
_LEAST_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in ((1, 7), (4, 0), (0x20, 0)))
_PROBES = {
    "user.": ("user.storekeeper", b"1"),
    "system.posix_acl": ("system.posix_acl_access", _LEAST_ACL),
    "security.": ("security.storekeeper", b"1"),
}


@dataclass(frozen=True)
class Rights:
    """Which attributes a restore sets. What it does not set is left out of the comparison of digests, and of nothing else."""

    owners: bool
    root: bool
    groups: frozenset[int]
    user: int
    unkept: tuple[str, ...] = ()  # beginnings of names of extended attributes

    @classmethod
    def here(cls, *, no_owners: bool = False) -> Rights:
        """For a restore: what is not this user's to set is refused, unless a person said `--no-owners`."""
        return cls(not no_owners, os.geteuid() == 0, frozenset((*os.getgroups(), os.getegid())), os.geteuid())

    @classmethod
    def in_scratch(cls, directory: Path) -> Rights:
        """For a proof in this empty directory: what cannot be tried there is taken as recorded."""
        here = cls.here()
        return replace(here, owners=here.root, unkept=tuple(begin for begin, probe in _PROBES.items() if not _keeps(directory, *probe)))

    def sets_owner(self, entry: Mapping[str, Any]) -> bool:
        return self.owners and self.may_own(entry)

    def may_own(self, entry: Mapping[str, Any]) -> bool:
        return self.root or (entry["uid"] == self.user and entry["gid"] in self.groups)

    def sets_xattr(self, name: str) -> bool:
        return (self.root or not name.startswith("security.")) and not name.startswith(self.unkept)

    def mode(self, entry: Mapping[str, Any]) -> int:
        """The mode to set: without its owner, a file must not run as somebody else."""
        mode = int(entry["mode"])
        return mode if self.sets_owner(entry) else mode & ~_SET_ID

    def lacks(self, entry: Mapping[str, Any]) -> str | None:
        """Why this entry cannot be restored whole by a strict restore; None where it can."""
        if self.owners and not self.may_own(entry):
            return f"belongs to {entry.get('owner') or entry['uid']}:{entry.get('group') or entry['gid']}"
        if any(not self.sets_xattr(name) for name in entry.get("xattrs", {})) and self.owners:
            return "has security attributes"
        return None

    def as_recorded(self, found: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """What was found, with what this process could not have set replaced by what the set says."""
        if "hardlink" in wanted or "hardlink" in found or found["type"] != wanted["type"]:
            return found
        if not self.sets_owner(wanted):
            found = {**found, "uid": wanted["uid"], "gid": wanted["gid"]}
            if found["mode"] == wanted["mode"] & ~_SET_ID:
                found["mode"] = wanted["mode"]
        return self._xattrs_as_recorded(found, wanted)

    def _xattrs_as_recorded(self, found: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        recorded = wanted.get("xattrs", {})
        there = found.get("xattrs", {})
        xattrs = {name: value for name, value in there.items() if self.sets_xattr(name) and (name != _LABEL or name in recorded)}
        xattrs |= {name: value for name, value in recorded.items() if not self.sets_xattr(name)}
        rest = {key: value for key, value in found.items() if key != "xattrs"}
        return {**rest, "xattrs": xattrs} if xattrs else rest


def _keeps(directory: Path, name: str, value: bytes) -> bool:
    """Whether extended attributes like this one can be set here: some file systems keep none, some containers allow none."""
    try:
        os.setxattr(directory, name, value)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
            return False
        raise
    os.removexattr(directory, name)
    return True

"""What this process can put back: all as root, else what belongs to its own user. Asked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SET_ID = 0o6000
_LABEL = "security.selinux"  # this host's policy gives one to every file


@dataclass(frozen=True)
class Rights:
    """Which attributes a restore sets. What it does not set is left out of the comparison of digests, and of nothing else.

    `strict` is False in a proof: what cannot be tried in its scratch directory is then taken as recorded.
    """

    owners: bool
    root: bool
    groups: frozenset[int]
    user: int
    strict: bool = True

    @classmethod
    def here(cls, *, no_owners: bool = False, strict: bool = True) -> Rights:
        root = os.geteuid() == 0
        groups = frozenset((*os.getgroups(), os.getegid()))
        return cls(not no_owners and (root or strict), root, groups, os.geteuid(), strict)

    def sets_owner(self, entry: Mapping[str, Any]) -> bool:
        return self.owners and self.may_own(entry)

    def may_own(self, entry: Mapping[str, Any]) -> bool:
        return self.root or (entry["uid"] == self.user and entry["gid"] in self.groups)

    def sets_xattr(self, name: str) -> bool:
        return self.root or not name.startswith("security.")

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
        # A scratch directory's file system may keep no attributes.
        untried = [name for name in recorded if not self.sets_xattr(name) or (not self.strict and name not in there)]
        xattrs |= {name: recorded[name] for name in untried}
        rest = {key: value for key, value in found.items() if key != "xattrs"}
        return {**rest, "xattrs": xattrs} if xattrs else rest

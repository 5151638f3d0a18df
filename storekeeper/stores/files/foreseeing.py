"""What speaks against restoring a files store here, found out without changing anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host.holders import family, holders_of
from storekeeper.host.tree import parents_of
from storekeeper.outcomes import Problem, Refused, Severity, Unknown
from storekeeper.stores.files.checking import listed
from storekeeper.stores.files.entries import Entry
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.mounts import mounts_in
from storekeeper.stores.files.places import Place
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.surroundings import Surroundings

_BLOCK = 4096
_NAMED = 3
_TOLD = 400  # characters: it may name every entry


class Survey:
    """One reading of a set's listing: the bytes that each place needs, and what could not be put back here."""

    def __init__(self, folder: Path, scope: Scope, places: Sequence[Place], rights: Rights) -> None:
        self.bytes_needed: dict[Path, int] = {place.hidden.parent: 0 for place in places}
        self._parents = {place.parent: place.hidden.parent for place in places}
        self._lacking: list[str] = []
        self._lacking_count = 0
        self._devices = 0
        for entry in listed(folder, scope):
            self._look(entry, rights)

    def refuse(self, name: str) -> None:
        """Raises Refused where an entry cannot be restored whole."""
        if self._lacking_count:
            more = f" and {self._lacking_count - len(self._lacking):,} more" if self._lacking_count > len(self._lacking) else ""
            raise Refused(
                f"this user cannot restore {'; '.join(self._lacking)}{more}: restore as root, or without owners", next=f"--no-owners {name}"
            )

    def problems(self, name: str, rights: Rights) -> Iterator[Problem]:
        if self._devices and not rights.root:
            yield Problem(f"{self._devices:,} devices will not be made: only root can", Severity.WARNING, name)
        if not rights.owners:
            yield Problem("files will belong to this user, without set-user-ID bits", Severity.WARNING, name)

    def _look(self, entry: Entry, rights: Rights) -> None:
        parent = next(each for each in (*parents_of(entry["path"]), "") if each in self._parents)
        self.bytes_needed[self._parents[parent]] += _BLOCK + -(-entry.get("size", 0) // _BLOCK) * _BLOCK
        self._devices += entry["type"] == "device"
        if "uid" in entry and entry["type"] not in ("device", "socket") and (why := rights.lacks(entry)) is not None:
            self._lacking_count += 1
            if len(self._lacking) < _NAMED:
                self._lacking.append(f"{shown(entry['path'])}, which {why}")


@dataclass(frozen=True)
class Covered:
    """The paths of the live entries that a switch would move, in no order; looked up anew each time, since a root may have very many."""

    root: Path
    scope: Scope

    def __iter__(self) -> Iterator[str]:
        if self.scope.include:
            yield from (f"{self.root}/{entry}" for entry in self.scope.include)
        elif self.root.is_dir():
            with os.scandir(self.root) as entries:
                yield from (entry.path for entry in entries if not self.scope.leaves_out(entry.name))


def refuse_links(root: Path, scope: Scope) -> None:
    """Raises Refused where the root, or a directory above a covered entry, is a link or no directory."""
    for inner in scope.above():
        path = root / inner if inner else root
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
            raise Refused(f"{path} is {what}: declare the path where the files really are")


def refuse_read_only(places: Sequence[Place]) -> None:
    for place in places:
        for directory in {place.hidden.parent, *([place.live] if place.live.is_dir() else [])}:
            if not os.access(directory, os.W_OK | os.X_OK):
                raise Refused(f"this user may not change {directory}")


def refuse_mounts(paths: Iterable[str]) -> None:
    """Raises Refused: what is mounted cannot be moved aside with the directory that it is mounted in."""
    found = mounts_in(paths, itself=True)
    if found:
        raise Refused(
            f"{found[0]} is a mount point, and cannot be moved aside: declare its path as a store of its own, or unmount it for the restore"
        )


def users(paths: Iterable[str], surroundings: Surroundings, name: str) -> list[Problem]:
    """A warning where a process has a covered file open that may end with the services. Raises Refused where nothing is stopped, and
    as `holder` does."""
    who = holder(paths, nobody_uses=surroundings.nobody_uses, name=name)
    if who is None:
        return []
    if surroundings.services_stop:
        return [Problem(f"{who}: the restore goes back unless it ends with the services", Severity.WARNING, name)]
    raise _in_use(who)


def refuse_holders(paths: Iterable[str], *, nobody_uses: bool, name: str) -> None:
    """Raises Refused with the pid where a process has a covered file open, and as `holder` does."""
    who = holder(paths, nobody_uses=nobody_uses, name=name)
    if who is not None:
        raise _in_use(who)


def _in_use(who: str) -> Refused:
    return Refused(f"{who}, which would go on using the old files: stop it, or declare its service")


def holder(paths: Iterable[str], *, nobody_uses: bool, name: str) -> str | None:
    """Who has a covered file open, in words; None when nobody has. Raises Refused where that cannot be seen, unless a person said
    that nobody uses it."""
    try:
        found = holders_of(paths, except_pids=family())
    except Unknown as error:
        if nobody_uses:
            return None
        reason = shown(error.message)
        told = reason if len(reason) <= _TOLD else f"{reason[: _TOLD // 2]} ... {reason[-_TOLD // 2 :]}"
        raise Refused(f"{told}; what cannot be seen counts as used", next=f"--nobody-uses {name}") from error
    if not found:
        return None
    programs = {each.pid: each.program for each in found}
    spoken = ", ".join(f"{program} (pid {pid})" for pid, program in list(programs.items())[:_NAMED])
    return f"{shown(str(found[0].path))} is open in {spoken}"


def mounts_inside(root: Path, scope: Scope) -> list[str]:
    """Mount points among what is covered, below the root, as a backup warns of them."""
    entries = [f"{root}/{entry}" for entry in scope.include] if scope.include else [str(root)]
    found = [str(mount.relative_to(root)) for mount in mounts_in(entries, itself=bool(scope.include))]
    return [inner for inner in found if not any(scope.leaves_out(each) for each in (inner, *parents_of(inner)))]

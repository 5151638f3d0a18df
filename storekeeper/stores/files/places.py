"""Where a restore of a files store works: one hidden directory for each directory that holds covered entries.

HIDDEN = BASE/.storekeeper-TOKEN-STORE-N    0700, ours
    new/NAME    what will be live, under its own name
    old/NAME    what was live
    restore.json, plan.jsonl, state.json
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.host.tree import remove
from storekeeper.outcomes import Failed
from storekeeper.stores.files.mounts import mount_of
from storekeeper.stores.files.scope import Scope

_RESTORE, _PLAN, _STATE = "restore.json", "plan.jsonl", "state.json"


@dataclass(frozen=True)
class Place:
    """The place for the entries of one directory. `parent` is that directory below the root, `live` the same as a path."""

    parent: str
    live: Path
    hidden: Path

    @classmethod
    def of(cls, document: Mapping[str, str]) -> Place:
        return cls(document["parent"], Path(document["live"]), Path(document["hidden"]))

    def to_json(self) -> dict[str, str]:
        return {"parent": self.parent, "live": str(self.live), "hidden": str(self.hidden)}

    @property
    def new(self) -> Path:
        return self.hidden / "new"

    @property
    def old(self) -> Path:
        return self.hidden / "old"

    def make(self, restore: Mapping[str, Any]) -> None:
        """Make the place, empty, after removing what an interrupted stage left of it. `restore` is what a switch must know later."""
        if self.exists():
            if self.state is not None:
                raise Failed(f"{self.hidden} belongs to a switch that has begun")
            self.remove()
        durable.make_directory(self.hidden)
        durable.make_directory(self.new)
        durable.make_directory(self.old)
        durable.write_json(self.hidden / _RESTORE, dict(restore))

    def exists(self) -> bool:
        """Raises Failed where something that is not ours has its name."""
        try:
            status = os.lstat(self.hidden)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != durable.PRIVATE_DIRECTORY:
            raise Failed(f"{self.hidden} is no private directory of this program")
        return True

    def remove(self) -> None:
        """Remove it: out of the way in one step first, so that a crash leaves no half of it that could be taken for whole."""
        gone = self.hidden.with_name(f"{self.hidden.name}-gone")
        if self.exists():
            remove(gone)
            durable.rename(self.hidden, gone)
        remove(gone)

    @property
    def restore(self) -> dict[str, Any]:
        found = self._read(_RESTORE)
        if found is None:
            raise Failed(f"what was staged is gone: {self.hidden}")
        return found

    @property
    def state(self) -> dict[str, Any] | None:
        return self._read(_STATE)

    def set_state(self, state: Mapping[str, Any]) -> None:
        durable.write_json(self.hidden / _STATE, dict(state))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            with open(self.hidden / name, encoding="ascii") as file:
                found: dict[str, Any] = json.load(file)
                return found
        except FileNotFoundError:
            return None

    def write_plan(self, moves: Iterator[tuple[str, int | None, int | None]]) -> None:
        temporary = self.hidden / f"{_PLAN}.new"
        with open(temporary, "wb") as file:
            file.writelines(json.dumps(move).encode("ascii") + b"\n" for move in moves)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self.hidden / _PLAN)
        durable.sync_directory(self.hidden)

    def plan(self) -> Iterator[tuple[str, int | None, int | None]]:
        """Name, inode that comes in, inode that was live."""
        with open(self.hidden / _PLAN, encoding="ascii") as file:
            for line in file:
                name, incoming, live = json.loads(line)
                yield name, incoming, live


def places(name: str, root: Path, scope: Scope, token: str, stage_dir: Path | None) -> list[Place]:
    """The places of a restore: in `stage_dir`, else beside the root, where an application that walks its files does not meet them.

    Where names cannot be moved to from there (another mount, no right to write), a place is beside its entries. Only looks.
    """
    found = []
    for number, parent in enumerate(scope.parents):
        live = root / parent if parent else root
        wanted = [stage_dir, root.parent] if stage_dir is not None else [root.parent]
        base = next((each for each in wanted if _can_serve(each, nearest_existing(live))), nearest_existing(live))
        found.append(Place(parent, live, base / f".storekeeper-{token}-{name}-{number}"))
    return found


def _can_serve(base: Path, live: Path) -> bool:
    return base.is_dir() and os.access(base, os.W_OK | os.X_OK) and mount_of(base) == mount_of(live)


def nearest_existing(path: Path) -> Path:
    while not os.path.lexists(path):
        path = path.parent
    return path


def staged_tree(found: Sequence[Place]) -> dict[str, Path]:
    return {place.parent: place.new for place in found}

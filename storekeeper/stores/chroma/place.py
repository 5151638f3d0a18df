"""The names that a restore of a Chroma directory uses, and the exchange of what stands under them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host import durable
from storekeeper.stores import exchange
from storekeeper.stores.chroma import layout
from storekeeper.stores.protocol import Facts, SwitchLog

_SWITCH, _CHILDREN = "switch", "children"
_Entry = Callable[[Path, Path, Path, SwitchLog, str], None]


@dataclass(frozen=True)
class Place:
    """Where the staged directory, the live one and the old side are. `inside` when the live one is a mount point, whose name
    cannot be exchanged: its entries are then, one by one, and stage and old side are in it."""

    live: Path
    stage: Path
    old: Path
    inside: bool

    @classmethod
    def named(cls, store: str, live: Path, token: str, stage_dir: Path | None) -> Place:
        """Looks only whether the live directory is a mount point. Named after the store: one stage directory may serve several."""
        inside = os.path.ismount(live)
        beside = live if inside else live.parent
        name = layout.OURS + token if inside else f".{store}{layout.OURS}{token}"
        return cls(live, (stage_dir or beside) / name, beside / f"{name}.old", inside)

    @classmethod
    def of(cls, facts: Facts) -> Place:
        """Raises KeyError for facts that `to_facts` did not write."""
        return cls(Path(facts["live"]), Path(facts["stage"]), Path(facts["old"]), bool(facts["inside"]))

    def to_facts(self) -> Facts:
        return {"live": str(self.live), "stage": str(self.stage), "old": str(self.old), "inside": self.inside}

    def switch(self, log: SwitchLog) -> None:
        """Make the staged directory live. Safe to repeat; durable when it returns."""
        if not self.inside:
            exchange.switch_entry(self.live, self.stage, self.old, log, _SWITCH)
            return
        names = self._note_children(log)
        if not self.old.is_dir():
            durable.make_directory(self.old)
        self._each(exchange.switch_entry, names, log)

    def switch_back(self, log: SwitchLog) -> None:
        """The reverse, from before, during or after `switch`."""
        if not self.inside:
            exchange.switch_entry_back(self.live, self.stage, self.old, log, _SWITCH)
            return
        noted = log.noted(_CHILDREN)
        if noted is not None:
            self._each(exchange.switch_entry_back, list(noted["names"]), log)

    def _note_children(self, log: SwitchLog) -> list[str]:
        noted = log.noted(_CHILDREN)
        if noted is None:
            names = sorted({*_children(self.live), *_children(self.stage)})
            log.note(_CHILDREN, names=names)
            noted = {"names": names}
        return [str(name) for name in noted["names"]]

    def _each(self, entry: _Entry, names: list[str], log: SwitchLog) -> None:
        for name in names:
            entry(self.live / name, self.stage / name, self.old / name, log, f"{_SWITCH} {name}")


def is_empty(directory: Path) -> bool:
    """Whether a directory holds nothing that is anybody's; what a restore left in a mount point does not count."""
    return not any(True for _ in _children(directory))


def _children(directory: Path) -> list[str]:
    """Names of entries, SQLite's journal and log among them: they belong to the database that is switched."""
    return [name for name in os.listdir(directory) if not name.startswith(layout.OURS)]

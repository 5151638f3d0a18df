"""What the tests of a switch of a SQLite file play in: a live file, a set, and the store that puts the one in the place of the other."""

from __future__ import annotations

import os
import shutil
from copy import copy
from pathlib import Path

from tests.harness import sqlite as lab
from tests.stores import walk

MODES = ("wal", "delete")


TOKEN = "0011aabb"


FACTS = "select min(title), max(title), count(*) from papers"


class Scene:
    """A live file of 400 `old` rows, a set of 300 `new` rows, and the store that will switch them."""

    def __init__(self, directory: Path, mode: str, *, patience_s: float = 5.0, stage_dir: Path | None = None, **pragmas: object) -> None:
        self.live = directory / "data" / "live.db"
        self.live.parent.mkdir()
        self.store = lab.store_at(self.live, directory, patience_s=patience_s)
        lab.make(self.live, 300, mode=mode, word="new", **pragmas)
        self.folder, self.record = walk.take(self.store, directory / "set")
        self.live.unlink()
        lab.make(self.live, 400, mode=mode, word="old")
        self.old = lab.ask(self.live, FACTS)
        self.new = lab.ask(self.folder / "database.sqlite", FACTS)
        self.place = self.store.place(TOKEN, stage_dir)
        self.log = walk.Journal()

    def again(self, directory: Path) -> Scene:
        """The same at the beginning, in another directory."""
        scene = copy(self)
        scene.live = directory / "data" / "live.db"
        scene.live.parent.mkdir(parents=True)
        if self.live.exists():
            shutil.copy(self.live, scene.live)
        scene.store = lab.store_at(scene.live, directory)
        scene.place = scene.store.place(TOKEN, None)
        scene.log = walk.Journal()
        scene.stage()
        return scene

    def stage(self) -> None:
        self.store.stage(self.folder, self.record, self.place)

    def switch(self) -> None:
        self.store.switch(self.place, self.log)

    def switch_back(self) -> None:
        self.store.switch_back(self.place, self.log)

    def now(self) -> list[tuple]:
        assert lab.ask(self.live, "pragma integrity_check") == [("ok",)]
        return lab.ask(self.live, FACTS)

    def companions(self) -> list[str]:
        return sorted(name for name in os.listdir(self.live.parent) if name != "live.db")

"""A switch of a SQLite file in a process of its own, to be killed anywhere: `python -m ... to_restored FACTS LOG`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from storekeeper.stores.sqlite.place import Place
from storekeeper.stores.sqlite.switching import Switching


class FileLog:
    """A restore's journal as a file: one note a line, durable when `note` returns; a torn last line was never written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, step: str, **facts: Any) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, (json.dumps({"step": step, "facts": facts}) + "\n").encode())
        os.fsync(descriptor)
        os.close(descriptor)

    def noted(self, step: str) -> dict[str, Any] | None:
        found = [json.loads(line) for line in self._path.read_bytes().split(b"\n")[:-1]] if self._path.exists() else []
        return next((each["facts"] for each in reversed(found) if each["step"] == step), None)


if __name__ == "__main__":
    direction, facts, log = sys.argv[1:]
    getattr(Switching(Place.of(json.loads(facts)), FileLog(Path(log)), nobody_uses=False), direction)()

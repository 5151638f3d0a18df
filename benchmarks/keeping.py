"""The program as cron starts it, on stacks below one directory: every figure of ours is of a whole command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import Timing, timed
from tests.harness.program import Program


class Keeping:
    """A configuration, a repository and a state of their own below `root`, which must be on the file system that is measured."""

    def __init__(self, root: Path, stores: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        self._program = Program(root)
        self.repository = self._program.repository
        self.declare("bench", stores, **more)

    def declare(self, stack: str, stores: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        """A stack file; YAML reads JSON."""
        self._program.declare(json.dumps({"stack": stack, "stores": stores, **more}, default=str), stack)

    def verb(self, *words: str) -> dict[str, Any]:
        """Run one verb. Returns its document; raises RuntimeError when it did not do what it was told."""
        ended = self._program.answer(*words)
        if ended.code not in (0, 4):
            raise RuntimeError(f"storekeeper {' '.join(words)} ended with {ended.code}: {ended.err[-2000:]}")
        return ended.document

    def timed(self, *words: str) -> tuple[Timing, dict[str, Any]]:
        documents: list[dict[str, Any]] = []
        timing = timed(lambda: documents.append(self.verb(*words)))
        return timing, documents[0]

    def backup(self, stack: str = "bench") -> tuple[Timing, dict[str, Any]]:
        return self.timed("backup", stack)

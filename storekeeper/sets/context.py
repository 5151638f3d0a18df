"""All that a verb works with, gathered once: the declared stack, its opened stores, its sets, its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host.progress import Progress
from storekeeper.runtimes.protocol import Runtime
from storekeeper.sets.repository import StackSets
from storekeeper.stack.model import Stack
from storekeeper.stores.protocol import Store


@dataclass(frozen=True)
class Opened:
    """`state` is this stack's own private directory, `scratch` is where scratch copies may be made, `host` is `uname -n`."""

    stack: Stack
    stores: Mapping[str, Store]
    services: Sequence[Runtime]
    state: Path
    scratch: Path
    host: str
    progress: Progress


@dataclass(frozen=True)
class Context(Opened):
    """The same with the stack's sets."""

    sets: StackSets

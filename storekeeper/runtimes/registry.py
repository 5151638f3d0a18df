"""From a declared runtime to what stops, starts and looks at it."""

from __future__ import annotations

from storekeeper.runtimes.protocol import Runtime
from storekeeper.runtimes.systemd import SystemdUnit
from storekeeper.stack.model import RuntimeModel


def open_runtime(declared: RuntimeModel) -> Runtime:
    """The runtime behind a declaration; nothing is asked yet."""
    return SystemdUnit(declared.systemd)

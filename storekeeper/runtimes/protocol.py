"""What every runtime promises."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Runtime(Protocol):
    """A process that somebody else supervises. Errors are Failed, or Unknown where the supervisor cannot be asked."""

    @property
    def label(self) -> str:
        """As people and reports name it, such as `systemd unit maestro-chroma`."""

    def is_running(self) -> bool:
        """Raises Unknown when the supervisor does not answer or does not know the name: not running is a fact, not a default."""

    def started_at(self) -> datetime | None:
        """When the running process was started; None when it is not running."""

    def stop(self) -> None:
        """Stop it and wait until it has stopped. Raises Failed past the runtime's patience. Harmless when stopped."""

    def start(self) -> None:
        """Start it and wait until the supervisor says that it runs. Raises Failed. Harmless when running."""

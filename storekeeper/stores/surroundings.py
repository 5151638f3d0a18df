"""What a store is told of the place it works in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Surroundings:
    """The stack's name, where private files may be kept, where scratch copies may be made, and what a person allowed.

    `private` is 0700 and belongs to this program; `scratch` can be reached by the unprivileged user that a scratch server
    runs as. `nobody_uses` and `no_owners` are the store's own answers to `--nobody-uses` and `--no-owners`. `services_stop` says that
    the stack declares services, which a restore stops: who holds a store now may be gone when it is switched.
    """

    stack: str
    private: Path
    scratch: Path
    nobody_uses: bool = False
    no_owners: bool = False
    services_stop: bool = False

"""Where things are on this host: the configuration directory, the repository, the state, the room for scratch copies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from storekeeper.outcomes import Refused
from storekeeper.stack.names import is_name

CONFIGURATION = Path("/etc/storekeeper")
DEFAULTS = {"repository": "/var/backups/storekeeper", "state": "/var/lib/storekeeper", "scratch": "/var/tmp"}  # noqa: S108 only a parent of private directories


@dataclass(frozen=True)
class Places:
    """Absolute paths; `config` is the directory that holds `storekeeper.yml` and `stacks/`."""

    config: Path
    repository: Path
    state: Path
    scratch: Path

    @property
    def stacks(self) -> Path:
        return self.config / "stacks"

    def stack_file(self, name: str) -> Path:
        """Raises Refused for what cannot be a stack's name, so that no path is ever made of it."""
        return self.stacks / f"{_checked(name)}.yml"

    def state_of(self, stack: str) -> Path:
        """The stack's own private directory; it need not exist. Raises Refused for what cannot be a stack's name."""
        return self.state / _checked(stack)


def load_places(config: Path) -> Places:
    """Read `storekeeper.yml`; what it does not say has its default, also when there is no such file.

    Raises StackFileErrors for unknown keys and relative paths, Refused when the directory is missing or the file unreadable.
    """
    config = config.absolute()
    if not config.is_dir():
        raise Refused(f"there is no configuration directory {config}", next=f"mkdir -p {config}/stacks")
    file = config / "storekeeper.yml"
    said = DEFAULTS
    if os.path.lexists(file):
        from storekeeper.stack.settings import read_settings  # noqa: PLC0415 the YAML reader takes time to import: only where there is a file

        said = {**DEFAULTS, **read_settings(file, tuple(DEFAULTS))}
    return Places(config=config, **{key: Path(path) for key, path in said.items()})


def stack_names(places: Places) -> tuple[str, ...]:
    """The declared stacks, sorted; none when the directory is missing.

    Raises Refused for a stack file that could never be loaded by its name: what is declared must not be passed over silently.
    """
    if not places.stacks.is_dir():
        return ()
    files = [path for path in places.stacks.iterdir() if not path.name.startswith(".")]
    wrong = sorted(path.name for path in files if path.suffix in (".yaml", ".yml") and not (path.suffix == ".yml" and is_name(path.stem)))
    if wrong:
        raise Refused(f"{places.stacks / wrong[0]} is no stack file: expected a name of a-z, 0-9 and _ with the ending .yml")
    return tuple(sorted(path.stem for path in files if path.suffix == ".yml"))


def _checked(name: str) -> str:
    if not is_name(name):
        raise Refused(f"{name[:60]!r} cannot be the name of a stack: expected a-z, 0-9 and _, a letter first, at most 40")
    return name

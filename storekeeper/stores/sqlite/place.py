"""The names that a restore of a SQLite file uses, and the removal of what stands under them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from storekeeper.host import durable
from storekeeper.stores import databases
from storekeeper.stores.protocol import Facts


@dataclass(frozen=True)
class Place:
    """`stage` and `old` may be in a directory elsewhere; `near` and `aside` are always beside the live file.

    `near` is a stage about to be renamed to a name that nothing has; `aside` begins the names of a journal and log that were
    found there without a database. With `raw` files are moved and never opened; `old` is beside the live file then, too.
    """

    live: Path
    stage: Path
    old: Path
    near: Path
    aside: Path
    raw: bool = False

    @classmethod
    def named(cls, store: str, live: Path, token: str, stage_dir: Path | None, *, raw: bool = False) -> Place:
        away, beside = (stage_dir or live.parent), live.parent
        name = f".{store}.{token}"
        old = (beside if raw else away) / f"{name}.old"
        return cls(live, away / f"{name}.stage", old, beside / f"{name}.near", beside / f"{name}.aside", raw)

    @classmethod
    def of(cls, facts: Facts) -> Place:
        """Raises KeyError for facts that `to_facts` did not write."""
        paths = {name: Path(facts[name]) for name in ("live", "stage", "old", "near", "aside")}
        return cls(**paths, raw=bool(facts.get("raw")))

    def to_facts(self) -> Facts:
        return {name: value if isinstance(value, bool) else str(value) for name, value in asdict(self).items()}


def unfinished(path: Path) -> Path:
    """What becomes `path` by a rename, once it is whole."""
    return path.with_name(path.name + ".new")


def remove(path: Path) -> None:
    """Remove a database that is not live, with all that SQLite or an interrupted copy left beside it. Harmless when there is none."""
    candidates = [databases.beside(base, suffix) for base in (path, unfinished(path)) for suffix in ("", *databases.SUFFIXES)]
    found = [each for each in candidates if os.path.lexists(each)]
    for each in found:
        each.unlink()
    if found:
        durable.sync_directory(path.parent)

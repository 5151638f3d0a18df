"""What a set says of a database, beside the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from storekeeper.outcomes import Failed
from storekeeper.stores.postgresql.archive import Archive, open_archive
from storekeeper.stores.postgresql.dump import DATABASE, ROLES, SEQUENCES, SHAPE, read_lines_of
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord

Words = list[str | None]  # of one thing that a database is made of


@dataclass(frozen=True)
class Recorded:
    """What a set says of its database, beside the rows."""

    record: StoreRecord
    archive: Archive
    database: Facts
    roles: Sequence[Facts]
    folder: Path

    def sequences(self) -> Iterator[Facts]:
        yield from read_lines_of(self.folder / SEQUENCES)

    def shape(self) -> Iterator[Words]:
        yield from read_lines_of(self.folder / SHAPE)


def recorded_in(folder: Path, record: StoreRecord, declared_programs: Path | None) -> Recorded:
    """Raises Failed when a file of the set does not read, Unknown when no program here can read the archive."""
    archive = open_archive(folder, record, declared_programs)
    try:
        database = json.loads((folder / DATABASE).read_bytes())
        if not isinstance(database, dict):
            raise TypeError(f"{DATABASE} holds no object")
        return Recorded(record, archive, database, list(read_lines_of(folder / ROLES)), folder)
    except (OSError, TypeError, ValueError) as error:
        raise Failed(f"the set's record of the database does not read: {error}") from error

"""Writing a set's files of a pinned database: one archive, and beside it what no dump holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from storekeeper.host import clock
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.lines import to_line
from storekeeper.stores.postgresql import catalogue, digests, properties, roles
from storekeeper.stores.postgresql.archive import Archive, best_compression
from storekeeper.stores.postgresql.archiving import SILENCE_SECONDS, Archiving
from storekeeper.stores.postgresql.bare import BARE, schemas_outside, shape_of_bare
from storekeeper.stores.postgresql.connection import Access, asking, bounded, server_version, value
from storekeeper.stores.postgresql.hold import SnapshotHold
from storekeeper.stores.postgresql.programs import find_for_backup, zstd_program
from storekeeper.stores.protocol import Dumped, Facts

DATABASE, ROLES, SEQUENCES, SHAPE = "database.json", "roles.jsonl", "sequences.jsonl", "shape.jsonl"
_PLAIN = "plain.sql"


def begin(hold: SnapshotHold, access: Access, database: str, declared_programs: Path | None, into: StoreFolder) -> None:
    """Have pg_dump write the pinned moment; it is given up when the hold is closed."""
    with asking("the pinned database could not be read"):
        programs = find_for_backup(declared_programs, server_version(hold.connection))
        compression = best_compression(programs)
        with bounded(hold.connection, SILENCE_SECONDS):
            hold.sequences = catalogue.sequences(hold.connection)
    hold.archiving = Archiving(access, database, hold.snapshot, programs, compression, into)


def finish(hold: SnapshotHold, into: StoreFolder, *, sql: bool) -> Dumped:
    """Read the same moment, and wait for the rest. Raises Failed when the snapshot's session does not live to the end of it."""
    archiving = hold.archiving
    if archiving is None:
        raise ValueError("no dump was begun")
    with asking("the pinned database could not be read"):
        started = clock.monotonic()
        content = digests.content(hold.connection, hold.tables)
        digested = clock.monotonic()
        archive = archiving.finish(into)
        with bounded(hold.connection, SILENCE_SECONDS):
            into.write(SEQUENCES, sequence_lines(hold.sequences, catalogue.sequences(hold.connection)))
            details = write_surroundings(hold, content.counts, into)
            hold.require_alive()
    if sql:
        _write_plain(Archive(archive, archiving.programs), into)
    seconds = {"snapshot_s": hold.held_seconds, "pg_dump_s": archiving.seconds, "digests_s": digested - started}
    details |= {name: round(spent, 3) for name, spent in seconds.items()}
    details |= {"archive_version": archiving.programs.version, "compression": archiving.compression.label}
    return Dumped("snapshot", content.counts, content.digests, details)


def read_lines_of(path: Path) -> Iterator[Any]:
    """The JSON values of a file, one a line."""
    with open(path, encoding="ascii") as file:
        for line in file:
            yield json.loads(line)


def write_surroundings(hold: SnapshotHold, counts: dict[str, int] | Any, into: StoreFolder, *, bare: bool = False) -> Facts:
    """`bare` says that nothing of the application's is to be loaded."""
    recorded, shape = properties.read(hold.connection), catalogue.shape(hold.connection)
    if bare:
        recorded |= {BARE: schemas_outside(hold.connection, recorded)}
        shape = shape_of_bare(recorded, shape)
    into.write(DATABASE, [(json.dumps(recorded, indent=2, sort_keys=True) + "\n").encode()])
    into.write(ROLES, (to_line(role) for role in roles.referred(hold.connection)))
    into.write(SHAPE, (_line(words) for words in shape))
    return {
        "database_bytes": value(hold.connection, "select pg_database_size(current_database())"),
        "index_memory": catalogue.index_memory(hold.connection, counts),
        "data_checksums": value(hold.connection, "show data_checksums"),
    }


def _write_plain(archive: Archive, into: StoreFolder) -> None:
    through = zstd_program()
    with archive.as_sql(through) as chunks:
        into.write(_PLAIN + (".zst" if through else ""), chunks)


def sequence_lines(before: Mapping[str, Facts], after: Mapping[str, Facts]) -> Iterable[bytes]:
    for name in sorted(before.keys() | after.keys()):
        yield to_line({"name": name, "before": before.get(name), "after": after.get(name)})


def _line(words: list[str | None]) -> bytes:
    return (json.dumps(words) + "\n").encode()

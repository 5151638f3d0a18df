"""Writing a set's files of a pinned database: one archive, and beside it what no dump holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from storekeeper.host import clock
from storekeeper.host.processes import reading
from storekeeper.stores.folder import StoreFolder, to_line
from storekeeper.stores.postgresql import catalogue, digests, properties, roles
from storekeeper.stores.postgresql.archive import ARCHIVE, Archive, Compression, best_compression
from storekeeper.stores.postgresql.connection import Access, asking, bounded, server_version, value
from storekeeper.stores.postgresql.hold import SnapshotHold
from storekeeper.stores.postgresql.programs import Programs, find_for_backup, zstd_program
from storekeeper.stores.protocol import Dumped, Facts

DATABASE, ROLES, SEQUENCES, SHAPE = "database.json", "roles.jsonl", "sequences.jsonl", "shape.jsonl"
_PLAIN = "plain.sql"
SILENCE_SECONDS = 1800.0  # without a byte from pg_dump: the server hangs
_LOCK_WAIT = "30s"  # of pg_dump, for tables that the hold does not lock


def dump(hold: SnapshotHold, access: Access, database: str, declared_programs: Path | None, into: StoreFolder, *, sql: bool) -> Dumped:
    """Dump the pinned moment. Raises Failed when the snapshot's session does not live to the end of it."""
    with asking("the pinned database could not be read"):
        programs = find_for_backup(declared_programs, server_version(hold.connection))
        compression = best_compression(programs)
        with bounded(hold.connection, SILENCE_SECONDS):
            before = catalogue.sequences(hold.connection)
        began = clock.monotonic()
        archive = _write_archive(hold, access, database, programs, compression, into)
        dumped = clock.monotonic()
        with bounded(hold.connection, SILENCE_SECONDS):
            into.write(SEQUENCES, _sequence_lines(before, catalogue.sequences(hold.connection)))
        content = digests.content(hold.connection, hold.tables)
        digested = clock.monotonic()
        with bounded(hold.connection, SILENCE_SECONDS):
            details = _write_surroundings(hold, content.counts, into)
            hold.require_alive()
    if sql:
        _write_plain(Archive(archive, programs), into)
    seconds = {"snapshot_s": hold.held_seconds, "pg_dump_s": dumped - began, "digests_s": digested - dumped}
    details |= {name: round(spent, 3) for name, spent in seconds.items()}
    details |= {"archive_version": programs.version, "compression": compression.label}
    return Dumped("snapshot", content.counts, content.digests, details)


def read_lines_of(path: Path) -> Iterator[Any]:
    """The JSON values of a file, one a line."""
    with open(path, encoding="ascii") as file:
        for line in file:
            yield json.loads(line)


def _write_archive(
    hold: SnapshotHold, access: Access, database: str, programs: Programs, compression: Compression, into: StoreFolder
) -> Path:
    words = ["--format=custom", compression.word, f"--snapshot={hold.snapshot}", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT}"]
    with access.environment(database) as environment:
        command = access.command(programs.path("pg_dump"), *words, f"--dbname={database}", environment=environment)
        with reading(*compression.pipeline(command), patience=SILENCE_SECONDS) as chunks:
            artefact = into.write(ARCHIVE + compression.suffix, chunks)
    return into.path / artefact.path


def _write_surroundings(hold: SnapshotHold, counts: dict[str, int] | Any, into: StoreFolder) -> Facts:
    recorded = properties.read(hold.connection)
    into.write(DATABASE, [(json.dumps(recorded, indent=2, sort_keys=True) + "\n").encode()])
    into.write(ROLES, (to_line(role) for role in roles.referred(hold.connection)))
    into.write(SHAPE, (_line(words) for words in catalogue.shape(hold.connection)))
    return {
        "database_bytes": value(hold.connection, "select pg_database_size(current_database())"),
        "index_memory": catalogue.index_memory(hold.connection, counts),
        "data_checksums": value(hold.connection, "show data_checksums"),
    }


def _write_plain(archive: Archive, into: StoreFolder) -> None:
    through = zstd_program()
    with archive.as_sql(through) as chunks:
        into.write(_PLAIN + (".zst" if through else ""), chunks)


def _sequence_lines(before: dict[str, Facts], after: dict[str, Facts]) -> Iterable[bytes]:
    for name in sorted(before.keys() | after.keys()):
        yield to_line({"name": name, "before": before.get(name), "after": after.get(name)})


def _line(words: list[str | None]) -> bytes:
    return (json.dumps(words) + "\n").encode()

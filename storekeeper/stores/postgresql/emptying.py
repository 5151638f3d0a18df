"""A database with its schema and no rows: an archive in which the rows of tables are left out, and what no dump holds beside it.

The rows of an extension's own tables are its configuration and stay; so do those of tables that are to be kept, with the sequences that
number them. Every other sequence stands where it began, and no large object is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from storekeeper.outcomes import Refused
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.postgresql import catalogue, digests
from storekeeper.stores.postgresql.archive import best_compression
from storekeeper.stores.postgresql.archiving import SILENCE_SECONDS, Archiving
from storekeeper.stores.postgresql.catalogue import Table
from storekeeper.stores.postgresql.connection import Access, Connection, asking, bounded, rows, server_version, unless_silent, value
from storekeeper.stores.postgresql.digests import Multiset
from storekeeper.stores.postgresql.dump import SEQUENCES, sequence_lines, write_surroundings
from storekeeper.stores.postgresql.hold import SnapshotHold
from storekeeper.stores.postgresql.programs import find_for_backup
from storekeeper.stores.protocol import Dumped, Facts
from storekeeper.stores.record import EMPTIED

_MOST_BYTES = 1 << 20  # of words for pg_dump, which the system takes together with the environment (execve(2))
_OF_A_RELATION = 32 << 10  # bytes: its files when it is empty
_SIZE = """
select (select coalesce(max(pg_database_size(oid)), 0) from pg_database where datname = 'template1')
    + (select count(*) from pg_class) * %s
    + (select coalesce(sum(pg_total_relation_size(oid)), 0) from pg_class where oid = any (%s))"""


def empty(access: Access, database: str, programs: Path | None, into: StoreFolder, keep: Collection[str] | None) -> Dumped:
    """Write the artefacts, of one moment. Raises Refused for a table in `keep` that is not there; None leaves no table (`bare.py`)."""
    hold = SnapshotHold(access, database)
    try:
        hold.prepare()
        hold.pin()
        if keep is None:
            return _bare(hold, access, database, programs, into)
        return _empty(hold, access, database, programs, into, keep)
    finally:
        hold.close()


def _empty(hold: SnapshotHold, access: Access, database: str, declared: Path | None, into: StoreFolder, keep: Collection[str]) -> Dumped:
    connection = hold.connection
    with asking("the pinned database could not be read"):
        kept = _kept(hold.tables, keep)
        with bounded(connection, SILENCE_SECONDS):
            sequences = _Sequences(connection, {table.oid for table in kept})
        programs = find_for_backup(declared, server_version(connection))
        emptied = [(table.schema, table.name) for table in hold.tables if not table.of_extension and table not in kept]
        words = _without([*emptied, *sequences.restarted])
        hold.archiving = Archiving(access, database, hold.snapshot, programs, best_compression(programs), into, words)
        counts, sums = _contents(connection, hold.tables, kept)
        hold.archiving.finish(into)
        with bounded(connection, SILENCE_SECONDS):
            into.write(SEQUENCES, sequence_lines(sequences.before, sequences.after(connection)))
            details = write_surroundings(hold, counts, into)
            configured = [table.oid for table in hold.tables if table in kept or table.of_extension]
            details["database_bytes"] = int(value(connection, _SIZE, (_OF_A_RELATION, configured)))
            hold.require_alive()
    details |= {"archive_version": programs.version, "compression": hold.archiving.compression.label}
    return Dumped(EMPTIED, counts, sums, details)


def _bare(hold: SnapshotHold, access: Access, database: str, declared: Path | None, into: StoreFolder) -> Dumped:
    """The archive holds the schema, of which only what is no application's is ever loaded."""
    connection = hold.connection
    with asking("the pinned database could not be read"):
        programs = find_for_backup(declared, server_version(connection))
        compression = best_compression(programs)
        configured = [table.oid for table in hold.tables if table.of_extension]
        words = _without([(table.schema, table.name) for table in hold.tables if not table.of_extension])
        hold.archiving = Archiving(access, database, hold.snapshot, programs, compression, into, words)
        hold.archiving.finish(into)
        with bounded(connection, SILENCE_SECONDS):
            into.write(SEQUENCES, ())
            details = write_surroundings(hold, {}, into, bare=True)
            details["database_bytes"] = int(value(connection, _SIZE, (_OF_A_RELATION, configured)))
            hold.require_alive()
    details |= {"archive_version": programs.version, "compression": compression.label}
    return Dumped(EMPTIED, {}, {}, details)


class _Sequences:
    """Where the sequences will stand: at their start, but those that number a kept table."""

    def __init__(self, connection: Connection, kept: Collection[int]) -> None:
        self._starts: dict[str, int] = {}
        self.restarted: list[tuple[str, str]] = []
        for schema, name, start, owner in rows(connection, catalogue.query("starts")):
            if owner not in kept:
                self._starts[catalogue.key_of(schema, name)] = start
                self.restarted.append((schema, name))
        self.before = self.after(connection)

    def after(self, connection: Connection) -> dict[str, Facts]:
        found = catalogue.sequences(connection)
        return {key: {**each, "last": self._starts[key], "called": False} if key in self._starts else each for key, each in found.items()}


def _kept(tables: Sequence[Table], keep: Collection[str]) -> list[Table]:
    """The named tables, with all partitions of none: each is named for itself."""
    by_key = {table.key: table for table in tables if table.has_rows}
    by_key |= {table.name: table for table in tables if table.has_rows and table.schema == "public" and table.name not in by_key}
    for name in keep:
        if name not in by_key:
            raise Refused(
                f"the rows of {name} are to be kept, and there is no such table with rows of its own",
                next="correct `reset: {keep: ...}`; a table is named `schema.table`",
            )
    return [by_key[name] for name in dict.fromkeys(keep)]


def _without(objects: Sequence[tuple[str, str]]) -> list[str]:
    """What makes pg_dump leave out the rows of these. A pattern in quotes stands for exactly one name."""
    words = ["--no-blobs", *(f"--exclude-table-data={_quoted(schema)}.{_quoted(name)}" for schema, name in objects)]
    if sum(len(word.encode()) for word in words) > _MOST_BYTES:
        raise Refused(f"{len(objects):,} tables and sequences are more than pg_dump can be told of: the database cannot be made empty")
    return words


def _contents(connection: Connection, tables: Sequence[Table], kept: Sequence[Table]) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Counts and digests of what is left, by table."""
    found = {table.key: Multiset() for table in tables if table.has_rows}
    with unless_silent(connection, SILENCE_SECONDS) as beat:
        columns = catalogue.columns(connection, kept)
        for table in kept:
            found[table.key] = digests.of_table(connection, table, columns[table.oid], beat)
    return {key: each.count for key, each in found.items()}, {key: each.digest for key, each in found.items()}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

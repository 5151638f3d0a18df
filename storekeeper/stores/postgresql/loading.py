"""Loading a set into a new database, next to others or in a scratch server, and reading back what arrived.

It goes in two steps, because the owner of a database may not make every extension: an administrator makes roles, database and
extensions, then pg_restore loads the rest and ends at the first error, as the owner where all belongs to it (`rights.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from storekeeper.host import durable
from storekeeper.host.processes import User
from storekeeper.outcomes import Failed
from storekeeper.stores.postgresql import catalogue, digests, extensions, properties, rights, roles
from storekeeper.stores.postgresql.archive import Archive, open_archive
from storekeeper.stores.postgresql.catalogue import named
from storekeeper.stores.postgresql.connection import Access, Connection, rows, server_version, value
from storekeeper.stores.postgresql.digests import Multiset
from storekeeper.stores.postgresql.dump import DATABASE, ROLES, SEQUENCES, SHAPE, read_lines_of
from storekeeper.stores.postgresql.programs import major_of
from storekeeper.stores.postgresql.rights import Become
from storekeeper.stores.protocol import Content, Facts
from storekeeper.stores.record import StoreRecord

Words = list[str | None]  # of one thing that a database is made of
_EXTENSION_ENTRY = re.compile(r"^[0-9]+; (3079 [0-9]+ EXTENSION|0 0 COMMENT - EXTENSION) ")
_LOCKS_OF_AN_ENTRY = 2
_LEAST_MEMORY = 64 << 20
_MOST_MEMORY = 64 << 30


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


def load(admin: Access, maintenance: str, name: str, recorded: Recorded, lists: Path, become: Become, *, tablespaces: bool) -> None:
    """Make database `name` and load the set into it. `lists` is a directory that pg_restore's user can reach.

    `become` connects as an owner of what the set holds, so that what it brings along has no other rights while it is loaded.
    """
    with admin.session(maintenance) as connection:
        roles.create(connection, roles.missing(connection, recorded.roles))
        properties.create_database(connection, name, recorded.database, tablespace=tablespaces)
    with admin.session(name) as connection:
        ours = _prepare(connection, recorded.database)
        entries = _entries(recorded.archive.list(), ours)
        at_once = _fits_one_transaction(connection, entries)
    words = [*(["--single-transaction"] if at_once else []), *([] if tablespaces else ["--no-tablespaces"])]
    options = _options(recorded.record, at_once)
    for session in rights.sessions(entries, recorded.roles, str(recorded.database["owner"]), admin, become):
        if session.entries:
            _restore(session, name, recorded.archive, [*words, *([f"--role={session.role}"] if session.role else [])], lists, options)


def beyond(admin: Access, recorded: Recorded, become: Become) -> tuple[list[str], list[str]]:
    """The roles whose functions would run with the administrator's rights in `load`, and the event triggers that come along."""
    entries = _entries(recorded.archive.list(), [])
    owners = rights.beyond(entries, recorded.roles, str(recorded.database["owner"]), admin, become)
    return owners, rights.event_triggers(entries)


def _restore(session: rights.Session, name: str, archive: Archive, words: Sequence[str], lists: Path, options: Mapping[str, str]) -> None:
    access = session.access
    _require_a_connection(access, name)
    with _list_file(lists, session.entries, access.os_user) as listed, access.environment(name, options) as environment:
        fixed = ["--exit-on-error", "--no-password", "--no-subscriptions", f"--dbname={name}", f"--use-list={listed}"]
        command = access.command(archive.programs.path("pg_restore"), *fixed, *words, environment=environment)
        archive.feed(command)


def _require_a_connection(access: Access, name: str) -> None:
    try:
        access.connect(name).close()
    except Failed as error:
        raise Failed(
            f"what belongs to {access.user} is loaded as {access.user}, so that its functions have no other rights, but: {error.message}",
            next=f"let role {access.user} connect to database {name} in pg_hba.conf",
        ) from error


def read_back(access: Access, name: str, recorded: Recorded) -> Content:
    """Counts and digests of a loaded database. Raises Failed when its sequences or its shape are not as recorded."""
    with access.session(name) as connection:
        connection.execute("begin isolation level repeatable read read only")
        _require_sequences(recorded, catalogue.sequences(connection))
        if major_of(server_version(connection)) == major_of(recorded.record.version):
            _require_shape(lambda: _with_extensions_here(connection, recorded), lambda: catalogue.shape(connection))
        return digests.content(connection, catalogue.tables(connection))


def _prepare(connection: Connection, database: Facts) -> list[str]:
    """Make the extensions; the names of schemas made for them, which pg_restore must not make again."""
    present = {name for (name,) in rows(connection, "select extname from pg_extension")}
    made = []
    for extension in database["extensions"]:
        if extension["name"] in present:
            continue
        made += _create_extension(connection, extension)
    for name in present - {extension["name"] for extension in database["extensions"]}:
        connection.execute(sql.SQL("drop extension {}").format(sql.Identifier(name)))
    if not database["public_schema"]:
        connection.execute("drop schema public")
    return made


def _create_extension(connection: Connection, extension: Facts) -> list[str]:
    name, version, schema = sql.Identifier(extension["name"]), extensions.version_here(connection, extension), extension["schema"]
    fixed = value(
        connection,
        "select coalesce(bool_or(schema is not null), false) from pg_available_extension_versions where name = %s and version = %s",
        (extension["name"], version),
    )
    if fixed:
        connection.execute(sql.SQL("create extension {} version {}").format(name, version))
        return []
    made = value(connection, "select not exists (select from pg_namespace where nspname = %s)", (schema,))
    if made:
        connection.execute(
            sql.SQL("create schema {} authorization {}").format(sql.Identifier(schema), sql.Identifier(extension["schema_owner"]))
        )
    connection.execute(sql.SQL("create extension {} schema {} version {}").format(name, sql.Identifier(schema), version))
    return [f" SCHEMA - {schema} {extension['schema_owner']}"] if made else []


def _entries(listed: Sequence[str], made: Sequence[str]) -> list[str]:
    """The lines of an archive's table of contents that are still to be restored."""
    unwanted = tuple(" ".join(ending.splitlines()) for ending in made)
    return [
        line for line in listed if line and not line.startswith(";") and not _EXTENSION_ENTRY.match(line) and not line.endswith(unwanted)
    ]


@contextmanager
def _list_file(directory: Path, entries: Sequence[str], user: User | None) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="storekeeper-", dir=directory))  # anybody may write beside it
    path = place / "pg_restore.list"
    try:
        durable.write_file(path, "".join(f"{line}\n" for line in entries).encode(errors="surrogateescape"))
        if user is not None:
            for each in (path, place):
                os.chown(each, user.uid, user.gid)
        yield path
    finally:
        durable.remove_tree(place)


def _fits_one_transaction(connection: Connection, entries: Sequence[str]) -> bool:
    """Whether the server has room for the locks of all that is made: a table with its indexes and TOAST takes several.

    One transaction is only faster. A load that fails in the middle leaves a database that is dropped, whether in one or in many.
    """
    slots = value(
        connection,
        "select current_setting('max_locks_per_transaction')::bigint"
        " * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)",
    )
    return bool(len(entries) * _LOCKS_OF_AN_ENTRY < slots)


def _options(record: StoreRecord, at_once: bool = True) -> Mapping[str, str]:
    """Settings of the loading session: memory in which the largest graph index can be built at once, if that much is free."""
    options = {"default_transaction_read_only": "off"}
    if not at_once:
        options["synchronous_commit"] = "off"  # thousands of small transactions, none of which counts before all are there
    wanted = int(record.details.get("index_memory", 0))
    if wanted > _LEAST_MEMORY:
        memory = max(_LEAST_MEMORY, min(wanted * 5 // 4, _free_memory() // 2, _MOST_MEMORY))
        options["maintenance_work_mem"] = f"{memory >> 10}kB"
    return options


def _free_memory() -> int:
    with open("/proc/meminfo", encoding="ascii") as table:
        for line in table:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def _require_sequences(recorded: Recorded, found: Mapping[str, Facts]) -> None:
    for line in recorded.sequences():
        if line["before"] is None or line["after"] is None:
            continue  # made or dropped during the dump: which of the two the snapshot saw is not known
        there = found.get(line["name"])
        if there is None:
            raise Failed(f"sequence {line['name']} is missing after the restore")
        if not catalogue.sequence_is_between(line["before"], line["after"], there):
            raise Failed(
                f"sequence {line['name']} stands at {there['last']}, the set says {line['before']['last']} to {line['after']['last']}"
            )


def _with_extensions_here(connection: Connection, recorded: Recorded) -> Iterator[Words]:
    """The recorded shape, with the versions that its extensions were given here."""
    others = extensions.updated(connection, recorded.database["extensions"])
    for words in recorded.shape():
        yield [words[0], words[1], others[words[1]][1]] if words[0] == "extension" and words[1] in others else words


def _require_shape(wanted: Callable[[], Iterable[Words]], found: Callable[[], Iterable[Words]]) -> None:
    """Only where they differ are they held in memory, to say in what."""
    if _sum_of(wanted()) == _sum_of(found()):
        return
    wanted_set, found_set = {tuple(words) for words in wanted()}, {tuple(words) for words in found()}
    if wanted_set == found_set:
        return
    missing, surplus = sorted(wanted_set - found_set, key=str), sorted(found_set - wanted_set, key=str)
    said = [f"{_spoken(words)} is missing" for words in missing] + [f"{_spoken(words)} is too much" for words in surplus]
    raise Failed(f"the restored database is not shaped as the set says: {named(said)}")


def _sum_of(shape: Iterable[Words]) -> Multiset:
    found = Multiset()
    for words in shape:
        found.add(hashlib.sha256(json.dumps(words).encode()).digest())
    return found


def _spoken(words: tuple[str | None, ...]) -> str:
    return " ".join(word for word in words if word)

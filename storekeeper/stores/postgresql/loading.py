"""Loading a set into a new database, next to others or in a scratch server.

It goes in two steps, because the owner of a database may not make every extension: an administrator makes roles, database and
extensions, then pg_restore loads the rest and ends at the first error, as the owner where all belongs to it (`rights.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from psycopg import sql

from storekeeper.host.aside import Aside
from storekeeper.host.handing import FileInMemory
from storekeeper.host.processes import Command
from storekeeper.outcomes import Failed
from storekeeper.stores.postgresql import extensions, properties, rights, roles
from storekeeper.stores.postgresql.archive import Archive
from storekeeper.stores.postgresql.bare import entries_of_bare
from storekeeper.stores.postgresql.connection import Access, Connection, rows, value
from storekeeper.stores.postgresql.recorded import Recorded
from storekeeper.stores.postgresql.rights import Become
from storekeeper.stores.protocol import Facts
from storekeeper.stores.record import StoreRecord

_EXTENSION_ENTRY = re.compile(r"^[0-9]+; (3079 [0-9]+ EXTENSION|0 0 COMMENT - EXTENSION) ")
_LOCKS_OF_AN_ENTRY = 2
_LEAST_MEMORY = 64 << 20
_MOST_MEMORY = 64 << 30


class Loading:
    """A set on its way into a new database `name`: all that comes before the rows is there, and pg_restore is at work, when this is made.

    `become` connects as an owner of what the set holds, so that what it brings along has no other rights while it is loaded.
    A context manager: what is not done when its block ends is given up.
    """

    def __init__(self, admin: Access, maintenance: str, name: str, recorded: Recorded, become: Become, *, tablespaces: bool) -> None:
        self._name = name
        self._ended = False
        with admin.session(maintenance) as connection:
            roles.create(connection, roles.missing(connection, recorded.roles))
            properties.create_database(connection, name, recorded.database, tablespace=tablespaces)
        with admin.session(name) as connection:
            ours = _prepare(connection, recorded.database)
            entries = _entries(recorded, ours)
            at_once = _fits_one_transaction(connection, entries)
        words = [*(["--single-transaction"] if at_once else []), *([] if tablespaces else ["--no-tablespaces"])]
        options = _options(recorded.record, at_once)
        sessions = rights.sessions(entries, recorded.roles, str(recorded.database["owner"]), admin, become)
        with ExitStack() as opened:
            each = (_command(session, name, recorded.archive, words, options) for session in sessions if session.entries)
            commands = [opened.enter_context(command) for command in each]
            self._aside = opened.enter_context(Aside())
            self._loaded = self._aside.begin(_feed, recorded.archive, commands)
            self._opened = opened.pop_all()

    def goes_on_for(self, name: str) -> bool:
        """Whether this is what loads that database, and was not given up."""
        return self._name == name and not self._ended

    def finish(self) -> None:
        """Wait until all is loaded. Raises Failed when pg_restore did: it ends at the first error."""
        with self._opened:
            self._loaded.result()

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        self._aside.give_up()
        self._opened.close()


def _feed(archive: Archive, commands: Sequence[Command]) -> None:
    for command in commands:
        archive.feed(command)


@contextmanager
def _command(session: rights.Session, name: str, archive: Archive, words: Sequence[str], options: Mapping[str, str]) -> Iterator[Command]:
    """pg_restore for a session, while what it needs beside the archive is there."""
    access = session.access
    _require_a_connection(access, name)
    entries = "".join(f"{line}\n" for line in session.entries).encode(errors="surrogateescape")
    with FileInMemory("pg_restore.list", entries, access.os_user) as listed, access.environment(name, options) as environment:
        fixed = ["--exit-on-error", "--no-password", "--no-subscriptions", f"--dbname={name}", f"--use-list={listed.path}"]
        role = [f"--role={session.role}"] if session.role else []
        yield access.command(
            archive.programs.path("pg_restore"), *fixed, *words, *role, environment=environment, hands=(listed.descriptor,)
        )


def beyond(admin: Access, recorded: Recorded, become: Become) -> tuple[list[str], list[str]]:
    """The roles whose functions would run with the administrator's rights while a set is loaded, and the event triggers that come along."""
    entries = _entries(recorded, [])
    owners = rights.beyond(entries, recorded.roles, str(recorded.database["owner"]), admin, become)
    return owners, rights.event_triggers(entries)


def _require_a_connection(access: Access, name: str) -> None:
    try:
        access.connect(name).close()
    except Failed as error:
        raise Failed(
            f"what belongs to {access.user} is loaded as {access.user}, so that its functions have no other rights, but: {error.message}",
            next=f"let role {access.user} connect to database {name} in pg_hba.conf",
        ) from error


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


def _entries(recorded: Recorded, made: Sequence[str]) -> list[str]:
    """The lines of an archive's table of contents that are still to be restored."""
    listed = entries_of_bare(recorded.database, recorded.archive.list())
    unwanted = tuple(" ".join(ending.splitlines()) for ending in made)
    return [
        line for line in listed if line and not line.startswith(";") and not _EXTENSION_ENTRY.match(line) and not line.endswith(unwanted)
    ]


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

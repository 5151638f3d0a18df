"""Whether a set can be restored on a server, asked before anything is made there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psycopg

from storekeeper.outcomes import Problem, Refused, Severity
from storekeeper.stores.postgresql import extensions, roles
from storekeeper.stores.postgresql.catalogue import named
from storekeeper.stores.postgresql.connection import Access, Connection, is_superuser, rows, server_version, value
from storekeeper.stores.postgresql.programs import major_of
from storekeeper.stores.postgresql.recorded import Recorded
from storekeeper.stores.postgresql.side import holders

_SIDE_FACTOR = 1.3  # a fresh load is smaller than what it came from; its write-ahead log comes on top
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def refuse_unless_possible(connection: Connection, admin: Access, live: str, recorded: Recorded) -> list[Problem]:
    """Raises Refused when the restore would fail or be unsafe; returns what a person should know."""
    _refuse_newer(connection, recorded)
    if found := holders(connection, live):
        raise Refused(f"database {live} cannot be swapped while it has {named(found)}", next="end or drop them first")
    _refuse_extensions(connection, recorded.database["extensions"])
    missing = roles.missing(connection, recorded.roles)
    if not is_superuser(connection):
        _refuse_rights(connection, admin, live, recorded, [role["name"] for role in missing])
    problems = []
    if missing:
        problems.append(_told(f"roles will be made: {named([role['name'] for role in missing])}", Severity.INFO))
    if lessened := roles.lessened(missing):
        problems.append(_told(f"these were superusers, replicated or passed row security by, and will not again: {named(lessened)}"))
    for name, (there, here) in extensions.updated(connection, recorded.database["extensions"]).items():
        problems.append(_told(f"extension {name} {there} is not here: {here} is used, which it would be updated to"))
    if gone := _missing_tablespaces(connection, recorded):
        problems.append(_told(f"tablespaces are not here, the default one is used: {named(gone)}"))
    return problems


def functions_beyond(owners: Sequence[str], triggers: Sequence[str], admin: Access) -> list[Problem]:
    """What a person should know of functions that the set brings along and that may run with more rights than their owners have."""
    problems = []
    if owners:
        text = f"functions of {named(owners)} may run with the rights of {admin.user} while rows are loaded"
        problems.append(_told(f"{text}, as only the store's own user can connect: restore only what you trust"))
    if triggers:
        problems.append(_told(f"event triggers come with the set, and run with the rights of whoever works there: {named(triggers)}"))
    return problems


def has_tablespaces(connection: Connection, recorded: Recorded) -> bool:
    """Whether every tablespace that the set names is on this server."""
    return not _missing_tablespaces(connection, recorded)


def bytes_needed(connection: Connection, host: str, is_socket: bool, recorded: Recorded) -> Mapping[Path, int]:
    """Room for the side database, by directory, where the server's disk is this host's and its place may be known."""
    if not (is_socket or host in _LOOPBACK):
        return {}
    try:
        directory = Path(str(value(connection, "show data_directory")))
    except psycopg.errors.InsufficientPrivilege:
        return {}
    size = int(recorded.record.details.get("database_bytes", recorded.record.bytes))
    return {directory: int(size * _SIDE_FACTOR)} if directory.is_dir() else {}


def package_of(extension: str, major: int) -> str:
    """Debian's name for an extension's package, as apt-get takes it."""
    return f"apt-get install postgresql-{major}-{'pgvector' if extension == 'vector' else extension}"


def _refuse_newer(connection: Connection, recorded: Recorded) -> None:
    here, there = server_version(connection), recorded.record.version
    if major_of(there) > major_of(here):
        raise Refused(
            f"the set was taken from PostgreSQL {there}, this server is {here}: an older server cannot take it", next="upgrade the server"
        )


def _refuse_extensions(connection: Connection, recorded: Iterable[Mapping[str, str]]) -> None:
    for extension in recorded:
        if (sentence := extensions.why_unavailable(connection, extension)) is not None:
            raise Refused(sentence, next=package_of(extension["name"], major_of(server_version(connection))))


def _refuse_rights(connection: Connection, admin: Access, live: str, recorded: Recorded, missing: list[str]) -> None:
    creates_databases, creates_roles = rows(connection, "select rolcreatedb, rolcreaterole from pg_roles where rolname = current_user")[0]
    owner = recorded.database["owner"]
    lacks = []
    if not creates_databases:
        lacks.append("may not make databases")
    if missing and not creates_roles:
        lacks.append(f"may not make the missing roles {named(missing)}")
    if owner not in missing and not value(connection, "select pg_has_role(current_user, %s, 'member')", (owner,)):
        lacks.append(f"is no member of {owner}, the owner")
    if not value(
        connection,
        "select coalesce(bool_and(pg_has_role(current_user, datdba, 'member')), true) from pg_database where datname = %s",
        (live,),
    ):
        lacks.append(f"does not own database {live}")
    if untrusted := _untrusted(connection, recorded):
        lacks.append(f"may not make the extensions {named(untrusted)}")
    if lacks:
        raise Refused(
            f"role {admin.user} {', '.join(lacks)}", next="declare `admin: {user: postgres}` with a password, or run as root on the server"
        )


def _untrusted(connection: Connection, recorded: Recorded) -> list[str]:
    available = {
        (name, version): trusted or not superuser
        for name, version, superuser, trusted in rows(
            connection, "select name, version, superuser, trusted from pg_available_extension_versions"
        )
    }
    present = {"plpgsql"}  # every new database has it
    wanted = [each for each in recorded.database["extensions"] if each["name"] not in present]
    return [each["name"] for each in wanted if not available.get((each["name"], extensions.version_here(connection, each)), False)]


def _missing_tablespaces(connection: Connection, recorded: Recorded) -> list[str]:
    there = {name for (name,) in rows(connection, "select spcname from pg_tablespace")}
    return sorted({recorded.database["tablespace"], *recorded.database["tablespaces"]} - there)


def _told(message: str, severity: Severity = Severity.WARNING) -> Problem:
    return Problem(message, severity)

"""Which version of an extension a set is restored with.

An upgraded package brings the new version's files and takes the old one's away, while databases keep the old number until somebody runs
ALTER EXTENSION UPDATE. A set of such a database must still restore: it is then given the version that it would be updated to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from storekeeper.stores.postgresql.connection import Connection, rows, value


def version_here(connection: Connection, extension: Mapping[str, str]) -> str | None:
    """The recorded version where this server can make it, else the default one if it updates the recorded. None where it has neither."""
    name, recorded = extension["name"], extension["version"]
    available = _available(connection, name)
    if not available or recorded in available:
        return recorded if available else None
    default = value(connection, "select default_version from pg_available_extensions where name = %s", (name,))
    updates = "select exists (select from pg_extension_update_paths(%s) where source = %s and target = %s and path is not null)"
    return str(default) if default in available and value(connection, updates, (name, recorded, default)) else None


def why_unavailable(connection: Connection, extension: Mapping[str, str]) -> str | None:
    """The sentence that says that it is missing here or older than recorded; None when it can be made."""
    if version_here(connection, extension) is not None:
        return None
    there = _available(connection, extension["name"])
    what = f"has version {', '.join(there)}" if there else "is not installed"
    return f"the set needs extension {extension['name']} {extension['version']}, which {what} on this server"


def updated(connection: Connection, extensions: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Those that come back in another version: the recorded one, and the one here."""
    found = {each["name"]: (each["version"], version_here(connection, each)) for each in extensions}
    return {name: (recorded, here) for name, (recorded, here) in found.items() if here is not None and here != recorded}


def _available(connection: Connection, name: str) -> list[str]:
    return sorted(
        version for (version,) in rows(connection, "select version from pg_available_extension_versions where name = %s", (name,))
    )

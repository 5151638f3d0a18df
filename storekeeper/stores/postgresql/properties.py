"""A database's own properties, which stand in no dump of it: read by us, and given to the database that takes its place."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from storekeeper.outcomes import Failed
from storekeeper.stores.postgresql.catalogue import query
from storekeeper.stores.postgresql.connection import Connection, value
from storekeeper.stores.postgresql.roles import set_parameter
from storekeeper.stores.protocol import Facts


def read(connection: Connection) -> Facts:
    """Owner, encoding, locale, limits, privileges, comment, settings, tablespaces and extensions of the connected database."""
    found = value(connection, query("database"))
    if not isinstance(found, dict):
        raise Failed("the database's properties could not be read")
    return found


def create_database(connection: Connection, name: str, recorded: Facts, *, tablespace: bool) -> None:
    """Make an empty database with the recorded owner, encoding and locale."""
    words: list[sql.Composable] = [sql.SQL("create database {} template template0").format(sql.Identifier(name))]
    words.append(sql.SQL("owner {}").format(sql.Identifier(recorded["owner"])))
    words.append(sql.SQL("encoding {}").format(str(recorded["encoding"])))
    words.append(sql.SQL("lc_collate {} lc_ctype {}").format(str(recorded["collate"]), str(recorded["ctype"])))
    words += _locale(connection, recorded)
    if tablespace and recorded["tablespace"] != "pg_default":
        words.append(sql.SQL("tablespace {}").format(sql.Identifier(recorded["tablespace"])))
    connection.execute(sql.SQL(" ").join(words))


def apply(connection: Connection, name: str, recorded: Facts) -> None:
    """Give the database its settings, privileges, comment and connection limit. Safe to repeat."""
    database = sql.SQL("database {}").format(sql.Identifier(name))
    for setting in recorded["settings"]:
        _set(connection, name, setting)
    _apply_privileges(connection, name, recorded)
    connection.execute(sql.SQL("comment on {} is {}").format(database, recorded["comment"]))
    connection.execute(sql.SQL("alter {} connection limit {}").format(database, int(recorded["connection_limit"])))


def set_search_paths(connection: Connection, name: str, recorded: Facts, role: str) -> None:
    """Of these settings only where a query of this role finds its tables: what else is set may need what a scratch server has not."""
    for setting in recorded["settings"]:
        if setting["name"] == "search_path" and setting["role"] in (None, role):
            _set(connection, name, setting)


def _set(connection: Connection, name: str, setting: Facts) -> None:
    subject = sql.SQL("database {}").format(sql.Identifier(name))
    if setting["role"] is not None:
        subject = sql.SQL("role {} in database {}").format(sql.Identifier(setting["role"]), sql.Identifier(name))
    set_parameter(connection, subject, setting["name"], setting["value"])


def _locale(connection: Connection, recorded: Facts) -> list[sql.Composable]:
    if connection.info.server_version < 150000:
        return []
    provider = str(recorded["locale_provider"])
    words: list[sql.Composable] = [sql.SQL("locale_provider {}").format(sql.Identifier(provider))]
    if provider == "icu":
        words.append(sql.SQL("icu_locale {}").format(str(recorded["locale"])))
    if provider == "builtin":
        words.append(sql.SQL("builtin_locale {}").format(str(recorded["locale"])))
    if recorded["icu_rules"] is not None:
        words.append(sql.SQL("icu_rules {}").format(str(recorded["icu_rules"])))
    return words


def _apply_privileges(connection: Connection, name: str, recorded: Facts) -> None:
    if not recorded["has_privileges"]:
        return
    database = sql.Identifier(name)
    owner = recorded["owner"]
    with connection.transaction():
        connection.execute(sql.SQL("revoke all on database {} from public, {}").format(database, sql.Identifier(owner)))
        granted = recorded["privileges"] or []
        for privilege in sorted(granted, key=lambda each: each["grantor"] != owner):
            _grant(connection, database, privilege, owner)


def _grant(connection: Connection, database: sql.Identifier, privilege: dict[str, Any], owner: str) -> None:
    if privilege["grantor"] != owner:
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(privilege["grantor"])))
    grantee = sql.SQL("public") if privilege["grantee"] is None else sql.Identifier(privilege["grantee"])
    word = _PRIVILEGES[privilege["privilege"]]
    option = sql.SQL(" with grant option" if privilege["grantable"] else "")
    connection.execute(sql.SQL("grant {} on database {} to {}{}").format(sql.SQL(word), database, grantee, option))
    if privilege["grantor"] != owner:
        connection.execute("reset role")


_PRIVILEGES = {"CREATE": "create", "CONNECT": "connect", "TEMPORARY": "temporary"}

"""Roles, which stand in no dump: those that a database refers to are recorded beside it, and made where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from storekeeper.stores.postgresql.catalogue import query
from storekeeper.stores.postgresql.connection import Connection, rows
from storekeeper.stores.protocol import Facts

# What a restore never hands out: who may do everything is decided on the server, not by a backup.
_NEVER_GIVEN = ("superuser", "replication", "bypass_rls")
_ATTRIBUTES = {"inherit": "inherit", "create_role": "createrole", "create_database": "createdb", "login": "login"}
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}


def referred(connection: Connection) -> list[Facts]:
    """The roles that this database refers to, with their password verifiers where this role may read them."""
    found: list[Facts] = [row[0] for row in rows(connection, query("roles"))]
    readable = connection.execute("select has_table_privilege('pg_authid', 'select')").fetchone()
    verifiers: dict[str, str] = {}
    if readable is not None and readable[0]:
        names = [role["name"] for role in found]
        verifiers = dict(rows(connection, "select rolname, rolpassword from pg_authid where rolname = any (%s)", (names,)))
    return [{**role, "verifier": verifiers.get(role["name"])} for role in found]


def missing(connection: Connection, recorded: Iterable[Facts]) -> list[Facts]:
    present = {name for (name,) in rows(connection, "select rolname from pg_roles")}
    return [role for role in recorded if role["name"] not in present]


def lessened(recorded: Iterable[Facts]) -> list[str]:
    """Names of roles that had rights which a restore does not give."""
    return [role["name"] for role in recorded if any(role[right] for right in _NEVER_GIVEN)]


def create(connection: Connection, wanted: Sequence[Facts]) -> None:
    """Make these roles as they were recorded, but never superusers, and none that replicate or pass row security by."""
    with no_statements_logged(connection), connection.transaction():
        for role in wanted:
            connection.execute(_creation(role))
        for role in wanted:
            _grant_memberships(connection, role)
            _comment_and_set(connection, role)


class no_statements_logged:  # noqa: N801 - a context manager reads as a phrase
    """Keep the block's statements, which hold password verifiers, out of the server's log, where this role may."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        for name, text in (("log_statement", "none"), ("log_min_duration_statement", "-1"), ("log_min_error_statement", "panic")):
            try:
                self._connection.execute("select set_config(%s, %s, false)", (name, text))
            except psycopg.errors.InsufficientPrivilege:
                return

    def __exit__(self, *_: object) -> None:
        """The session ends soon: its settings go with it."""


def set_parameter(connection: Connection, subject: sql.Composable, name: str, text: str) -> None:
    """`ALTER subject SET name`, exactly as it was recorded, lists too."""
    if name in _LISTS:
        with connection.transaction():
            connection.execute("select set_config(%s, %s, true)", (name, text))
            connection.execute(sql.SQL("alter {} set {} from current").format(subject, sql.Identifier(name)))
    else:
        connection.execute(sql.SQL("alter {} set {} to {}").format(subject, _parameter(name), text))


def _parameter(name: str) -> sql.Composable:
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))


def _creation(role: Facts) -> sql.Composed:
    words = [word if role[key] else f"no{word}" for key, word in _ATTRIBUTES.items()]
    parts: list[sql.Composable] = [sql.SQL("create role {}").format(sql.Identifier(role["name"]))]
    parts += [sql.SQL(word) for word in words]  # fixed words of ours
    parts.append(sql.SQL("connection limit {}").format(int(role["connection_limit"])))
    if role["valid_until"] is not None:
        parts.append(sql.SQL("valid until {}").format(str(role["valid_until"])))
    if role.get("verifier"):
        parts.append(sql.SQL("password {}").format(str(role["verifier"])))
    return sql.SQL(" ").join(parts)


def _grant_memberships(connection: Connection, role: Facts) -> None:
    name = sql.Identifier(role["name"])
    for membership in role["member_of"]:
        connection.execute(sql.SQL("grant {} to {}{}").format(sql.Identifier(membership["role"]), name, _options(membership, connection)))


def _options(membership: Facts, connection: Connection) -> sql.Composable:
    if connection.info.server_version < 160000 or membership["inherit"] is None:
        return sql.SQL(" with admin option" if membership["admin"] else "")
    said: dict[str, Any] = {"admin": membership["admin"], "inherit": membership["inherit"], "set": membership["set"]}
    return sql.SQL(" with ") + sql.SQL(", ").join(sql.SQL(f"{word} {'true' if on else 'false'}") for word, on in said.items())


def _comment_and_set(connection: Connection, role: Facts) -> None:
    subject = sql.SQL("role {}").format(sql.Identifier(role["name"]))
    if role["comment"] is not None:
        connection.execute(sql.SQL("comment on {} is {}").format(subject, str(role["comment"])))
    for setting in role["settings"]:
        set_parameter(connection, subject, setting["name"], setting["value"])

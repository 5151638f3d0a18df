"""What it takes to make a server's roles, databases and settings those that are declared: compared in both directions, as SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .. import sql
from .model import Database, Role

_FLAGS = ("login", "superuser", "createdb", "createrole", "inherit", "replication", "bypassrls")


@dataclass(frozen=True)
class Change:
    """One statement, and what it does in words. `database` is where it is carried out."""

    said: str
    statement: str
    database: str = "postgres"


def of_roles(declared: Mapping[str, Role], found: Mapping[str, Any]) -> Iterator[Change]:
    """Make and alter roles; first all of them, then who is a member of what."""
    for name, role in declared.items():
        there = found.get(name)
        if there is None:
            yield Change(f"make the role {name}", f"create role {sql.name(name)} {_attributes(role)}")
        elif differing := _differing(role, there):
            yield Change(f"alter the role {name}: {', '.join(differing)}", f"alter role {sql.name(name)} {_attributes(role)}")
        yield from _of_settings(name, role.settings, (there or {}).get("settings", ()))
    for name, role in declared.items():
        yield from _of_memberships(name, role, (found.get(name) or {}).get("member_of", ()))


def of_passwords(verifiers: Mapping[str, str]) -> Iterator[Change]:
    """Set what the server keeps of a password."""
    for name, verifier in sorted(verifiers.items()):
        yield Change(f"set the password of {name}", f"alter role {sql.name(name)} password {sql.literal(verifier)}")


def of_no_passwords(names: Sequence[str]) -> Iterator[Change]:
    """Take the passwords that nobody declared."""
    for name in sorted(names):
        yield Change(f"take the password from {name}", f"alter role {sql.name(name)} password null")


def of_databases(declared: Mapping[str, Database], found: Mapping[str, Any]) -> Iterator[Change]:
    """Make databases and alter what can be altered. Raises ValueError with a sentence for what cannot."""
    for name, database in declared.items():
        there = found.get(name)
        if there is None:
            made = f"create database {sql.name(name)} owner {sql.name(database.owner)} encoding {sql.literal(database.encoding)}"
            made += f" locale {sql.literal(database.locale)} template template0 connection limit {database.connection_limit}"
            yield Change(f"make the database {name} of {database.owner}", made)
            continue
        for what, wanted, is_there in (("encoding", database.encoding, there["encoding"]), ("locale", database.locale, there["locale"])):
            if _plain(wanted) != _plain(is_there):
                raise ValueError(
                    f"the database {name} has the {what} {is_there}, declared is {wanted}: that cannot be altered; "
                    "declare what it has, or restore it into a new one"
                )
        if there["owner"] != database.owner:
            yield Change(
                f"give the database {name} to {database.owner}", f"alter database {sql.name(name)} owner to {sql.name(database.owner)}"
            )
        if there["connection_limit"] != database.connection_limit:
            said = f"limit the database {name} to {_connections(database.connection_limit)}"
            yield Change(said, f"alter database {sql.name(name)} connection limit {database.connection_limit}")


def of_extensions(declared: Mapping[str, Database], found: Mapping[str, Mapping[str, str]]) -> Iterator[Change]:
    """Make what is missing. Nothing is ever dropped: with an extension go its types, and the columns that have them."""
    for name, database in declared.items():
        for extension in database.extensions:
            if extension not in found.get(name, {}):
                yield Change(f"have {extension} in {name}", f"create extension if not exists {sql.name(extension)}", name)


def _attributes(role: Role) -> str:
    words = [flag if getattr(role, flag) else f"no{flag}" for flag in _FLAGS]
    until = role.valid_until.astimezone(UTC).isoformat() if role.valid_until else "infinity"
    return " ".join([*words, f"connection limit {role.connection_limit}", f"valid until {sql.literal(until)}"])


def _differing(role: Role, there: Mapping[str, Any]) -> list[str]:
    """The attributes that are not as declared, as they will be."""
    found = [flag if getattr(role, flag) else f"no{flag}" for flag in _FLAGS if getattr(role, flag) != there[flag]]
    if role.connection_limit != there["connection_limit"]:
        found.append(_connections(role.connection_limit))
    if role.valid_until != (datetime.fromisoformat(there["valid_until"]) if there["valid_until"] else None):
        found.append(f"valid until {role.valid_until.isoformat() if role.valid_until else 'for ever'}")
    return found


def _of_settings(name: str, declared: Mapping[str, str], found: Sequence[str]) -> Iterator[Change]:
    there = dict(each.split("=", 1) for each in found)
    for key in declared.keys() | there.keys():
        if key not in declared:
            yield Change(f"take {key} from the role {name}", f"alter role {sql.name(name)} reset {sql.setting(key)}")
        elif declared[key] != there.get(key):
            value = sql.literal(declared[key])
            yield Change(f"set {key} for the role {name}", f"alter role {sql.name(name)} set {sql.setting(key)} = {value}")


def _of_memberships(name: str, role: Role, found: Sequence[str]) -> Iterator[Change]:
    for group in sorted({*role.member_of, *found}):
        if group not in found:
            yield Change(f"make {name} a member of {group}", f"grant {sql.name(group)} to {sql.name(name)}")
        elif group not in role.member_of:
            yield Change(f"end that {name} is a member of {group}", f"revoke {sql.name(group)} from {sql.name(name)}")


def _connections(limit: int) -> str:
    return f"{limit} connections" if limit >= 0 else "any number of connections"


def _plain(text: str) -> str:
    """`C.UTF-8` and `C.utf8` are one locale."""
    return text.lower().replace("-", "").replace("_", "")

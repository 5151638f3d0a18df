"""What an inventory declares of a host's PostgreSQL: host data `storekeeper_postgresql`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from storekeeper.stack.schedule import Time
from storekeeper.stack.types import Declared, Matching, SecretReference, SqlName

from ..layout import sentences, tuples

RESERVED = 3  # connections that the server keeps for its superuser
OURS = 6  # connections that backups (two), a restore's comparison (two) and monitoring (two) take
FIXED = ("max_connections", "shared_preload_libraries", "port", "listen_addresses")  # have a key of their own
_TOO_LONG = 400  # characters of a setting's value

SettingName = Annotated[str, Matching(r"[a-z][a-z0-9_]{1,62}(\.[a-z][a-z0-9_]{0,62})?", "the name of a setting")]
SettingValue = Annotated[str, Matching(rf"[^\x00-\x1f\x7f]{{0,{_TOO_LONG}}}", f"one line of at most {_TOO_LONG} characters")]
ExtensionName = Annotated[str, Matching(r"[a-z][a-z0-9_-]{0,62}", "the name of an extension")]
Locale = Annotated[str, Matching(r"[A-Za-z][A-Za-z0-9_.@-]{0,60}", "a locale such as C.UTF-8")]
Addresses = Annotated[str, Matching(r"([A-Za-z0-9.:*][A-Za-z0-9.:*, -]{0,199})?", "addresses, as listen_addresses takes them")]
Component = Annotated[str, Matching(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,60}", "a component such as main")]
LocalFile = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,4000}", "the path of a file")]
Connections = Annotated[int, Field(ge=-1, le=262143)]


class Source(Declared):
    """An index of Debian packages beside the distribution's own, and the key that it is signed with."""

    uri: Annotated[str, Matching(r"(https?|file)://?[A-Za-z0-9/][A-Za-z0-9._~/:-]*", "an address of an index (http, https or file)")]
    suite: Annotated[str, Matching(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,60}", "a suite such as bookworm-pgdg")]
    components: Annotated[tuple[Component, ...], Field(description="its components")] = ("main",)
    key: Annotated[LocalFile, Field(description="the key's file on the control machine, as gpg exports it with --armor")]


class Role(Declared):
    """A role with all its attributes: what is not said is the attribute's off, and is taken away where it is found."""

    password: Annotated[
        SecretReference | None, Field(description="where its password is on the control machine; none can log in with one")
    ] = None
    login: bool = True
    superuser: bool = False
    createdb: bool = False
    createrole: bool = False
    inherit: bool = True
    replication: bool = False
    bypassrls: bool = False
    connection_limit: Annotated[Connections, Field(description="-1 for none")] = -1
    valid_until: Annotated[datetime | None, Field(description="when its password ends; never when left out")] = None
    member_of: Annotated[tuple[SqlName, ...], Field(description="the roles it is a member of, and of no others")] = ()
    settings: dict[SettingName, SettingValue] = Field(default_factory=dict, description="its own settings, and no others")


class Database(Declared):
    """A database. `pools` are the most connections that each pool of its application opens."""

    owner: SqlName
    encoding: Annotated[str, Matching(r"[A-Z][A-Z0-9_]{1,20}", "an encoding such as UTF8")] = "UTF8"
    locale: Locale = "C.UTF-8"
    extensions: tuple[ExtensionName, ...] = ()
    connection_limit: Annotated[Connections, Field(description="-1 for none")] = -1
    pools: dict[str, Annotated[int, Field(ge=1, le=10000)]] = Field(default_factory=dict)
    test: Annotated[bool, Field(description="have NAME_test beside it, with the same owner and extensions")] = False


class Server(Declared):
    """The one cluster of a host."""

    version: Annotated[int, Field(ge=13, le=30, description="the major version")]
    source: Annotated[Source | None, Field(description="where its packages come from; the distribution when left out")] = None
    cluster: Annotated[str, Matching(r"[a-z][a-z0-9_]{0,30}", "the name of a cluster")] = "main"
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    listen: Addresses = "localhost"
    memory_share: Annotated[float, Field(gt=0.0, le=1.0, description="how much of the host's memory is PostgreSQL's")] = 0.5
    max_connections: Annotated[int, Field(ge=20, le=10000)] = 100
    settings: dict[SettingName, SettingValue] = Field(default_factory=dict, description="beside and instead of those from memory")
    roles: dict[SqlName, Role] = Field(default_factory=dict)
    updates: Annotated[
        Time | None, Field(description="when newer minor versions are installed, as five cron fields; never when left out")
    ] = None
    backup_role: Annotated[SqlName | None, Field(description="a role that reads everything and can write nothing")] = None
    monitoring_role: Annotated[SqlName | None, Field(description="a role that sees activity and sizes, and no rows")] = None
    databases: dict[SqlName, Database] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Server:
        if found := next(_contradictions(self), None):
            raise PydanticCustomError("contradiction", "{sentence}", {"sentence": found})
        return self

    @property
    def all_roles(self) -> Mapping[str, Role]:
        """The declared ones, and the two that are made for Storekeeper."""
        ours = {self.backup_role: READER, self.monitoring_role: WATCHER}
        return {**self.roles, **{name: role for name, role in ours.items() if name is not None}}

    @property
    def all_databases(self) -> Mapping[str, Database]:
        """The declared ones, and those for tests."""
        found = {}
        for name, database in self.databases.items():
            found[name] = database
            if database.test:
                found[test_name(name)] = database.model_copy(update={"test": False, "pools": {}, "connection_limit": -1})
        return found

    @property
    def pooled(self) -> int:
        """What the pools of all applications add up to."""
        return sum(sum(database.pools.values()) for database in self.databases.values())


# It bypasses row security, because a dump that leaves rows out is none; what it may not do is write.
READER = Role(member_of=("pg_read_all_data",), bypassrls=True, settings={"default_transaction_read_only": "on"}, connection_limit=4)
WATCHER = Role(member_of=("pg_monitor",), connection_limit=4)


def test_name(database: str) -> str:
    return f"{database}_test"


def read(given: object, where: str) -> Server:
    """What host data holds, checked. Raises ValueError with every mistake, a line each, that begins with `where`."""
    try:
        return Server.model_validate(tuples(given))
    except ValidationError as error:
        raise ValueError("\n".join(sentences(error, where))) from None


def _contradictions(server: Server) -> Iterator[str]:
    known = {*server.roles, *(name for name in (server.backup_role, server.monitoring_role) if name)}
    if len(known) < len(server.roles) + bool(server.backup_role) + bool(server.monitoring_role):
        yield "a role is declared twice: backup_role and monitoring_role are names of their own"
    for name, database in server.databases.items():
        if database.owner not in server.roles and database.owner != "postgres":
            yield f"databases.{name}.owner: {database.owner} is no declared role"
        if database.test and test_name(name) in server.databases:
            yield f"databases.{name}.test: {test_name(name)} is declared by itself"
        pooled = sum(database.pools.values())
        for what, limit in (("the database's", database.connection_limit), (f"{database.owner}'s", _limit_of(server, database.owner))):
            if 0 <= limit < pooled:
                yield f"databases.{name}.pools: they add up to {pooled} connections, {what} connection_limit is {limit}"
    for name in (*server.settings, *(setting for role in server.roles.values() for setting in role.settings)):
        if name in FIXED:
            yield f"settings.{name}: has a key of its own, or is set by what is declared"
    room = server.max_connections - RESERVED - OURS
    if server.pooled > room:
        yield (
            f"max_connections: the pools add up to {server.pooled} connections; {server.max_connections} leave {room}, "
            f"less {RESERVED} that the server keeps for its superuser and {OURS} for backups and monitoring"
        )


def _limit_of(server: Server, role: str) -> int:
    return server.roles[role].connection_limit if role in server.roles else -1

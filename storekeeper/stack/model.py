"""A stack as it is declared: its stores, the services that use them, how long sets are kept and when verbs run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from storekeeper.stack import commands, migrations, queries, rules
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.migrations import Migration
from storekeeper.stack.queries import NamedQuery, QueryName
from storekeeper.stack.rules import Name, Rule, RuleName, TableName
from storekeeper.stack.schedule import Scheduler, Schedules
from storekeeper.stack.types import (
    AbsolutePath,
    Declared,
    Duration,
    HostName,
    HttpUrl,
    InnerPath,
    Rate,
    SecretReference,
    Setting,
    SqlName,
    StackName,
    StoreName,
    UnitName,
)

MISSING = "missing_place"  # the type of the error whose context names, under `key`, what must stand there where no `url` does


class RuntimeModel(Declared):
    """How a process is run. Exactly one way; containers are not known to this version."""

    systemd: Annotated[UnitName, Field(description="the unit's name, such as `maestro-backend`")]


class Admin(Declared):
    """The role that makes and swaps databases during a restore, where the store's own user may not."""

    user: Annotated[SqlName, Field(description="its name")] = "postgres"
    password: Annotated[SecretReference | None, Field(description="where its password is; none means peer or trust")] = None


class StoreModel(Declared):
    runtime: Annotated[
        RuntimeModel | None, Field(description="how the process that serves the store is run; a Chroma server's is stopped for a restore")
    ] = None


IndexedColumns = Name | Annotated[tuple[Name, ...], Field(min_length=1, max_length=32)]
Indexes = Annotated[
    dict[TableName, tuple[IndexedColumns, ...]],
    Field(
        description="columns by table that an index must begin with: a column, or a list of them for one index over several; "
        "`examine` says which is not there"
    ),
]


class PostgresqlModel(StoreModel):
    """A PostgreSQL database, by `database` and `user` or by `url`. No password means peer or trust; `~/.pgpass` is never read."""

    kind: Annotated[Literal["postgresql"], Field(description="the kind of store")]
    url: Annotated[
        Setting | None,
        Field(description="where the application is told its address, instead of `database`, `user`, `host`, `port` and `password`"),
    ] = None
    database: Annotated[SqlName | None, Field(description="the database's name")] = None
    user: Annotated[SqlName | None, Field(description="the role that reads it for a backup, usually its owner")] = None
    host: Annotated[HostName | None, Field(description="a name, an address, or the directory of a socket; libpq's own when left out")] = (
        None
    )
    port: Annotated[int, Field(ge=1, le=65535, description="the server's port, also with a socket")] = 5432
    password: Annotated[SecretReference | None, Field(description="where the password is")] = None
    programs: Annotated[
        AbsolutePath | None, Field(description="the directory of pg_dump and its like; found by the server's major version when left out")
    ] = None
    sql: Annotated[bool, Field(description="keep a plain SQL file too, made from the dump")] = False
    admin: Annotated[
        Admin | None,
        Field(description="who makes and swaps databases; `postgres` over the socket when the program runs as root, else `user`"),
    ] = None
    indexes: Indexes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_place(self) -> PostgresqlModel:
        _refuse_two_places(self, ("database", "user"), ("database", "user", "host", "port", "password"))
        return self


class SqliteModel(StoreModel):
    """A SQLite database file, by `path` or by `url`."""

    kind: Annotated[Literal["sqlite"], Field(description="the kind of store")]
    path: Annotated[AbsolutePath | None, Field(description="the database file")] = None
    url: Annotated[Setting | None, Field(description="where the application is told its address, instead of `path`")] = None
    directory: Annotated[
        AbsolutePath | None,
        Field(description="with `url`: where the application runs, from which an address such as sqlite:///./data/x.db counts"),
    ] = None
    indexes: Indexes = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_place(self) -> SqliteModel:
        _refuse_two_places(self, ("path",), ("path",))
        if self.directory is not None and self.url is None:
            raise ValueError("`directory` stands beside `url` only")
        return self


def _refuse_two_places(store: StoreModel, needed: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Raises where a store's place is declared in no way, or in two."""
    by_url = getattr(store, "url", None) is not None
    if by_url and (twice := [key for key in others if key in store.model_fields_set]):
        raise ValueError(f"`url` says where the store is: `{twice[0]}` cannot stand beside it")
    if not by_url and (missing := [key for key in needed if getattr(store, key) is None]):
        raise PydanticCustomError(MISSING, "{key}", {"key": missing[0]})


class ChromaModel(StoreModel):
    """A Chroma directory, embedded in an application or kept by a server."""

    kind: Annotated[Literal["chroma"], Field(description="the kind of store")]
    path: Annotated[AbsolutePath, Field(description="the directory that holds chroma.sqlite3")]
    url: Annotated[HttpUrl | None, Field(description="the server's address, where a server keeps the directory")] = None
    python: Annotated[
        AbsolutePath | None, Field(description="the application's interpreter, which has chromadb; a proof reads every embedding with it")
    ] = None


class FilesModel(StoreModel):
    """A tree of files: the whole of `path`, or only the entries in `include`, less what `exclude` matches."""

    kind: Annotated[Literal["files"], Field(description="the kind of store")]
    path: Annotated[AbsolutePath, Field(description="the root of the tree; links are recorded and never followed")]
    include: Annotated[tuple[InnerPath, ...], Field(description="only these entries below the root; all of it when left out")] = ()
    exclude: Annotated[tuple[InnerPath, ...], Field(description="patterns of what is left out; a restore leaves it as it is")] = ()


AnyStore = Annotated[PostgresqlModel | SqliteModel | ChromaModel | FilesModel, Field(discriminator="kind")]


class Keep(Declared):
    """Which verified sets are kept: the union of all that these say."""

    days: Annotated[int, Field(ge=0, le=36500, description="every set younger than this many days")] = 30
    daily: Annotated[int, Field(ge=0, le=10000, description="the newest set of each of the last so many days that have one (UTC)")] = 7
    weekly: Annotated[int, Field(ge=0, le=10000, description="the same for ISO weeks")] = 4
    monthly: Annotated[int, Field(ge=0, le=10000, description="the same for months")] = 6
    at_least: Annotated[int, Field(ge=1, le=10000, description="the newest so many, however old")] = 3


class Load(Declared):
    """What `backup`, `verify`, `prove` and `prune` leave to others. A restore, and the time in which writers wait, are never slowed."""

    nice: Annotated[
        int,
        Field(ge=0, le=19, description="niceness, and with it the lowest best-effort rank for the disk; 0 leaves both as they are"),
    ] = 10
    max_rate: Annotated[
        Rate | None, Field(description="at most so many bytes a second, such as `50MB`, are read, copied or hashed; no limit when left out")
    ] = None


class BackupModel(Declared):
    """How sets are taken and kept."""

    keep: Annotated[Keep, Field(description="which sets are kept")] = Keep()
    load: Annotated[Load, Field(description="what is left to others meanwhile")] = Load()


class RestoreModel(Declared):
    """How long the way back stays open after a restore."""

    keep_old: Annotated[Duration, Field(description="how long what was live before stays beside it, for `restore --back`")] = timedelta(
        days=7
    )
    keep_safety: Annotated[Duration, Field(description="how long the safety set is pinned")] = timedelta(days=30)


class ResetModel(Declared):
    """Where the schema comes from that a reset leaves in the stores, and which rows stay."""

    made_by: Annotated[
        Literal["live", "migration"],
        Field(
            alias="schema",
            description="`live`: each store keeps the schema that it has; `migration`: the databases that `migration: {upgrade: ...}` "
            "is told of are left without any table, and that command makes the schema",
        ),
    ] = "live"
    keep: Annotated[
        dict[StoreName, tuple[TableName, ...]],
        Field(description="tables by store whose rows stay, such as those that say which migrations the schema has had"),
    ] = Field(default_factory=dict)


class Stack(Declared):
    """One application's stores, which must agree with each other."""

    stack: Annotated[StackName, Field(description="its name, which is also the file's")]
    stores: Annotated[dict[StoreName, AnyStore], Field(min_length=1, description="the stores by name")]
    services: Annotated[
        tuple[RuntimeModel, ...], Field(description="what uses the stores, stopped while a restore switches: a list of runtimes")
    ] = ()
    backup: Annotated[BackupModel, Field(description="how sets are taken and kept")] = BackupModel()
    restore: Annotated[RestoreModel, Field(description="how long the way back stays open")] = RestoreModel()
    reset: Annotated[ResetModel, Field(description="what a reset leaves")] = ResetModel()
    after_reset: Annotated[
        tuple[DeclaredCommand, ...],
        Field(description="commands run when a reset has switched the stores, before services start; one that fails takes it back"),
    ] = ()
    consistency: Annotated[dict[RuleName, Rule], Field(description="what the stores must agree on: rules by name")] = Field(
        default_factory=dict
    )
    queries: Annotated[dict[QueryName, NamedQuery], Field(description="what `storekeeper query` may ask, by name")] = Field(
        default_factory=dict
    )
    migration: Annotated[Migration | None, Field(description="the application's own migrations")] = None
    schedule: Annotated[Schedules, Field(description="which verbs run when")] = ()
    scheduler: Annotated[Scheduler, Field(description="what starts them")] = Scheduler()
    ping: Annotated[
        HttpUrl | None, Field(description="an address that is called after each backup, with `/fail` after one that failed")
    ] = None

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Stack:
        found = [
            *_secrets_that_cron_has_not(self),
            *_zones_that_cron_has_not(self),
            *stores_that_overlap(self),
            *_rules_that_cannot_be(self),
            *_resets_that_cannot_be(self),
        ]
        if found:
            text = "; ".join(f"{'.'.join(map(str, path))}: {sentence}" for path, sentence in found)
            raise PydanticCustomError(CONTRADICTIONS, "{text}", {"text": text, "found": found})
        return self

    @property
    def left_bare(self) -> tuple[StoreName, ...]:
        """The databases that a reset leaves without any table, for the migrations to make; none where the live schema stays."""
        told = self.migration.upgrade.names() if self.migration is not None and self.migration.upgrade is not None else []
        return tuple(name for name in told if self.stores[name].kind in _WITH_TABLES) if self.reset.made_by == "migration" else ()

    @property
    def once_emptied(self) -> tuple[DeclaredCommand, ...]:
        """What a reset runs when it has switched the stores, in this order."""
        made = [self.migration.upgrade] if self.left_bare and self.migration is not None and self.migration.upgrade is not None else []
        return (*made, *self.after_reset)


_WITH_TABLES = ("postgresql", "sqlite")  # the kinds whose schema is an application's own
CONTRADICTIONS = "contradictions"  # the type of the error whose context lists, under `found`, each path with its sentence
Contradiction = tuple[tuple[str | int, ...], str]


def _secrets_that_cron_has_not(stack: Stack) -> Iterator[Contradiction]:
    if not stack.schedule:
        return
    for name, store in stack.stores.items():
        if isinstance(store, PostgresqlModel):
            if store.password and store.password.env:
                yield ("stores", name, "password", "env"), "cron has no such environment: a stack with a schedule needs file"
            if store.admin and store.admin.password and store.admin.password.env:
                yield ("stores", name, "admin", "password", "env"), "cron has no such environment: a stack with a schedule needs file"


def _zones_that_cron_has_not(stack: Stack) -> Iterator[Contradiction]:
    if stack.scheduler.by == "cron" and stack.scheduler.zone is not None:
        yield ("scheduler", "zone"), "cron counts in the host's own zone: declare `by: systemd`, or no zone"


def stores_that_overlap(stack: Stack) -> Iterator[Contradiction]:
    covered = [(path, name) for name, store in stack.stores.items() for path in covered_paths(store)]
    for index, (path, name) in enumerate(covered):
        for other, other_name in covered[:index]:
            if path == other or path in other.parents or other in path.parents:
                yield ("stores", name, "path"), f"{path} overlaps {other} of stores.{other_name}: a restore would switch it twice"
    databases: dict[tuple[str | None, int, str], str] = {}
    for name, store in stack.stores.items():
        if isinstance(store, PostgresqlModel) and store.database is not None:
            first = databases.setdefault((store.host, store.port, store.database), name)
            if first != name:
                yield (
                    ("stores", name, "database"),
                    f"{store.database} is the database of stores.{first} too: a restore would switch it twice",
                )


def _rules_that_cannot_be(stack: Stack) -> Iterator[Contradiction]:
    kinds = {name: store.kind for name, store in stack.stores.items()}
    for path, sentence in rules.contradictions(stack.consistency, kinds):
        yield ("consistency", *path), sentence
    for path, sentence in queries.contradictions(stack.queries, kinds):
        yield ("queries", *path), sentence
    for path, sentence in migrations.contradictions(stack.migration, kinds) if stack.migration is not None else ():
        yield ("migration", *path), sentence
    if not stack.consistency and any(entry.verb == "check" for entry in stack.schedule):
        yield ("schedule",), "check needs a rule in `consistency`"


def _resets_that_cannot_be(stack: Stack) -> Iterator[Contradiction]:
    if stack.reset.made_by == "migration":
        yield from _schemas_that_no_migration_makes(stack)
    for name in stack.reset.keep:
        if name not in stack.stores:
            yield ("reset", "keep", name), f"there is no store {name}; there are {', '.join(stack.stores)}"
        elif stack.stores[name].kind not in _WITH_TABLES:
            yield ("reset", "keep", name), f"a {stack.stores[name].kind} store has no tables whose rows could stay"
    for index, command in enumerate(stack.after_reset):
        for path, sentence in commands.mistakes(command, stack.stores):
            yield ("after_reset", index, *path), sentence


def _schemas_that_no_migration_makes(stack: Stack) -> Iterator[Contradiction]:
    upgrade = stack.migration.upgrade if stack.migration is not None else None
    place = ("reset", "schema")
    if upgrade is None:
        yield place, "nothing is declared that makes the schema: it needs `migration: {upgrade: ...}`"
    elif upgrade.arguments:
        yield place, f"`migration.upgrade` takes words that are typed ({', '.join(upgrade.arguments)}), and a reset has none to give it"
    elif all(name in stack.stores and stack.stores[name].kind not in _WITH_TABLES for name in upgrade.names()):
        yield place, "`migration.upgrade` is told of no PostgreSQL or SQLite store, so there is no schema that it could make"
    if any(stack.reset.keep.values()):
        yield ("reset", "keep"), "rows cannot stay in tables that the migrations make anew: leave `keep` out, or take the live schema"


def covered_paths(store: PostgresqlModel | SqliteModel | ChromaModel | FilesModel) -> tuple[Path, ...]:
    """What a store's restore may exchange: no two stores may cover the same. What only the host can tell is not among them."""
    if isinstance(store, PostgresqlModel) or store.path is None:
        return ()
    if isinstance(store, FilesModel) and store.include:
        return tuple(store.path / entry for entry in store.include)
    return (store.path,)

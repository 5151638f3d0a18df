"""A stack as it is declared: its stores, the services that use them, how long sets are kept and when verbs run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from storekeeper.stack.schedule import Schedules
from storekeeper.stack.types import (
    AbsolutePath,
    Declared,
    Duration,
    HostName,
    HttpUrl,
    InnerPath,
    SecretReference,
    SqlName,
    StackName,
    StoreName,
    UnitName,
)


class RuntimeModel(Declared):
    """How a process is run. Exactly one way; containers are not known to this version."""

    systemd: UnitName


class Admin(Declared):
    """The role that makes and swaps databases during a restore, where the store's own user may not."""

    user: SqlName = "postgres"
    password: SecretReference | None = None


class StoreModel(Declared):
    runtime: RuntimeModel | None = None


class PostgresqlModel(StoreModel):
    """A PostgreSQL database. No password means peer or trust; `~/.pgpass` is never read."""

    kind: Literal["postgresql"]
    database: SqlName
    user: SqlName
    host: HostName | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    password: SecretReference | None = None
    programs: AbsolutePath | None = None
    sql: bool = False
    admin: Admin | None = None


class SqliteModel(StoreModel):
    """A SQLite database file."""

    kind: Literal["sqlite"]
    path: AbsolutePath


class ChromaModel(StoreModel):
    """A Chroma directory; `url` where a server keeps it, `python` the interpreter that has chromadb."""

    kind: Literal["chroma"]
    path: AbsolutePath
    url: HttpUrl | None = None
    python: AbsolutePath | None = None


class FilesModel(StoreModel):
    """A tree of files: the whole of `path`, or only the entries in `include`, less what `exclude` matches."""

    kind: Literal["files"]
    path: AbsolutePath
    include: tuple[InnerPath, ...] = ()
    exclude: tuple[InnerPath, ...] = ()


AnyStore = Annotated[PostgresqlModel | SqliteModel | ChromaModel | FilesModel, Field(discriminator="kind")]


class Keep(Declared):
    """Which verified sets are kept: the union of all that these say."""

    days: Annotated[int, Field(ge=0, le=36500)] = 30
    daily: Annotated[int, Field(ge=0, le=10000)] = 7
    weekly: Annotated[int, Field(ge=0, le=10000)] = 4
    monthly: Annotated[int, Field(ge=0, le=10000)] = 6
    at_least: Annotated[int, Field(ge=1, le=10000)] = 3


class BackupModel(Declared):
    keep: Keep = Keep()


class RestoreModel(Declared):
    """How long the way back stays open after a restore."""

    keep_old: Duration = timedelta(days=7)
    keep_safety: Duration = timedelta(days=30)


class Stack(Declared):
    """One application's stores, which must agree with each other."""

    stack: StackName
    stores: Annotated[dict[StoreName, AnyStore], Field(min_length=1)]
    services: tuple[RuntimeModel, ...] = ()
    backup: BackupModel = BackupModel()
    restore: RestoreModel = RestoreModel()
    schedule: Schedules = ()
    ping: HttpUrl | None = None

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Stack:
        found = [*_secrets_that_cron_has_not(self), *_stores_that_overlap(self)]
        if found:
            text = "; ".join(f"{'.'.join(path)}: {sentence}" for path, sentence in found)
            raise PydanticCustomError(CONTRADICTIONS, "{text}", {"text": text, "found": found})
        return self


CONTRADICTIONS = "contradictions"  # the type of the error whose context lists, under `found`, each path with its sentence
Contradiction = tuple[tuple[str, ...], str]


def _secrets_that_cron_has_not(stack: Stack) -> Iterator[Contradiction]:
    if not stack.schedule:
        return
    for name, store in stack.stores.items():
        if isinstance(store, PostgresqlModel):
            if store.password and store.password.env:
                yield ("stores", name, "password", "env"), "cron has no such environment: a stack with a schedule needs file"
            if store.admin and store.admin.password and store.admin.password.env:
                yield ("stores", name, "admin", "password", "env"), "cron has no such environment: a stack with a schedule needs file"


def _stores_that_overlap(stack: Stack) -> Iterator[Contradiction]:
    covered = [(path, name) for name, store in stack.stores.items() for path in covered_paths(store)]
    for index, (path, name) in enumerate(covered):
        for other, other_name in covered[:index]:
            if path == other or path in other.parents or other in path.parents:
                yield ("stores", name, "path"), f"{path} overlaps {other} of stores.{other_name}: a restore would switch it twice"
    databases: dict[tuple[str | None, int, str], str] = {}
    for name, store in stack.stores.items():
        if isinstance(store, PostgresqlModel):
            first = databases.setdefault((store.host, store.port, store.database), name)
            if first != name:
                yield (
                    ("stores", name, "database"),
                    f"{store.database} is the database of stores.{first} too: a restore would switch it twice",
                )


def covered_paths(store: PostgresqlModel | SqliteModel | ChromaModel | FilesModel) -> tuple[Path, ...]:
    """What a store's restore may exchange: no two stores may cover the same."""
    if isinstance(store, PostgresqlModel):
        return ()
    if isinstance(store, FilesModel) and store.include:
        return tuple(store.path / entry for entry in store.include)
    return (store.path,)

"""A stack as it is declared: its stores, the services that use them, how long sets are kept and when verbs run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

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
    def _no_secret_from_the_environment_of_cron(self) -> Stack:
        if not self.schedule:
            return self
        for name, store in self.stores.items():
            if isinstance(store, PostgresqlModel):
                secrets = [store.password, store.admin.password if store.admin else None]
                if any(secret and secret.env for secret in secrets):
                    raise ValueError(f"stores.{name}: a secret from the environment cannot be had on a schedule: use file")
        return self

    @model_validator(mode="after")
    def _covered_paths_do_not_overlap(self) -> Stack:
        covered = [(path, name) for name, store in self.stores.items() for path in covered_paths(store)]
        for index, (path, name) in enumerate(covered):
            for other, other_name in covered[:index]:
                if path == other or path in other.parents or other in path.parents:
                    raise ValueError(f"stores.{name} and stores.{other_name} overlap: {path} and {other}")
        return self


def covered_paths(store: PostgresqlModel | SqliteModel | ChromaModel | FilesModel) -> tuple[Path, ...]:
    """What a store's restore may exchange: no two stores may cover the same."""
    if isinstance(store, PostgresqlModel):
        return ()
    if isinstance(store, FilesModel) and store.include:
        return tuple(store.path / entry for entry in store.include)
    return (store.path,)

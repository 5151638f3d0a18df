"""From a store whose place is the application's own setting to one that says it: on the host, each time it is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from storekeeper.outcomes import Refused
from storekeeper.stack.model import AnyStore, PostgresqlModel, SqliteModel, Stack, stores_that_overlap
from storekeeper.stack.setting import Address, read_address, refused
from storekeeper.stack.types import Setting

_SQLITE, _POSTGRESQL = ("sqlite",), ("postgresql", "postgres")
_DEFAULT_PORT = 5432
Store = TypeVar("Store", bound=AnyStore)


def resolved(declared: Store, name: str) -> Store:
    """The same store with its place; one that says it already, as it is. A password stays where it is, and is read when it is used.

    Raises Refused, naming file and key, for a setting that cannot be read, and for an address of another kind or without what is needed.
    """
    if isinstance(declared, SqliteModel) and declared.url is not None:
        return declared.model_copy(update={"path": _file(declared.url, declared.directory, name), "url": None, "directory": None})
    if isinstance(declared, PostgresqlModel) and declared.url is not None:
        return declared.model_copy(update={**_server(declared.url, name), "url": None})
    return declared


def resolved_stack(stack: Stack) -> Stack:
    """The same stack with the place of every store in it. Raises as `resolved` does, and Refused where two stores turn out to be the same,
    or one to be inside another.
    """
    stores = {name: resolved(store, name) for name, store in stack.stores.items()}
    if all(stores[name] is store for name, store in stack.stores.items()):
        return stack  # the stack file was checked as it stands
    found = stack.model_copy(update={"stores": stores})
    overlap = next(stores_that_overlap(found), None)
    if overlap is not None:
        raise Refused(f"{'.'.join(map(str, overlap[0]))}: {overlap[1]}", next="see what the applications' settings say")
    return found


def _file(setting: Setting, directory: Path | None, name: str) -> Path:
    address = _address(setting, name, _SQLITE, "sqlite")
    path = address.database
    if not path or path == ":memory:" or "\0" in path or address.host:
        raise refused(setting, name, "names no file")
    if path.startswith("/"):
        return Path(os.path.realpath(path))
    if directory is None:
        raise refused(setting, name, "names a file from the directory in which the application runs: declare it as `directory:`")
    return Path(os.path.realpath(directory / path))


def _server(setting: Setting, name: str) -> dict[str, object]:
    """What replaces the keys of a store, each of the shape that a stack file must give it."""
    address = _address(setting, name, _POSTGRESQL, "postgresql")
    missing = next((what for what, value in (("database", address.database), ("user", address.user)) if not value), None)
    if missing is not None:
        raise refused(setting, name, f"names no {missing}")
    try:
        made = PostgresqlModel(
            kind="postgresql",
            database=address.database,
            user=address.user,
            host=address.host,
            port=int(address.port) if address.port else _DEFAULT_PORT,
        )
    except (ValidationError, ValueError) as error:
        parts = {str(each["loc"][0]) for each in error.errors() if each["loc"]} if isinstance(error, ValidationError) else {"port"}
        sentence = f"has a {' and a '.join(sorted(parts)) or 'part'} that is not taken here"
    else:
        password = setting if address.password else None
        return {"database": made.database, "user": made.user, "host": made.host, "port": made.port, "password": password}
    raise refused(setting, name, sentence)


def _address(setting: Setting, name: str, schemes: tuple[str, ...], kind: str) -> Address:
    address = read_address(setting, name)
    if address.scheme not in schemes:
        raise refused(setting, name, f"is an address of {address.scheme[:20]}, and the store is declared as {kind}")
    return address

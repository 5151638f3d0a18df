"""The declared commands of a reset and of migrations: what each is told of the stores, and that the stores' files belong to nobody else
afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO

from storekeeper.host import durable
from storekeeper.outcomes import Refused
from storekeeper.runtimes import commands
from storekeeper.sets.context import Opened
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.model import PostgresqlModel, Stack, covered_paths
from storekeeper.stack.secrets import read_secret
from storekeeper.stores.protocol import Store

_PASSFILE = "passfile"
_SUFFIXES = ("", "-wal", "-shm", "-journal")

Owners = dict[str, tuple[int, int]]  # by path


def refuse_unless_there(stack: Stack) -> None:
    """Raises Refused for the first declared command that could not even be started. Runs nothing."""
    for command in stack.once_emptied:
        commands.refuse_unless_there(command)


def carry_out(
    context: Opened, command: DeclaredCommand, typed: Mapping[str, str] = MappingProxyType({}), stdin: IO[bytes] | None = None
) -> str:
    """Run one command, which reads an open file or nothing; returns what it said. Raises Failed where it fails; what it made in the stores
    belongs to whom the stores belong to, in any case.
    """
    before = _owners(context.stack)
    try:
        return carry_out_on(context, command, context.stores, typed, stdin)
    finally:
        _give_back(context.stack, before)


def carry_out_on(
    context: Opened, command: DeclaredCommand, stores: Mapping[str, Store], typed: Mapping[str, str], stdin: IO[bytes] | None = None
) -> str:
    """The same on these stores, which may be copies, and with nothing given back to anybody."""
    told = {name: stores[name] for name in command.names()}
    addresses = {name: store.address for name, store in told.items()}
    with _passfile(context, command, told.values()) as variables:
        return commands.carry_out(command, {**addresses, **typed}, variables, secrets_of(context.stack), stdin)


def secrets_of(stack: Stack) -> list[str] | None:
    """Every declared secret; None where one cannot be read."""
    found = []
    for store in stack.stores.values():
        if isinstance(store, PostgresqlModel):
            references = [store.password, store.admin.password if store.admin else None]
            try:
                found += [read_secret(each, "a password") for each in references if each is not None]
            except Refused:
                return None
    return found


@contextmanager
def _passfile(context: Opened, command: DeclaredCommand, told: Iterable[Store]) -> Iterator[Mapping[str, str]]:
    """The variable that leads libpq to the passwords of the databases that the command is told of, while the block runs."""
    lines = [line for store in told if (line := store.passfile_line()) is not None]
    if not lines:
        yield {}
        return
    user = commands.user_of(command)
    with scratch_directory(context) as private:
        path = private / _PASSFILE
        durable.write_file(path, "".join(lines).encode())
        if user is not None and os.geteuid() == 0:
            for each in (path, private):
                os.chown(each, user.uid, user.gid)
        yield {"PGPASSFILE": str(path)}


def _owners(stack: Stack) -> Owners:
    return {path: (status.st_uid, status.st_gid) for path, status in _covered(stack)}


def _give_back(stack: Stack, before: Owners) -> None:
    """A command may run as anybody, and what it makes is its user's: the application could not write there any more."""
    if os.geteuid() != 0:
        return  # nobody else can have made anything
    for path, status in _covered(stack):
        wanted = _owner_of(path, before)
        if wanted is not None and (status.st_uid, status.st_gid) != wanted:
            os.chown(path, *wanted, follow_symlinks=False)


def _owner_of(path: str, before: Owners) -> tuple[int, int] | None:
    """Whose it was; of what is new, whose that is which it stands beside or in."""
    for suffix in _SUFFIXES:
        if path.endswith(suffix) and (known := before.get(path.removesuffix(suffix))) is not None:
            return known
    parent = os.path.dirname(path)
    return None if parent == path else _owner_of(parent, before)


def _covered(stack: Stack) -> Iterator[tuple[str, os.stat_result]]:
    """All that the stack's stores cover, and what SQLite keeps beside its files; links are not followed."""
    for declared in stack.stores.values():
        for path in covered_paths(declared):
            real = os.path.realpath(path)
            for each in (real, *(real + suffix for suffix in _SUFFIXES[1:])):
                yield from _below(each)


def _below(path: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    yield path, status
    if os.path.isdir(path) and not os.path.islink(path):
        for folder, directories, files in os.walk(path):
            for name in (*directories, *files):
                each = os.path.join(folder, name)
                yield each, os.lstat(each)


def recorded(stack: Stack) -> Sequence[dict[str, object]]:
    """As a journal keeps them: what was declared when the reset began is what is done."""
    return [command.model_dump(mode="json", exclude={"arguments"}) for command in stack.once_emptied]


def read(facts: Sequence[Mapping[str, object]]) -> list[DeclaredCommand]:
    """What `recorded` wrote."""
    return [DeclaredCommand.model_validate_json(json.dumps(each)) for each in facts]

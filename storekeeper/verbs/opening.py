"""Everything a verb works with is opened here: the stack's declaration, its private state, its stores, its sets, its lock."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.runtimes.registry import open_runtime
from storekeeper.sets.context import Context
from storekeeper.sets.repository import Repository, StackSets
from storekeeper.stack.config import Places, stack_names
from storekeeper.stack.loader import load_stack
from storekeeper.stack.model import Stack
from storekeeper.stores.protocol import Store
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings

_LOCK = "lock"
_PRIVATE = "private"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Allowed:
    """What a person vouched for, by store: see `Surroundings`."""

    nobody_uses: Collection[str] = ()
    no_owners: Collection[str] = ()


NOTHING = Allowed()


def declared(places: Places, name: str) -> Stack:
    """The stack of that name. Raises Refused when there is none, StackFileErrors with all its mistakes."""
    refuse_unknown_stack(places, name)
    return load_stack(places.stack_file(name))


def refuse_unknown_stack(places: Places, name: str) -> None:
    """Raises Refused, with the nearest name, unless a stack file has this name."""
    names = stack_names(places)
    if name in names:
        return
    places.stack_file(name)  # refuses what cannot be a name at all
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"ls {places.stacks}"
    raise Refused(f"there is no stack {name} in {places.stacks}", next=hint)


def refuse_unknown_stores(stack: Stack, names: Collection[str]) -> None:
    """Raises Refused, with the nearest name, for the first that is no store of the stack."""
    for name in names:
        if name not in stack.stores:
            near = get_close_matches(name, stack.stores, 1)
            raise Refused(
                f"there is no store {name[:60]!r}; there are {', '.join(stack.stores)}", next=f"did you mean {near[0]}?" if near else None
            )


def state_of(places: Places, name: str) -> Path:
    """The stack's own state directory, 0700, made where it is missing. Raises Refused when somebody else could change it."""
    for path in (places.state, places.state_of(name)):
        private_directory(path)
    return places.state_of(name)


def jobs_folder(places: Places, name: str) -> Path:
    """Where the runs of a stack are recorded, made where it is missing. Raises Refused as `state_of` does."""
    for path in (places.state, places.state / "jobs", places.state / "jobs" / name):
        private_directory(path)
    return places.state / "jobs" / name


def private_directory(path: Path) -> None:
    """Make a directory 0700 where it is missing. Raises Refused for one that is a link, not ours, or that others may write to."""
    try:
        durable.ensure_directory(path)
        status = os.lstat(path)
    except OSError as error:
        raise Refused(f"the state directory {path} cannot be made: {error.strerror}", next="set `state:` in storekeeper.yml") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(
            f"the state directory {path} is {'a link' if stat.S_ISLNK(status.st_mode) else 'no directory'}", next=f"ls -ld {path}"
        )
    if status.st_uid != os.geteuid():
        raise Refused(f"the state directory {path} belongs to user {status.st_uid}, this is user {os.geteuid()}", next=f"ls -ld {path}")
    if status.st_mode & _OTHERS_WRITE:
        raise Refused(
            f"the state directory {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may write to it", next=f"chmod 0700 {path}"
        )


def open_stores(stack: Stack, places: Places, state: Path, allowed: Allowed) -> Mapping[str, Store]:
    """Every declared store; none is contacted yet. Raises Refused for a kind whose library is missing."""
    return {name: open_store_of(stack, name, places, state, allowed) for name in stack.stores}


def open_store_of(stack: Stack, name: str, places: Places, state: Path, allowed: Allowed = NOTHING) -> Store:
    """One declared store, not contacted yet. Raises Refused as `open_stores` does."""
    surroundings = Surroundings(
        stack=stack.stack,
        private=state / _PRIVATE,
        scratch=places.scratch,
        nobody_uses=name in allowed.nobody_uses,
        no_owners=name in allowed.no_owners,
    )
    return open_store(name, stack.stores[name], surroundings)


def known_sets(places: Places, name: str) -> StackSets | None:
    """The stack's sets, without a look at its stack file; None when this host has never had a repository. Raises Refused."""
    refuse_unknown_stack(places, name)
    if not os.path.lexists(places.repository) and not os.path.lexists(places.state / "repository-id"):
        return None
    return Repository.open(places.repository, places.state).stack(name)


@contextmanager
def locked_sets(places: Places, name: str, purpose: str) -> Iterator[StackSets]:
    """The stack's sets under its lock, without a look at its stack file. Raises Busy, and Refused as `Repository.open` does."""
    with durable.umask(0o077), locks.hold(state_of(places, name) / _LOCK, purpose):
        yield Repository.open(places.repository, places.state).stack(name)


@contextmanager
def open_context(
    places: Places,
    stack: Stack,
    progress: Progress,
    *,
    lock: str | None = None,
    allowed: Allowed = NOTHING,
    may_create: bool = False,
) -> Iterator[Context]:
    """All that a verb works with, while the block runs. `lock` is the purpose of the stack's lock; None takes none.

    Raises Busy when another run has the lock, Refused for a state directory or repository that is not to be trusted, and for
    a repository that is not there unless it `may_create` the first one.
    """
    with ExitStack() as held:
        held.enter_context(durable.umask(0o077))
        state = state_of(places, stack.stack)
        private_directory(state / _PRIVATE)
        if lock is not None:
            held.enter_context(locks.hold(state / _LOCK, lock))
        repository = (Repository.open_or_create if may_create else Repository.open)(places.repository, places.state)
        yield Context(
            stack=stack,
            stores=open_stores(stack, places, state, allowed),
            services=[open_runtime(service) for service in stack.services],
            sets=repository.stack(stack.stack),
            state=state,
            scratch=places.scratch,
            host=os.uname().nodename,
            progress=progress,
        )

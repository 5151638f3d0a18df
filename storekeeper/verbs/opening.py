"""Everything a verb works with is opened here: the stack's declaration, its private state, its stores, its sets, its lock."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.runtimes.registry import open_runtime
from storekeeper.sets.context import Context, Opened
from storekeeper.sets.repository import Repository
from storekeeper.stack import resolving
from storekeeper.stack.config import Places
from storekeeper.stack.loader import load_stack
from storekeeper.stack.mistakes import suggestion
from storekeeper.stack.model import Stack
from storekeeper.stores.protocol import Store
from storekeeper.stores.registry import open_store
from storekeeper.stores.surroundings import Surroundings
from storekeeper.verbs.directories import lock_of, private_of, refuse_unknown_stack, state_of


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


def refuse_unknown_stores(stack: Stack, names: Collection[str]) -> None:
    """Raises Refused, with the nearest name, for the first that is no store of the stack."""
    for name in names:
        if name not in stack.stores:
            near = suggestion(name, list(stack.stores))
            raise Refused(
                f"there is no store {name[:60]!r}; there are {', '.join(stack.stores)}", next=f"did you mean {near}?" if near else None
            )


def open_stores(stack: Stack, places: Places, allowed: Allowed = NOTHING) -> Mapping[str, Store]:
    """Every declared store; none is contacted yet. Raises Refused for a kind whose library is missing, as `state_of` does, and where the
    place of a store cannot be told, or is that of another.
    """
    stack = resolving.resolved_stack(stack)
    return {name: open_store_of(stack, name, places, allowed) for name in stack.stores}


def open_store_of(stack: Stack, name: str, places: Places, allowed: Allowed = NOTHING) -> Store:
    """One declared store, not contacted yet. Raises Refused as `open_stores` does."""
    surroundings = Surroundings(
        stack=stack.stack,
        private=private_of(places, stack.stack),
        scratch=places.scratch,
        nobody_uses=name in allowed.nobody_uses,
        no_owners=name in allowed.no_owners,
        services_stop=bool(stack.services),
    )
    return open_store(name, resolving.resolved(stack.stores[name], name), surroundings)


@contextmanager
def opened(places: Places, stack: Stack, progress: Progress, *, lock: str | None = None, allowed: Allowed = NOTHING) -> Iterator[Opened]:
    """What a verb works with beside the sets, while the block runs. `lock` is the purpose of the stack's lock; None takes none. The stack
    is as it was declared but for its stores, whose places are read from where the application keeps them.

    Raises Busy when another run has the lock, Refused for a state directory that is not to be trusted.
    """
    with ExitStack() as held:
        held.enter_context(durable.umask(0o077))
        state = state_of(places, stack.stack)
        if lock is not None:
            held.enter_context(locks.hold(lock_of(places, stack.stack), lock))
        stack = resolving.resolved_stack(stack)
        yield Opened(
            stack=stack,
            stores=open_stores(stack, places, allowed),
            services=[open_runtime(service) for service in stack.services],
            state=state,
            scratch=places.scratch,
            host=os.uname().nodename,
            progress=progress,
        )


def with_sets(opened: Opened, places: Places, *, may_create: bool = False, foresees: bool = False) -> Context:
    """The same with the stack's sets. Raises Refused for a repository that is not to be trusted, and for one that is not there unless it
    `may_create` the first one, or `foresees` that.
    """
    stack = opened.stack.stack
    open_it = Repository.open_or_foresee if foresees else Repository.open_or_create if may_create else Repository.open
    repository = open_it(places.repository, places.state, stack)
    return Context(**vars(opened), sets=repository.stack(stack))


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
    """All that a verb works with, while the block runs. Raises as `opened` and `with_sets` do."""
    with opened(places, stack, progress, lock=lock, allowed=allowed) as found:
        yield with_sets(found, places, may_create=may_create)

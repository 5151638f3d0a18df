"""From a declared store to the module that keeps its kind; a module is imported by the verb that needs it."""

from __future__ import annotations

from importlib import import_module

from storekeeper.outcomes import Refused
from storekeeper.stack.model import AnyStore
from storekeeper.stores.protocol import Store
from storekeeper.stores.surroundings import Surroundings

# Each module has `build(name, declared, surroundings) -> Store`.
_MODULES = {
    "postgresql": "storekeeper.stores.postgresql",
    "sqlite": "storekeeper.stores.sqlite",
    "chroma": "storekeeper.stores.chroma",
    "files": "storekeeper.stores.files",
}


def open_store(name: str, declared: AnyStore, surroundings: Surroundings) -> Store:
    """The store behind a declaration; nothing is opened yet. Raises Refused when the kind's library is not installed."""
    try:
        module = import_module(_MODULES[declared.kind])
    except ModuleNotFoundError as error:
        raise Refused(
            f"a {declared.kind} store needs the Python package {error.name}", store=name, next=f"pip install 'storekeeper[{declared.kind}]'"
        ) from error
    store: Store = module.build(name, declared, surroundings)
    return store

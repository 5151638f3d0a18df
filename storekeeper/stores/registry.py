"""From a declared store to the module that keeps its kind; a module is imported by the verb that needs it."""

from __future__ import annotations

import sys
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
_PACKAGES = {"postgresql": "'psycopg[binary]>=3.2,<4'"}  # what a kind needs beside the core


def open_store(name: str, declared: AnyStore, surroundings: Surroundings) -> Store:
    """The store behind a declaration; nothing is opened yet. Raises Refused when the kind's library is not installed."""
    try:
        module = import_module(_MODULES[declared.kind])
    except ImportError as error:
        raise Refused(
            f"a {declared.kind} store needs a Python package that cannot be loaded: {' '.join(str(error).split())}",
            store=name,
            next=f"{sys.executable} -m pip install {_PACKAGES[declared.kind]}" if declared.kind in _PACKAGES else None,
        ) from error
    store: Store = module.build(name, declared, surroundings)
    return store

"""The merged truth of a host: every key that the deploys read, its value, and which part of the inventory says so."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, operation

from . import declared
from .program import one_line

_PREFIX = "storekeeper_"


@dataclass(frozen=True)
class Value:
    """One key as it holds for a host. `source` says where it was found first, in the order in which pyinfra looks."""

    key: str
    shown: str
    source: str


@operation(is_idempotent=False)
def show() -> Generator[FunctionCommand, None, None]:
    """
    Print what is declared for a host, with the source of each value, and what its stack files say in a line each.

    **Example:**

    .. code:: python

        truth.show(name="Declared")
    """
    yield FunctionCommand(_show, (), {})


def values(target: Host) -> Iterator[Value]:
    """Every key of ours, sorted by name. Secrets are references here, as they are in the inventory."""
    sources = list(_sources(target))
    for key in sorted({key for _, data in sources for key in data if key.startswith(_PREFIX)} | set(declared.DEFAULTS)):
        for source, data in sources:
            if key in data:
                yield Value(key, _shown(data[key]), source)
                break
        else:
            yield Value(key, _shown(declared.DEFAULTS[key]), "default")


def _sources(target: Host) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As pyinfra looks: what was typed, the host's own, its groups', everybody's."""
    inventory = target.state.inventory
    yield "--data", inventory.get_override_data()  # type: ignore[no-untyped-call]
    yield f"inventory, {target.name}", inventory.get_host_data(target.name)
    for group in reversed(target.groups):  # the last one holds
        yield f"group_data, {group}", inventory.get_group_data(group)  # type: ignore[no-untyped-call]
    yield "group_data, all", inventory.get_data()  # type: ignore[no-untyped-call]


def _shown(value: Any) -> str:
    """A stack file given as text, or a long structure, is told by its size."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str) and "\n" in value:
        return f"(text of {len(value.splitlines())} lines)"
    return str(value) if isinstance(value, str | Path) else repr(value)


def _show(state: State, host: Host) -> None:  # noqa: ARG001 pyinfra looks for both names
    found = list(values(host))
    width = max(len(each.key) for each in found)
    for each in found:
        host.log(one_line(f"{each.key:<{width}}  {each.shown}  ({each.source})"), log_func=logger.info)
    for stack in declared.stacks(host):
        stores = ", ".join(f"{name} ({store.kind})" for name, store in stack.stack.stores.items())
        times = ", ".join(f"{entry.verb} {entry.at}" for entry in stack.stack.schedule) or "nothing"
        host.log(one_line(f"stack {stack.name}: {stores}; {stack.stack.scheduler.by} starts {times}"), log_func=logger.info)

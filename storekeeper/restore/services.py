"""What is stopped while stores are switched: the stack's services, and the servers of stores that cannot be switched under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.runtimes.protocol import Runtime
from storekeeper.sets.context import Opened
from storekeeper.stores.protocol import Store


class Stoppable:
    """The services first, which use the stores, then the stores' own runtimes; started in the reverse order."""

    def __init__(self, services: Iterable[Runtime], servers: Iterable[Runtime]) -> None:
        self._services = {each.label: each for each in services}
        self._servers = {each.label: each for each in servers}

    @classmethod
    def of(cls, context: Opened, stores: Mapping[str, Store]) -> Stoppable:
        servers = [store.runtime for store in stores.values() if store.needs_stopped and store.runtime is not None]
        return cls(context.services, servers)

    def running(self) -> list[str]:
        """The labels of those that run now, in the order of stopping. Raises Unknown when a supervisor cannot be asked."""
        return [label for label, runtime in {**self._services, **self._servers}.items() if runtime.is_running()]

    def stop(self) -> None:
        """Stop all, also what a reboot has started again."""
        for runtime in {**self._services, **self._servers}.values():
            runtime.stop()

    def stop_services(self) -> None:
        """Stop those that use the stores; the stores' own servers go on."""
        for runtime in self._services.values():
            runtime.stop()

    def start_servers(self, labels: Iterable[str]) -> None:
        """Start those of the stores' runtimes that ran before."""
        _start(self._servers, labels)

    def start_services(self, labels: Iterable[str]) -> None:
        """Start those of the services that ran before, the last stopped first, and see that they go on running."""
        _start(self._services, labels)

    def unknown(self, labels: Iterable[str]) -> list[str]:
        """Labels that the stack file no longer declares."""
        return [label for label in labels if label not in self._services and label not in self._servers]


def _start(runtimes: Mapping[str, Runtime], labels: Iterable[str]) -> None:
    """Start every one, then raise the first error: one that does not start must not keep the others down."""
    wanted = [runtimes[label] for label in reversed(list(labels)) if label in runtimes]
    first: StorekeeperError | None = None
    for runtime in wanted:
        try:
            runtime.start()
        except StorekeeperError as error:
            first = first or error
    if first is not None:
        raise first
    for runtime in wanted:
        if not runtime.is_running():
            raise Failed(f"{runtime.label} was started and does not run")

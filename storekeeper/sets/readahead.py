"""Reading a set back by a thread, one store after the other, while its caller decodes those that were found as they were written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from storekeeper.host.aside import Aside
from storekeeper.host.progress import Progress
from storekeeper.host.waiting import result_of
from storekeeper.sets.artefacts import Fault, Findings, Subset, examine
from storekeeper.sets.manifest import Manifest


class ReadAhead:
    """A context manager. When its block fails, the thread gives up what it is at."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        progress: Progress,
        *,
        subset: Subset | None = None,
        on_fault: Callable[[Fault], None] | None = None,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._progress = progress
        self._subset = subset
        self._on_fault = on_fault
        self._aside = Aside()
        self._counts = {name: _Count() for name in self.order}
        self._futures: dict[str, Future[Findings]] = {}

    @property
    def order(self) -> list[str]:
        """The names of the stores, smallest first, so that there is soon something to decode."""
        return sorted(self._manifest.stores, key=lambda name: self._manifest.stores[name].bytes)

    def findings(self, name: str) -> Findings:
        """What was found of this store, waited for. Raises Unknown where the right to read is missing."""
        self._progress.step(name, "reading back", self._manifest.stores[name].bytes)
        count = self._counts[name]
        return result_of(self._futures[name], lambda: count.done, self._progress.advance)

    def __enter__(self) -> ReadAhead:
        for name in self.order:
            self._futures[name] = self._aside.begin(self._examine, name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._aside.__exit__(kind, error, trace)

    def _examine(self, name: str) -> Findings:
        count = self._counts[name]
        return examine(self._folder, self._manifest, count, only=(name,), subset=self._subset, on_fault=self._on_fault)


class _Count(Progress):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count

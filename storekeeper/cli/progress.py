"""How long work shows what it does: one redrawn line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from storekeeper.cli.render.layout import WIDTH, Paint, size, span
from storekeeper.host import clock
from storekeeper.host.progress import Progress

_REDRAW = 0.1  # seconds
_REMIND = 300.0


class _Step:
    def __init__(self, store: str | None, what: str, total: int | None) -> None:
        self.name = f"{store}: {what}" if store else what
        self.total = total
        self.done = 0
        self.since = clock.monotonic()

    def figures(self) -> str:
        """`1.2 GB of 2.9 GB, 88 MB/s, 19 s to go`, as far as it can be told."""
        elapsed = clock.monotonic() - self.since
        if not self.done:
            return f"{span(elapsed)}"
        rate = self.done / elapsed if elapsed > 0 else 0.0
        parts = [f"{size(self.done)} of {size(self.total)}" if self.total else size(self.done)]
        if elapsed >= 1:
            parts.append(f"{size(int(rate))}/s")
            if self.total and self.done < self.total and rate > 0:
                parts.append(f"{span((self.total - self.done) / rate)} to go")
        return ", ".join(parts)


class LineProgress(Progress):
    """One line, redrawn; a finished step stays in view above it."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._step: _Step | None = None
        self._drawn = 0.0

    def step(self, store: str | None, what: str, total: int | None = None) -> None:
        self._close()
        self._step = _Step(store, what, total)
        self._draw()

    def advance(self, count: int) -> None:
        if self._step is None:
            return
        self._step.done += count
        if clock.monotonic() - self._drawn >= _REDRAW:
            self._draw()

    def end(self) -> None:
        self._close()

    def _draw(self) -> None:
        if self._step is not None:
            self._drawn = clock.monotonic()
            line = f"  {self._step.name}  {self._step.figures()}"
            self._write(f"\r\x1b[K{line[: WIDTH - 1]}")

    def _close(self) -> None:
        if self._step is not None:
            self._draw()
            self._write("\n")
            self._step = None


class PlainProgress(Progress):
    """A line at each step and at the end, and one every five minutes of a step that takes long."""

    def __init__(self, write: Callable[[str], None], stack: str, verb: str, remind: float = _REMIND) -> None:
        self._write = write
        self._stack = stack
        self._subject = f"{stack}: {verb}"
        self._remind = remind
        self._step: _Step | None = None
        self._since = clock.monotonic()
        self._ended = threading.Event()
        self._reminder = threading.Thread(target=self._keep_reminding, daemon=True)
        self._reminder.start()

    def step(self, store: str | None, what: str, total: int | None = None) -> None:
        self._step = _Step(store, what, total)
        expected = f" ({size(total)})" if total else ""
        self._write(f"{self._subject}: {self._step.name}{expected}\n")

    def advance(self, count: int) -> None:
        if self._step is not None:
            self._step.done += count

    def foresee(self, plan: Mapping[str, Any]) -> None:
        from storekeeper.cli.document import host_name  # noqa: PLC0415
        from storekeeper.cli.render.restore import foreseen  # noqa: PLC0415

        self._write("\n".join([*foreseen(plan, f"{self._stack} on {host_name()}", Paint()), ""]))

    def end(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._reminder.join()
            self._write(f"{self._subject}: ended after {span(clock.monotonic() - self._since)}\n")

    def _keep_reminding(self) -> None:
        while not self._ended.wait(self._remind):
            if self._step is not None:
                self._write(f"{self._subject}: {self._step.name}, {self._step.figures()}\n")

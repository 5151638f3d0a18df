"""What long work tells of itself while it runs; who shows it, and how, is decided elsewhere."""

from __future__ import annotations


class Progress:
    """Silent progress. `step` begins a piece of work on a store (or on the whole stack), `advance` counts its bytes."""

    def step(self, store: str | None, what: str, total: int | None = None) -> None:
        """Begin `what`; `total` is the bytes expected, where they can be foreseen."""

    def advance(self, count: int) -> None:
        """`count` more bytes of the current step are done."""

    def end(self) -> None:
        """Nothing more will come."""

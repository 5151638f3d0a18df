"""What long work tells of itself while it runs; who shows it, and how, is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
    """Silent progress. `step` begins a piece of work on a store (or on the whole stack), `advance` counts its bytes."""

    def step(self, store: str | None, what: str, total: int | None = None) -> None:
        """Begin `what`; `total` is the bytes expected, where they can be foreseen."""

    def advance(self, count: int) -> None:
        """`count` more bytes of the current step are done."""

    def foresee(self, plan: Mapping[str, Any]) -> None:
        """Live data is about to be replaced as this plan says, in the words of the document."""

    def end(self) -> None:
        """Nothing more will come."""

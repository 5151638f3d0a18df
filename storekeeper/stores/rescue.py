"""What could be read of a table of a damaged database, and what could not, in rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableRescue:
    """`rows` are in the rebuilt table. `lost` could not be read; None where nobody can tell how many these are. `refused` were read, and
    are against the table's own keys and checks. `pages` are those that could not be read, or not all of them.
    """

    rows: int
    lost: int | None = 0
    refused: int = 0
    pages: int = 0

    @property
    def is_whole(self) -> bool:
        return self.lost == 0 and not self.refused

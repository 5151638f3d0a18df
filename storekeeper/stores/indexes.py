"""The indexes that a stack file wants: a table's columns that some index must begin with, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def wanted(declared: Mapping[str, Sequence[object]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each table with the columns of one index."""
    for table, entries in declared.items():
        for entry in entries:
            yield table, (entry,) if isinstance(entry, str) else tuple(str(column) for column in _columns(entry))


def spoken(columns: Sequence[str]) -> str:
    return ", ".join(columns)


def _columns(entry: object) -> tuple[object, ...]:
    if not isinstance(entry, tuple | list):
        raise TypeError(f"columns of an index are a list, and no {type(entry).__name__}")
    return tuple(entry)

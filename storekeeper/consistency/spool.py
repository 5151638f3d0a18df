"""Findings of any number, in order, in a file of lines that is read as often as one likes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from storekeeper.consistency.findings import Finding
from storekeeper.stores.lines import read_lines, to_line


class Spool:
    """`count` findings in a file of the scratch directory, which goes with it."""

    def __init__(self, path: Path, found: Iterable[Finding]) -> None:
        self._path = path
        self.count = 0
        with open(path, "wb") as file:
            for each in found:
                file.write(to_line(each.to_json()))
                self.count += 1

    def __iter__(self) -> Generator[Finding, None, None]:
        for line in read_lines(self._path):
            yield Finding.from_json(line)


def only_in_second(first: Iterable[Finding], second: Iterable[Finding]) -> Iterator[Finding]:
    """What only the second of two looks saw."""
    earlier = iter(first)
    old = next(earlier, None)
    for each in second:
        while old is not None and old.key < each.key:
            old = next(earlier, None)
        if old is None or old.key != each.key:
            yield each


def in_both(first: Iterable[Finding], second: Iterable[Finding]) -> Iterator[Finding]:
    """What two looks agree on, as the second saw it."""
    earlier = iter(first)
    old = next(earlier, None)
    for each in second:
        while old is not None and old.key < each.key:
            old = next(earlier, None)
        if old is not None and old.key == each.key:
            yield each

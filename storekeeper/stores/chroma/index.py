"""The files of one HNSW vector segment, read without Chroma: which id has which vector, and whether the files are whole.

The layout is hnswlib's (hnswalg.h, `persistDirty`); the map from ids to labels is a pickle, of which only strings, numbers
and dictionaries are accepted: nothing in it is ever executed. Files are read in chunks, never mapped or held whole.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from storekeeper.stores.chroma import layout, pickled

_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")  # version, level-0 offset, capacity, count, bytes an element, label offset, data offset, ...
_LABEL = struct.Struct("<Q")
_LINK_SIZE = struct.Struct("<I")
_FLOAT = 4
_CHUNK = 1 << 20
# Chroma numbers vectors one after the other, deleted ones too: a much higher number is damage, and no size to make a table of.
_SPREAD, _SPREAD_OF_FEW = 16, 1 << 20


class Damaged(Exception):
    """A segment's files do not fit together; the message is a clause such as `link_lists.bin ends early`."""


@dataclass(frozen=True)
class Header:
    count: int
    element_bytes: int
    label_offset: int
    data_offset: int

    @property
    def dimension(self) -> int:
        return (self.label_offset - self.data_offset) // _FLOAT


def read_header(segment: Path) -> Header:
    with _opened(segment / layout.HEADER) as file:
        data = file.read(_HEADER.size + 1)
    if len(data) != _HEADER.size:
        raise Damaged(f"{layout.HEADER} does not have {_HEADER.size} bytes")
    _, _, _, count, element_bytes, label_offset, data_offset, *_ = _HEADER.unpack(data)
    if not 0 < data_offset < label_offset <= element_bytes - _LABEL.size or element_bytes > 1 << 24:
        raise Damaged(f"{layout.HEADER} makes no sense")
    return Header(count, element_bytes, label_offset, data_offset)


def is_settled(segment: Path) -> bool:
    """Whether a copied segment is of one piece, as far as a glance can tell: its map and its vectors are equally many.

    Chroma writes the map last, so a copy from the middle of its writing usually has fewer in the map.
    """
    try:
        if not (segment / layout.PICKLE).exists():
            return True
        return _read_total(segment) == read_header(segment).count
    except Damaged:
        return False


def check_sizes(segment: Path) -> None:
    """Raises Damaged unless every file but the map is there with the size that the others say it must have."""
    header = read_header(segment)
    _expect_size(segment / layout.VECTORS, header.count * header.element_bytes)
    _expect_size(segment / layout.LENGTHS, header.count * _FLOAT)
    _check_links(segment / layout.LINKS, header.count)
    added = _read_total(segment)
    if added != header.count:
        raise Damaged(f"{layout.PICKLE} knows {added} vectors and {layout.HEADER} {header.count}")


def check_dimension(segment: Path, declared: int | None) -> None:
    """Raises Damaged when the vectors in the files are not as long as the collection's."""
    header = read_header(segment)
    if declared is not None and header.count and header.dimension != declared:
        raise Damaged(f"its vectors have {header.dimension} numbers, {declared} are declared")


def count_vectors(segment: Path, besides: Container[str]) -> int:
    """How many ids have a vector, those in `besides` not counted; all of the map is read. Raises Damaged unless it is whole."""
    if besides:
        return sum(name not in besides for name, _ in read_labels(segment))
    return sum(1 for _ in read_labels(segment))


def read_labels(segment: Path) -> Iterator[tuple[str, int]]:
    """The ids and labels of all vectors that are not deleted. Raises Damaged, at its end too, unless the map is whole."""
    with _map_of(segment) as file:
        yield from pickled.labels(file)


class Vectors:
    """The vectors of one segment by label; `close` it. Raises Damaged."""

    def __init__(self, segment: Path) -> None:
        self.header = read_header(segment)
        _expect_size(segment / layout.VECTORS, self.header.count * self.header.element_bytes)
        self._open = ExitStack()
        self._data = self._open.enter_context(_opened(segment / layout.VECTORS)).fileno()
        self._lengths = self._open.enter_context(_opened(segment / layout.LENGTHS)).fileno()
        self._positions = self._find_positions()

    def close(self) -> None:
        self._open.close()

    def position_of(self, label: int) -> int:
        position = self._positions[label] if 0 <= label < len(self._positions) else -1
        if position < 0:
            raise Damaged(f"{layout.VECTORS} has no vector number {label}")
        return position

    def at(self, position: int) -> bytes:
        """As it is stored: little-endian float32, of length one where the collection's space is cosine."""
        start = position * self.header.element_bytes + self.header.data_offset
        return _read_at(self._data, layout.VECTORS, start, self.header.dimension * _FLOAT)

    def scaled(self, position: int) -> bytes:
        """The stored vector times its stored length: what Chroma answers where the space is cosine."""
        (length,) = struct.unpack("<f", _read_at(self._lengths, layout.LENGTHS, position * _FLOAT, _FLOAT))
        return array("f", (value * length for value in array("f", self.at(position)))).tobytes()

    def _find_positions(self) -> array[int]:
        positions = array("q", [-1]) * (self.header.count + 1)
        highest = _SPREAD * self.header.count + _SPREAD_OF_FEW
        for position, label in enumerate(self._labels()):
            if label > highest:
                raise Damaged(f"{layout.VECTORS} makes no sense at vector {position}")
            if label >= len(positions):
                positions.extend(array("q", [-1]) * (label + 1 - len(positions)))
            positions[label] = position
        return positions

    def _labels(self) -> Iterator[int]:
        size, offset = self.header.element_bytes, self.header.label_offset
        step = max(1, _CHUNK // size)
        for first in range(0, self.header.count, step):
            count = min(step, self.header.count - first)
            data = _read_at(self._data, layout.VECTORS, first * size, count * size)
            for number in range(count):
                yield _LABEL.unpack_from(data, number * size + offset)[0]


@contextmanager
def _map_of(segment: Path) -> Iterator[IO[bytes]]:
    with _opened(segment / layout.PICKLE) as file:
        try:
            yield file
        except pickled.BadPickle as error:
            raise Damaged(f"{layout.PICKLE} cannot be read: {error}") from error


def _read_total(segment: Path) -> int:
    """How many vectors the map says were ever added."""
    with _map_of(segment) as file:
        return pickled.total_added(file)


def _check_links(path: Path, count: int) -> None:
    with _opened(path, _CHUNK) as file:
        for _ in range(count):
            data = file.read(_LINK_SIZE.size)
            if len(data) < _LINK_SIZE.size:
                raise Damaged(f"{path.name} ends early")
            (size,) = _LINK_SIZE.unpack(data)
            if size:
                file.seek(size, os.SEEK_CUR)
        expected = file.tell()
    _expect_size(path, expected)


def _expect_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    if found != size:
        raise Damaged(f"{path.name} has {found} bytes instead of {size}")


@contextmanager
def _opened(path: Path, buffered: int = 0) -> Iterator[IO[bytes]]:
    try:
        file = open(path, "rb", buffering=buffered)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    with file:
        yield file


def _read_at(descriptor: int, name: str, start: int, count: int) -> bytes:
    data = os.pread(descriptor, count, start)
    if len(data) != count:
        raise Damaged(f"{name} ends early")
    return data

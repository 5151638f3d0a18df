"""The files of one HNSW vector segment, read without Chroma: which id has which vector, and whether the files are whole.

The layout is hnswlib's (hnswalg.h, `persistDirty`); the map from ids to labels is a pickle, of which only strings, numbers
and dictionaries are accepted: nothing in it is ever executed.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storekeeper.stores.chroma import layout, pickled

_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")  # version, level-0 offset, capacity, count, bytes an element, label offset, data offset, ...
_LABEL = struct.Struct("<Q")
_LINK_SIZE = struct.Struct("<I")
_FLOAT = 4


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
    data = _read(segment / layout.HEADER)
    if len(data) != _HEADER.size:
        raise Damaged(f"{layout.HEADER} has {len(data)} bytes instead of {_HEADER.size}")
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
        return pickled.total_added(_map(segment / layout.PICKLE)) == read_header(segment).count
    except (Damaged, pickled.BadPickle):
        return False


def check_sizes(segment: Path) -> None:
    """Raises Damaged unless every file is there with the size that the others say it must have."""
    header = read_header(segment)
    _expect_size(segment / layout.VECTORS, header.count * header.element_bytes)
    _expect_size(segment / layout.LENGTHS, header.count * _FLOAT)
    _check_links(segment / layout.LINKS, header.count)
    added = _read_pickle(segment)
    if added != header.count:
        raise Damaged(f"{layout.PICKLE} knows {added} vectors and {layout.HEADER} {header.count}")


def read_labels(segment: Path) -> Iterator[tuple[str, int]]:
    """The ids and labels of all vectors that are not deleted. Raises Damaged."""
    try:
        yield from pickled.labels(_map(segment / layout.PICKLE))
    except pickled.BadPickle as error:
        raise Damaged(f"{layout.PICKLE} cannot be read: {error}") from error


class Vectors:
    """The vectors of one segment by label, read from the mapped file. Raises Damaged."""

    def __init__(self, segment: Path) -> None:
        self.header = read_header(segment)
        _expect_size(segment / layout.VECTORS, self.header.count * self.header.element_bytes)
        self._data = _map(segment / layout.VECTORS)
        self._lengths = _map(segment / layout.LENGTHS)
        self._positions = self._find_positions()

    def position_of(self, label: int) -> int:
        position = self._positions[label] if 0 <= label < len(self._positions) else -1
        if position < 0:
            raise Damaged(f"{layout.VECTORS} has no vector number {label}")
        return position

    def at(self, position: int) -> bytes:
        """As it is stored: little-endian float32, of length one where the collection's space is cosine."""
        start = position * self.header.element_bytes + self.header.data_offset
        return self._data[start : start + self.header.dimension * _FLOAT]

    def scaled(self, position: int) -> bytes:
        """The stored vector times its stored length: what Chroma answers where the space is cosine."""
        (length,) = struct.unpack_from("<f", self._lengths, position * _FLOAT)
        return array("f", (value * length for value in array("f", self.at(position)))).tobytes()

    def _find_positions(self) -> array[int]:
        header = self.header
        positions = array("q", [-1]) * (header.count + 1)
        for position in range(header.count):
            (label,) = _LABEL.unpack_from(self._data, position * header.element_bytes + header.label_offset)
            if label >= 1 << 32:
                raise Damaged(f"{layout.VECTORS} makes no sense at vector {position}")
            if label >= len(positions):
                positions.extend(array("q", [-1]) * (label + 1 - len(positions)))
            positions[label] = position
        return positions


def _read_pickle(segment: Path) -> int:
    """How many vectors the map says were ever added, after all of it was read."""
    try:
        data = _map(segment / layout.PICKLE)
        pickled.check(data)
        return pickled.total_added(data)
    except pickled.BadPickle as error:
        raise Damaged(f"{layout.PICKLE} cannot be read: {error}") from error


def _check_links(path: Path, count: int) -> None:
    data, position = _map(path), 0
    for _ in range(count):
        if position + _LINK_SIZE.size > len(data):
            raise Damaged(f"{path.name} ends early")
        (size,) = _LINK_SIZE.unpack_from(data, position)
        position += _LINK_SIZE.size + size
    if position != len(data):
        raise Damaged(f"{path.name} has {len(data)} bytes instead of {position}")


def _expect_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    if found != size:
        raise Damaged(f"{path.name} has {found} bytes instead of {size}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None

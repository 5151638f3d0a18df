"""The pages of a SQLite file as bytes, after its published format (sqlite.org/fileformat2.html), for a file that SQLite cannot walk.

Nothing that a page says is believed: a number that leads out of the file, back, or to a page that somebody else has, and a cell that
is not exactly as long as it says, is damage. Whatever the bytes are, what is read is bounded by the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

HEADER = 100  # bytes, at the beginning of page 1
MAGIC = b"SQLite format 3\0"
TABLE_INNER, TABLE_LEAF, INDEX_INNER, INDEX_LEAF = 0x05, 0x0D, 0x02, 0x0A
_ENCODINGS = {1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_LOCK_BYTE = 0x40000000
_LONGEST = 1 << 31  # bytes of a payload


class Damaged(Exception):
    """A page or a cell is not what the format says."""


@dataclass(frozen=True)
class Header:
    """What the first hundred bytes of a file say."""

    page_size: int
    reserved: int
    pages: int  # as the file says; it may be cut
    is_wal: bool
    free_trunk: int
    free: int
    encoding: str

    @classmethod
    def read(cls, path: Path) -> Header:
        """Raises Damaged for a file that does not begin as a database does."""
        with open(path, "rb") as file:
            head = file.read(HEADER)
        size = 65536 if head[16:18] == b"\x00\x01" else _number(head, 16, 2)
        if len(head) < HEADER or not head.startswith(MAGIC) or size not in {512 << power for power in range(8)}:
            raise Damaged("its header is no header of a database")
        encoding = _ENCODINGS.get(_number(head, 56, 4) or 1)
        if encoding is None or head[20] > size - 480:
            raise Damaged("its header names no known encoding")
        said = _number(head, 28, 4) if head[24:28] == head[92:96] else 0  # else an old program wrote it, and the size tells
        return cls(size, head[20], said, head[18] == 2, _number(head, 32, 4), _number(head, 36, 4), encoding)


@dataclass(frozen=True)
class Cell:
    """One row as it is stored. A leaf of a table has `rowid`, other cells of an inner page lead to `child`."""

    rowid: int | None
    child: int | None
    payload: bytes


class PageFile:
    """The pages of a file that nobody changes. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.header = Header.read(path)
        self.usable = self.header.page_size - self.header.reserved
        self._file: IO[bytes] = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `__exit__`
        self.count = self._file.seek(0, 2) // self.header.page_size

    def __enter__(self) -> PageFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def page(self, number: int) -> bytes:
        """Raises Damaged for a number that no page has."""
        if not 1 <= number <= self.count:
            raise Damaged(f"page {number} is not there")
        self._file.seek((number - 1) * self.header.page_size)
        return self._file.read(self.header.page_size)

    def kind(self, number: int) -> int | None:
        """The first byte of a page, which says what it is; None where there is no such page."""
        if not 1 < number <= self.count:
            return None
        self._file.seek((number - 1) * self.header.page_size)
        return self._file.read(1)[0]

    def node(self, number: int) -> Node:
        """A page of a b-tree. Raises Damaged where it is none."""
        return Node(number, self.page(number), self.usable)

    def whole(self, node: Node, start: int) -> Cell:
        """The cell that begins there, with what of its payload stands on other pages."""
        data, position, child, rowid = node.data, start, None, None
        if node.kind == INDEX_INNER:
            child, position = _number(data, position, 4), position + 4
        size, position = varint(data, position)
        if node.kind == TABLE_LEAF:
            rowid, position = varint(data, position)
            rowid = signed(rowid)
        local = self._local(size, is_table=node.kind == TABLE_LEAF)
        if size > _LONGEST or position + local + (4 if local < size else 0) > self.usable:
            raise Damaged("a cell ends behind its page")
        payload = data[position : position + local]
        if local < size:
            payload += self._overflow(_number(data, position + local, 4), size - local)
        return Cell(rowid, child, payload)

    def peek(self, node: Node, start: int) -> tuple[int, int]:
        """The rowid of a row on a leaf, and how many columns it has, as far as the page itself says."""
        _, position = varint(node.data, start)
        rowid, begin = varint(node.data, position)
        size, position = varint(node.data, begin)
        columns = 0
        while position < min(begin + size, self.usable):
            _, position = varint(node.data, position)
            columns += 1
        return signed(rowid), columns

    def free_pages(self) -> set[int] | None:
        """The pages that hold nothing any more; None where their list is damaged: what was deleted cannot be told from what was not."""
        found: set[int] = set()
        number = self.header.free_trunk
        try:
            while number:
                if number in found:
                    return None
                found.add(number)
                page = self.page(number)
                following, leaves = _number(page, 0, 4), _number(page, 4, 4)
                if leaves > self.usable // 4 - 2:
                    return None
                found |= {_number(page, 8 + 4 * each, 4) for each in range(leaves)}
                number = following
        except Damaged:
            return None
        return found if len(found) == self.header.free else None

    def numbers(self) -> Iterator[int]:
        """All pages but the first and the one that only locks live on."""
        lock = _LOCK_BYTE // self.header.page_size + 1
        return (number for number in range(2, self.count + 1) if number != lock)

    def _local(self, size: int, *, is_table: bool) -> int:
        longest = self.usable - 35 if is_table else (self.usable - 12) * 64 // 255 - 23
        if size <= longest:
            return size
        shortest = (self.usable - 12) * 32 // 255 - 23
        rest = shortest + (size - shortest) % (self.usable - 4)
        return rest if rest <= longest else shortest

    def _overflow(self, number: int, size: int) -> bytes:
        if size > self.count * self.usable:
            raise Damaged("a payload is longer than the file")
        parts: list[bytes] = []
        while size > 0:
            page = self.page(number)
            part = page[4 : min(self.usable, 4 + size)]
            parts.append(part)
            size -= len(part)
            number = _number(page, 0, 4)
        if number:
            raise Damaged("a payload goes on behind its end")
        return b"".join(parts)


class Node:
    """A page of a b-tree whose list of cells makes sense."""

    def __init__(self, number: int, data: bytes, usable: int) -> None:
        self.number = number
        self.data = data
        start = HEADER if number == 1 else 0
        self.kind = data[start]
        if self.kind not in (TABLE_INNER, TABLE_LEAF, INDEX_INNER, INDEX_LEAF):
            raise Damaged(f"page {number} is no page of a table")
        self.is_leaf = self.kind in (TABLE_LEAF, INDEX_LEAF)
        cells, first = _number(data, start + 3, 2), start + (8 if self.is_leaf else 12)
        begins = first + 2 * cells
        if begins > usable or (cells == 0 and not self.is_leaf):
            raise Damaged(f"page {number} has more cells than fit, or none")
        self.starts = [_number(data, first + 2 * each, 2) for each in range(cells)]
        if any(not begins <= each <= usable - 4 for each in self.starts) or len(set(self.starts)) < cells:
            raise Damaged(f"page {number} has cells where none can be")
        self.right = None if self.is_leaf else _number(data, start + 8, 4)

    def children(self) -> list[tuple[int, int | None]]:
        """Of an inner page of a table: each child with the largest rowid in it; none is known of the last. Raises Damaged."""
        found: list[tuple[int, int | None]] = []
        for start in self.starts:
            key, _ = varint(self.data, start + 4)
            found.append((_number(self.data, start, 4), signed(key)))
        keys = [key for _, key in found if key is not None]
        if any(later <= earlier for earlier, later in pairwise(keys)):
            raise Damaged("the keys of a page are in no order")
        return [*found, (int(self.right or 0), None)]


def varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends. Raises Damaged at the end of the data."""
    value = 0
    try:
        for index in range(8):
            byte = data[position + index]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, position + index + 1
        return value << 8 | data[position + 8], position + 9
    except IndexError as error:
        raise Damaged("a number ends behind its page") from error


def signed(number: int) -> int:
    """A rowid, of which a varint holds the 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _number(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(data[position : position + size], "big")

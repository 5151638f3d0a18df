"""The one pickle that Chroma writes, read as a stream of values. Nothing in it is ever executed: names of classes are skipped.

Chroma 1.x writes a dictionary, earlier ones wrote an object whose state is that dictionary; both hold `id_to_label`. A map of a
million ids has some 50 MB: it is read through a window, and runs of texts of one length with their numbers, which is nearly all
of it, by regular expressions and `struct`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import IO, Any

_Pairs = tuple[re.Pattern[bytes], struct.Struct]  # as many pairs as come, and one of them

_WINDOW = 1 << 20
_LONGEST = 10  # bytes of a code with what says how long its value is, and of the shortest plain pair
_TOO_LONG = 1 << 26  # for one value: a length that says more is damage, and not to be read into memory

# Codes of pickletools, protocols 2 to 5.
_TEXT = 0x58  # BINUNICODE: four bytes of length, then UTF-8
_NUMBER = 0x4A  # BININT: four bytes
_TEXTS = {_TEXT: 4, 0x8C: 1}  # and SHORT_BINUNICODE
_NUMBERS = {_NUMBER: 4, 0x4B: 1, 0x4D: 2}  # and BININT1, BININT2
_LONG = 0x8A
_STRUCTURE = {0x7D: "dict", 0x28: "mark", 0x75: "items", 0x73: "item"}
_CONSTANTS = {0x4E, 0x88, 0x89}  # None, True, False
_IGNORED = {0x94: 0, 0x95: 8, 0x68: 1, 0x6A: 4, 0x71: 1, 0x72: 4, 0x29: 0, 0x81: 0, 0x93: 0, 0x62: 0}  # code: bytes that follow
_STOP = 0x2E


class BadPickle(Exception):
    """It ends early, or holds what Chroma never writes."""


class _Structure(str):
    """What builds dictionaries, told apart from texts."""


def total_added(file: IO[bytes]) -> int:
    """How many vectors were ever added: near the beginning, so that this is quick at any size."""
    for name, number in pairwise(_Scanner(file).tokens()):
        if name == "total_elements_added" and isinstance(number, int):
            return number
    raise BadPickle("it does not say how many vectors there are")


def labels(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """The pairs of `id_to_label`, and then the rest, which is read for nothing but its being there."""
    scanner = _Scanner(file)
    tokens = scanner.tokens()
    for name, after in pairwise(tokens):
        if name == "id_to_label" and isinstance(after, _Structure) and after == "dict":
            yield from _pairs(scanner, tokens)
            break
    else:
        raise BadPickle("it has no id_to_label")
    for _ in tokens:
        scanner.skip_plain()


def _pairs(scanner: _Scanner, tokens: Iterator[object]) -> Iterator[tuple[str, int]]:
    """The items of one dictionary of texts to numbers; takes one value too many, which tells that the dictionary has ended."""
    yield from scanner.plain_pairs()
    for token in tokens:
        if isinstance(token, _Structure):
            if token not in ("mark", "items", "item"):
                return
        else:
            label = next(tokens, None)
            if isinstance(label, _Structure) or not isinstance(token, str):
                return  # the name of the next field, and its dictionary
            if not isinstance(label, int):
                raise BadPickle(f"it has no label for {token[:40]!r}")
            yield token, label
        yield from scanner.plain_pairs()


class _Scanner:
    """A window on the pickle, and the place in it. Whoever takes tokens may let it skip ahead in between."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._data = b""
        self._at = 0
        self._before = 0  # bytes of the file before the window

    def tokens(self) -> Iterator[object]:
        """Texts, numbers, None for other constants, and what builds dictionaries. Raises BadPickle unless the end is reached."""
        if self._take(2)[:1] != b"\x80":
            raise BadPickle("it is no pickle")
        while True:
            self._reach(_LONGEST)
            code = self._take(1)[0]
            if code in _TEXTS:
                yield _decoded(self._take(int.from_bytes(self._take(_TEXTS[code]), "little")))
            elif code in _NUMBERS:
                yield int.from_bytes(self._take(_NUMBERS[code]), "little", signed=code == _NUMBER)
            elif code in _STRUCTURE:
                yield _Structure(_STRUCTURE[code])
            elif code in _CONSTANTS:
                yield None
            elif code in _IGNORED:
                self._take(_IGNORED[code])
            elif code == _LONG:
                yield int.from_bytes(self._take(self._take(1)[0]), "little", signed=True)
            elif code == _STOP and not self._reach(1):
                return
            else:
                raise BadPickle(f"it holds the code {code:#x} at byte {self._before + self._at - 1}, which Chroma never writes")

    def plain_pairs(self) -> Iterator[tuple[str, int]]:
        """The pairs of a long text code and a number of four bytes that come next, as Chroma 1.x writes them all."""
        while self._reach(_LONGEST) and self._data[self._at] == _TEXT:
            length = int.from_bytes(self._data[self._at + 1 : self._at + 5], "little")
            run = self._run(length, _text_and_number)
            if run is None:
                return
            for text, number in run:
                yield _decoded(text), number

    def skip_plain(self) -> None:
        """Pass over such pairs with the number first: the other dictionary."""
        while self._reach(_LONGEST) and self._data[self._at] == _NUMBER and self._data[self._at + 5] == _TEXT:
            length = int.from_bytes(self._data[self._at + 6 : self._at + 10], "little")
            run = self._run(length, _number_and_text)
            if run is None:
                return
            _decoded(b"\n".join(text for _, text in run))

    def _run(self, length: int, pairs_of: Callable[[int], _Pairs]) -> Iterator[tuple[Any, ...]] | None:
        """The pairs with a text of this length that stand whole in the window, after it was made to hold at least one."""
        if not self._reach(_LONGEST + length):
            return None
        run, pair = pairs_of(length)
        found = run.match(self._data, self._at)
        if found is None:
            return None
        self._at = found.end()
        return pair.iter_unpack(found.group())

    def _take(self, count: int) -> bytes:
        if not self._reach(count):
            raise BadPickle("it ends early")
        start, self._at = self._at, self._at + count
        return self._data[start : self._at]

    def _reach(self, count: int) -> bool:
        """Whether the window has so many bytes from here on, after it was moved where it had not."""
        if self._at + count <= len(self._data):
            return True
        if count > _TOO_LONG:
            raise BadPickle(f"it says that one value has {count} bytes")
        rest = self._data[self._at :]
        self._before, self._at = self._before + self._at, 0
        self._data = rest + self._file.read(max(_WINDOW, count))
        return count <= len(self._data)


@lru_cache
def _text_and_number(length: int) -> _Pairs:
    text = re.escape(_TEXT.to_bytes() + length.to_bytes(4, "little")) + b".{%d}" % length
    return re.compile(b"(?s:%sJ.{4})++" % text), struct.Struct(f"<5x{length}sxi")


@lru_cache
def _number_and_text(length: int) -> _Pairs:
    text = re.escape(_TEXT.to_bytes() + length.to_bytes(4, "little")) + b".{%d}" % length
    return re.compile(b"(?s:J.{4}%s)++" % text), struct.Struct(f"<xi5x{length}s")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadPickle("it holds a text that is not UTF-8") from error

"""The one pickle that Chroma writes, read as a stream of values. Nothing in it is ever executed: names of classes are skipped.

Chroma 1.x writes a dictionary, earlier ones wrote an object whose state is that dictionary; both hold `id_to_label`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import pairwise

_Data = mmap.mmap | bytes

# Codes of pickletools, protocols 2 to 5.
_TEXTS = {0x58: 4, 0x8C: 1}  # BINUNICODE, SHORT_BINUNICODE: bytes of the length
_NUMBERS = {0x4A: 4, 0x4B: 1, 0x4D: 2}  # BININT, BININT1, BININT2
_LONG = 0x8A
_STRUCTURE = {0x7D: "dict", 0x28: "mark", 0x75: "items", 0x73: "item"}
_CONSTANTS = {0x4E, 0x88, 0x89}  # None, True, False
_IGNORED = {0x94: 0, 0x95: 8, 0x68: 1, 0x6A: 4, 0x71: 1, 0x72: 4, 0x29: 0, 0x81: 0, 0x93: 0, 0x62: 0}  # code: bytes that follow
_STOP = 0x2E


class BadPickle(Exception):
    """It ends early, or holds what Chroma never writes."""


class _Structure(str):
    """What builds dictionaries, told apart from texts."""


def total_added(data: _Data) -> int:
    """How many vectors were ever added: near the beginning, so that this is quick at any size."""
    for name, number in pairwise(_tokens(data)):
        if name == "total_elements_added" and isinstance(number, int):
            return number
    raise BadPickle("it does not say how many vectors there are")


def labels(data: _Data) -> Iterator[tuple[str, int]]:
    """The pairs of `id_to_label`; what follows them is not looked at."""
    tokens = _tokens(data)
    for name, after in pairwise(tokens):
        if name == "id_to_label" and isinstance(after, _Structure) and after == "dict":
            yield from _pairs(tokens)
            return
    raise BadPickle("it has no id_to_label")


def check(data: _Data) -> None:
    """Read all of it. Raises BadPickle unless it is whole."""
    for _ in labels(data):
        pass
    for _ in _tokens(data):
        pass


def _pairs(tokens: Iterator[object]) -> Iterator[tuple[str, int]]:
    """The items of one dictionary of texts to numbers; takes one value too many, which tells that the dictionary has ended."""
    for token in tokens:
        if isinstance(token, _Structure):
            if token not in ("mark", "items", "item"):
                return
            continue
        label = next(tokens, None)
        if isinstance(label, _Structure) or not isinstance(token, str):
            return  # the name of the next field, and its dictionary
        if not isinstance(label, int):
            raise BadPickle(f"it has no label for {token[:40]!r}")
        yield token, label


def _tokens(data: _Data) -> Iterator[object]:
    """Texts, numbers, None for other constants, and what builds dictionaries. Raises BadPickle unless the end is reached."""
    if len(data) < 2 or data[0] != 0x80:
        raise BadPickle("it is no pickle")
    position, size = 2, len(data)
    while position < size:
        code = data[position]
        position += 1
        if code in _TEXTS:
            start = position + _TEXTS[code]
            position = start + int.from_bytes(data[position:start], "little")
            if position > size:
                break
            yield _decoded(data[start:position])
        elif code in _NUMBERS:
            start, position = position, position + _NUMBERS[code]
            yield int.from_bytes(data[start:position], "little", signed=code == 0x4A)
        elif code in _STRUCTURE:
            yield _Structure(_STRUCTURE[code])
        elif code in _CONSTANTS:
            yield None
        elif code in _IGNORED:
            position += _IGNORED[code]
        elif code == _LONG:
            start = position + 1
            position = start + int.from_bytes(data[position:start], "little")
            yield int.from_bytes(data[start:position], "little", signed=True)
        elif code == _STOP and position == size:
            return
        else:
            raise BadPickle(f"it holds the code {code:#x} at byte {position - 1}, which Chroma never writes")
    raise BadPickle("it ends early")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadPickle("it holds a text that is not UTF-8") from error

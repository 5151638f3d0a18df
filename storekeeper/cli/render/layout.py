"""How figures, ages and tables look: 80 columns, aligned, colour never the only signal."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

WIDTH = 80
_OURS = "storekeeper "
_CODES = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "soft": "2"}
COLOURS = {
    "ok": "green",
    "proven": "green",
    "done": "green",
    "warning": "yellow",
    "attention": "yellow",
    "unknown": "yellow",
    "busy": "yellow",
    "verified": "",
    "incomplete": "yellow",
    "unprovable": "yellow",
    "failed": "red",
    "refused": "red",
    "damaged": "red",
}


@dataclass(frozen=True)
class Paint:
    """Colours words, or leaves them as they are; `config` is the configuration that commands to paste must name."""

    on: bool = False
    config: Path | None = None

    def __call__(self, text: str, colour: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.on and colour else text

    def command(self, text: str) -> str:
        """A command of ours, as it can be pasted."""
        return pasteable(text, self.config)

    def state(self, text: str, word: str | None = None) -> str:
        """A word of state in its colour; `word` says which where the text is padded or longer."""
        return self(text, COLOURS.get((word or text).strip().lower(), ""))


@dataclass(frozen=True)
class Cell:
    """One field of a table: its text, the word that gives its colour, and on which side it stands."""

    text: str
    state: str | None = None
    right: bool = False


def pasteable(command: str, config: Path | None) -> str:
    """A command of ours with the configuration it is for; anything else as it is."""
    if config is None or not command.startswith(_OURS):
        return command
    return f"{_OURS}--config {shlex.quote(str(config))} {command.removeprefix(_OURS)}"


def table(rows: Sequence[Sequence[Cell | str]], paint: Paint, indent: str = "") -> list[str]:
    """Rows of aligned columns, two spaces apart; the first row is the heading."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column].text) for row in cells) for column in range(len(cells[0]))]
    return [indent + "  ".join(_fields(row, widths, cells[-1], paint, is_heading=number == 0)) for number, row in enumerate(cells)]


def _fields(row: Sequence[Cell], widths: Sequence[int], below: Sequence[Cell], paint: Paint, *, is_heading: bool) -> Iterator[str]:
    """A row's padded and coloured texts, without the empty end of it; a heading stands over its column."""
    last = max((number for number, cell in enumerate(row) if cell.text), default=-1)
    for number, cell in enumerate(row[: last + 1]):
        if cell.right or (is_heading and below[number].right):
            padded = cell.text.rjust(widths[number])
        else:
            padded = cell.text if number == last else cell.text.ljust(widths[number])
        yield paint.state(padded, cell.state) if cell.state else padded


def size(count: int | None) -> str:
    """Bytes in powers of ten, three digits: `412 MB`, `2.9 GB`."""
    if count is None:
        return "?"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    raise ValueError(f"no unit for {count}")


def span(seconds: float) -> str:
    """A length of time in its two largest units: `0.4 s`, `41 s`, `3 h 58 m`, `12 d`."""
    whole = max(0, int(seconds))
    if isinstance(seconds, float) and seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} m"
    if hours < 48:
        return f"{hours} h {minutes % 60} m" if minutes % 60 else f"{hours} h"
    return f"{days} d"


def short_time(text: str | None) -> str:
    """`2025-01-09 03:00` in UTC, from a document's time; `never` for none."""
    if text is None:
        return "never"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def wrapped(text: str, indent: str, width: int = WIDTH) -> list[str]:
    """A sentence in lines of at most `width`, each with the indent; what was broken by the writer stays broken."""
    lines: list[str] = []
    for part in text.splitlines() or [""]:
        lines += textwrap.wrap(
            part, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return lines


def counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def joined(words: Iterable[str]) -> str:
    return ", ".join(words)


def printable(text: str) -> str:
    """What came from outside, without signs that a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)

"""Which documents a place holds: sorted streams of identities, as every kind of store answers them.

Ids are compared as text, byte by byte in UTF-8: `1` in a column of integers is the `1` in a file's name, and nothing else is equal to
anything else. Sorted is by these bytes, so that streams of several stores can be merged with flat memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from storekeeper.outcomes import Failed, Refused, Unknown

LONGEST_ID = 64_000  # bytes
_CACHE_KB = 8_192
_GIVEN = b"="  # before an owner, so that none and an empty one differ in a key, which knows no null
_IN_ORDER = "select key, owner, state, at, chunks from found order by key, owner, number"
_AMONG = (
    "select found.key, owner, state, at, chunks from some.{} some cross join found on found.key = some.key order by some.key, owner, number"
)
_MOST_STATES = 50
_MOST_CHUNKS = 1 << 40
_LATEST_SECOND = 100_000_000_000  # a number beyond counts milliseconds (the year 5138 in seconds)


class Identity(NamedTuple):
    """One document in one place. `chunks` is how many chunks or entries are there, or, of an authority, how many there should be."""

    id: str
    owner: str | None = None
    state: str | None = None
    at: datetime | None = None
    chunks: int | None = None


@dataclass(frozen=True)
class SqlSource:
    """The rows of one select. `columns` are those of an Identity in their order; fewer may come unless they are `exact`."""

    query: str
    columns: tuple[str, ...]
    exact: bool = False

    @property
    def label(self) -> str:
        return "query"

    def refuse_other_columns(self, found: Sequence[str]) -> None:
        """Raises Refused where the query has more columns than declared, or fewer than those that were named."""
        if len(found) > len(self.columns) or (self.exact and len(found) < len(self.columns)):
            raise Refused(
                f"the query has the columns {', '.join(found)}, `columns` says {', '.join(self.columns)}",
                next="name the columns of the query in `columns`, in their order",
            )


@dataclass(frozen=True)
class RowsSource:
    """The different values of a table's column, with how many rows hold each."""

    table: str
    column: str

    @property
    def label(self) -> str:
        return self.table


@dataclass(frozen=True)
class CollectionSource:
    """The values of a metadata key in a collection, with how many chunks hold each."""

    collection: str
    key: str
    owner: str | None = None

    @property
    def label(self) -> str:
        return self.collection


@dataclass(frozen=True)
class PatternSource:
    """The entries below a root that a pattern matches."""

    pattern: str

    @property
    def label(self) -> str:
        return self.pattern


Source = SqlSource | RowsSource | CollectionSource | PatternSource


@dataclass
class Remarks:
    """What a stream has to say of itself: how many rows or chunks have no id, and which texts no id can hold there (`PatternSource`)."""

    nameless: int = 0
    ends: tuple[str, ...] = ()


def identities(columns: Sequence[str], rows: Iterable[Sequence[object]], remarks: Remarks) -> Iterator[Identity]:
    """The rows of a source, whose columns are these, the id first. One whose id is null is nameless, and told in the remarks.

    Raises Unknown for an id that is no text or number.
    """
    there = {column: number for number, column in enumerate(columns)}
    owner, state, at, chunks = (there.get(column) for column in ("owner", "state", "at", "chunks"))
    for row in rows:
        if row[0] is None:
            remarks.nameless += 1
            continue
        yield Identity(
            text_of(row[0]),
            None if owner is None else owner_of(row[owner]),
            None if state is None else owner_of(row[state]),
            None if at is None else moment_of(row[at]),
            None if chunks is None else count_of(row[chunks]),
        )


def text_of(value: object) -> str:
    """An id or owner as text. Raises Unknown for bytes, fractions, truth values, lists and objects, whose text nobody agrees on."""
    if type(value) is str and len(value) <= LONGEST_ID:
        return value
    if isinstance(value, bool | float | bytes | bytearray | memoryview | list | dict):
        raise Unknown(f"an id is stored as {type(value).__name__}, which has no one text: let the query make one of it")
    text = str(value)
    if len(text) > LONGEST_ID:
        raise Unknown(f"an id has {len(text)} signs: what is read as an id is none")
    return text


def owner_of(value: object) -> str | None:
    """The same of an owner or a state, which may be null, and is mostly one of a few."""
    if type(value) is int:
        return _digits(value)
    return None if value is None else text_of(value)


@lru_cache(maxsize=10_000)
def _digits(number: int) -> str:
    return text_of(number)


def moment_of(value: object) -> datetime | None:
    """A time as applications keep it: ISO 8601 text, in UTC where it names no zone; seconds or milliseconds since 1970. None for null
    and for what is no time.
    """
    if type(value) is str and value[4:5] == "-":  # as in 2026-01-01: no number
        try:
            return _in_utc(datetime.fromisoformat(value.strip()))
        except (ValueError, OverflowError):
            return None
    if isinstance(value, datetime):
        return _in_utc(value)
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return moment_of(float(value))
            return _in_utc(datetime.fromisoformat(value.strip()))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) > _LATEST_SECOND else value, UTC)
    return None


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def count_of(value: object) -> int | None:
    """Raises Unknown for what is no number."""
    if value is None:
        return None
    try:
        found = int(value) if isinstance(value, int | str) else int(str(value))
    except ValueError:
        found = -1
    if not 0 <= found < _MOST_CHUNKS:
        raise Unknown(f"a number of chunks was expected, found {str(value)[:40]!r}")
    return found


def key_of(text: str) -> bytes:
    """Identities are sorted by this; what is no UTF-8 in a file's name or a SQLite text stands for its own bytes."""
    return text.encode("utf-8", "surrogateescape")


def merged(found: Iterable[Identity]) -> Iterator[Identity]:
    """A sorted stream in which what several rows or entries hold of one document and owner is added up."""
    current: Identity | None = None
    for each in found:
        if current is None or current.id != each.id or current.owner != each.owner:
            if current is not None:
                yield current
            current = each
        elif each.chunks is not None:
            current = current._replace(chunks=(current.chunks or 0) + each.chunks)
    if current is not None:
        yield current


class Sorted:
    """Identities of any number, read at once and kept on disk: what they were read from is let go of before the first is used.

    A context manager over a scratch database in `work`, which is gone afterwards. Iterating gives them in order, as often as one likes.
    Raises Failed where there is no room for it, and whatever the stream itself raises.
    """

    def __init__(self, found: Iterable[Identity], work: Path, name: str) -> None:
        self._found = found
        self._path = work / f"{name}.db"
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Sorted:
        self._path.unlink(missing_ok=True)
        try:
            with with_room(self._path):
                self._connection = _scratch(self._path)
                _fill(self._connection, self._found)
                self._connection.execute("commit")
                self._connection.execute("pragma shrink_memory")  # several are open at once, and each is read from the file
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._path.unlink(missing_ok=True)

    def keep(self, path: Path) -> None:
        """Keep them beyond the block, in a file that is not there yet; `Kept` reads it. Raises OSError."""
        try:
            os.link(self._path, path)
        except OSError:  # another file system
            shutil.copyfile(self._path, path)

    @property
    def path(self) -> Path:
        """The file that they are in: a table `found` with what is compared, of which a key is an id's bytes."""
        return self._path

    def __iter__(self) -> Iterator[Identity]:
        return self._read(_IN_ORDER)

    def among(self, path: Path, table: str) -> Iterator[Identity]:
        """In order, those whose ids stand in the column `key` of a table in another file."""
        self._open.execute("attach ? as some", (str(path),))
        try:
            yield from self._read(_AMONG.format(table))
        finally:
            self._open.execute("detach some")

    def _read(self, query: str) -> Iterator[Identity]:
        with with_room(self._path):
            for key, owner, state, at, chunks in self._open.execute(query):
                moment = None if at is None else datetime.fromisoformat(at)
                yield Identity(
                    _decoded(key), _decoded(owner[1:]) if owner else None, None if state is None else _decoded(state), moment, chunks
                )

    def owners(self) -> int:
        """How many different owners there are."""
        return int(self._open.execute("select count(distinct owner) from found where owner <> x''").fetchone()[0])

    def states(self) -> dict[str, int]:
        """Documents by state, the most frequent first; not more than a person would read."""
        query = "select state, count(*) from found where state is not null group by state order by 2 desc, 1 limit ?"
        return {_decoded(state): count for state, count in self._open.execute(query, (_MOST_STATES,))}

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("identities are read inside the block")
        return self._connection


class Kept(Sorted):
    """Identities that `Sorted.keep` put into a file, which stays."""

    def __init__(self, path: Path) -> None:
        super().__init__((), path.parent, path.stem)

    def __enter__(self) -> Kept:
        with with_room(self._path):
            self._connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def with_room(path: Path) -> Iterator[None]:
    """What SQLite says of a scratch file is told as what it mostly is: Failed, for want of room."""
    try:
        yield
    except sqlite3.Error as error:
        room = "set `scratch:` in storekeeper.yml to a directory with room"
        raise Failed(f"ids could not be kept in {path.parent}: {error}", next=room) from error


def _scratch(path: Path) -> sqlite3.Connection:
    """Kept in order from the start: a sort afterwards would need room elsewhere, in SQLite's own temporary files."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=off", "synchronous=0", f"cache_size=-{_CACHE_KB}"):
        connection.execute(f"pragma {pragma}")
    columns = "key blob, owner blob, number integer, state blob, at text, chunks integer"
    connection.execute(f"create table found ({columns}, primary key (key, owner, number)) without rowid")
    connection.execute("begin")
    return connection


def _fill(connection: sqlite3.Connection, found: Iterable[Identity]) -> None:
    encoded, utf8, how = str.encode, "utf-8", "surrogateescape"  # as key_of, without a call for each
    rows = (
        (
            encoded(document, utf8, how),
            b"" if owner is None else _GIVEN + encoded(owner, utf8, how),
            number,
            None if state is None else encoded(state, utf8, how),
            None if at is None else at.isoformat(),
            chunks,
        )
        for number, (document, owner, state, at, chunks) in enumerate(found)
    )
    connection.executemany("insert into found values (?, ?, ?, ?, ?, ?)", rows)


def _decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")

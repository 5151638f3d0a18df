"""What agrees at a glance: documents that SQLite finds to be the same everywhere, in the files in which identities are kept, are counted
there; only the others are compared one by one.

It may take what agrees for doubtful, and never the other way round: what is wrong, and how, is said by the comparison alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from storekeeper.consistency.comparison import State, Stream, Tally, words_of
from storekeeper.stack.rules import States
from storekeeper.stores.identities import Sorted, key_of, with_room

_CACHE_KB = 512
_ODD = "create table odd (key blob primary key) without rowid"
# Of the authority: what it names twice, is not complete, or holds a text that no id can hold.
_TWICE = "insert or ignore into odd select key from mine.found group by key having count(*) > 1"
_NOT_COMPLETE = "insert or ignore into odd select key from mine.found where coalesce(state, x'') not in ({})"
_UNSAYABLE = "insert or ignore into odd select key from mine.found where instr(key, ?) > 0"
# Of a replica: what the authority does not name, and what is not there under its owner alone, with as many chunks as there should be.
_UNNAMED = "insert or ignore into odd select key from theirs.found where key not in (select key from mine.found)"
_DIFFERENT = """
insert or ignore into odd select key from mine.found m where not (
    select case when count(*) = 0 then :may_be_absent else
        min(t.owner) = max(t.owner) and (min(t.owner) in (x'', m.owner) or m.owner = x'')
        and count(t.chunks) in (0, count(*)) and coalesce(min(t.chunks), 1) > 0
        and (not :counts or m.chunks is null or sum(t.chunks) is m.chunks) end
    from theirs.found t where t.key = m.key)"""
_DOCUMENTS = "select count(*) from mine.found where key not in odd"
_HELD = """
select count(*), coalesce(sum(chunks), 0) from (
    select sum(chunks) as chunks from theirs.found where key not in odd group by key)"""


class Clearing:
    """The doubtful documents of an authority and its replicas, whose identities are all `Sorted`; `tally` counts all others."""

    def __init__(self, path: Path, states: States | None, authority: Stream, replicas: Sequence[Stream]) -> None:
        """`path` is where the ids of the doubtful are written; raises Failed where there is no room for them."""
        self.tally = Tally()
        self._path = path
        self._authority, self._replicas = authority, replicas
        path.unlink(missing_ok=True)
        with with_room(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("pragma journal_mode=off")
            connection.execute("pragma synchronous=0")
            connection.execute(_ODD)
            with _attached(connection, authority, "mine"):
                self._doubt_authority(connection, states)
                for each in replicas:
                    with _attached(connection, each, "theirs"):
                        self._doubt(connection, each)
                self.tally.documents = connection.execute(_DOCUMENTS).fetchone()[0]
                for each in replicas:
                    with _attached(connection, each, "theirs"):
                        self._count(connection, each)

    def doubtful(self) -> tuple[Stream, list[Stream]]:
        """The same streams, of which only the doubtful are read."""
        authority, *replicas = (
            replace(each, identities=_sorted(each).among(self._path, "odd")) for each in (self._authority, *self._replicas)
        )
        return authority, replicas

    def _doubt_authority(self, connection: sqlite3.Connection, states: States | None) -> None:
        connection.execute(_TWICE)
        if (words := words_of(states)) is not None:
            complete = [key_of(word) for word, state in words.items() if state is State.COMPLETE]
            connection.execute(_NOT_COMPLETE.format(", ".join("?" * len(complete))), complete)
        for each in self._replicas:
            for end in each.ends:
                connection.execute(_UNSAYABLE, (key_of(end),))

    def _doubt(self, connection: sqlite3.Connection, replica: Stream) -> None:
        """Nothing at all may stand in an optional place that is the only one of its declaration: of several, others may hold something."""
        beside = [each for each in self._replicas if each.place.replica == replica.place.replica]
        counts = replica.place.counts and self._authority.place.counts
        connection.execute(_UNNAMED)
        connection.execute(_DIFFERENT, {"may_be_absent": replica.place.optional and len(beside) == 1, "counts": counts})

    def _count(self, connection: sqlite3.Connection, replica: Stream) -> None:
        documents, chunks = connection.execute(_HELD).fetchone()
        self.tally.held[replica.place.name] = documents
        if replica.place.counts:
            self.tally.chunks[replica.place.name] = chunks


@contextmanager
def _attached(connection: sqlite3.Connection, stream: Stream, name: str) -> Iterator[None]:
    connection.execute(f"attach ? as {name}", (str(_sorted(stream).path),))
    connection.execute(f"pragma {name}.cache_size=-{_CACHE_KB}")  # each is read from one end to the other
    try:
        yield
    finally:
        connection.execute(f"detach {name}")


def _sorted(stream: Stream) -> Sorted:
    if not isinstance(stream.identities, Sorted):
        raise TypeError(f"what {stream.place.name} holds is not kept in a file")
    return stream.identities

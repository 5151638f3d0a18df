"""What a SQLite database answers to a declared query, which can do nothing but read, and not for ever."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stores import databases
from storekeeper.stores.questions import SECONDS, Answer, Question, collected
from storekeeper.stores.sqlite.identities import only_reads

_LONGEST = 64 << 20  # bytes of one value or row
_STEPS = 10_000  # of SQLite's machine between two looks at the clock


def answer(live: Path, question: Question, seconds: float = SECONDS) -> Answer:
    """Of the live file, in one read transaction. Raises Refused for a query that does not run or does more than read, Failed for one that
    takes longer than `seconds`, Unknown where the file cannot be read.
    """
    with databases.explained(live, Unknown), closing(databases.open_read_only(live)) as connection:
        _bound(connection, seconds)
        try:
            # What is only to be understood is not run: a limit, for one, may not be null.
            cursor = connection.execute(question.query if question.rows else f"explain {question.query}", dict(question.values))
            return collected([each[0] for each in cursor.description], cursor, question.rows)
        except sqlite3.Error as error:
            raise _explained(error, seconds) from error


def _bound(connection: sqlite3.Connection, seconds: float) -> None:
    """From here on this connection only reads, gives no value beyond a size, and ends when its time is over."""
    connection.text_factory = _text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    connection.set_authorizer(only_reads)
    deadline = clock.monotonic() + seconds
    connection.set_progress_handler(lambda: clock.monotonic() > deadline, _STEPS)


def _explained(error: sqlite3.Error, seconds: float) -> Exception:
    """The query's own fault as a sentence; what is the file's, as it is."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return Failed(f"the query was ended after {seconds:g} s", next="let it read less, or declare an index for it")
    if code == sqlite3.SQLITE_TOOBIG:
        return Refused(f"the query makes a value of more than {_LONGEST >> 20} MB")
    if code == sqlite3.SQLITE_AUTH or "not authorized" in str(error) or "prohibited" in str(error):
        return Refused(f"the query does more than read: {error}")
    if isinstance(error, sqlite3.ProgrammingError) or code == sqlite3.SQLITE_ERROR:
        return Refused(f"the query does not run: {error}")
    return error


def _text(stored: bytes) -> str | bytes:
    """What is no text, although it is stored as one, is told as bytes."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored

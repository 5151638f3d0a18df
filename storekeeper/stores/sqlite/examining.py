"""A look inside a SQLite file: is every page, row, index and foreign key as it should be, how large is it, and who uses it."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from storekeeper.host import space
from storekeeper.outcomes import Failed, StorekeeperError, Unknown
from storekeeper.stores import databases
from storekeeper.stores.examination import Examination
from storekeeper.stores.indexes import spoken, wanted
from storekeeper.stores.sqlite import contents, holds, locking
from storekeeper.stores.sqlite.foresight import bytes_of

_DAMAGES = 20  # that SQLite is asked for
_FIGURES = ("page_size", "page_count", "freelist_count", "encoding", "user_version", "application_id")


def examine(live: Path, indexes: Mapping[str, Sequence[object]], work: Path) -> Examination:
    """Of the live file; one without a write-ahead log is copied to `work` first, as a backup does, so that writers need not wait for
    the end of it. What is damaged is a flaw; what could not be looked at is among the unknown.
    """
    found = Examination(figures={"bytes": bytes_of(live), "wal_bytes": _size(databases.beside(live, "-wal"))})
    try:
        found.users = locking.users(live)  # before this process has the file open itself
    except Unknown as error:
        found.unknown.append(error)
    try:
        mode = _journal_mode(live)
        found.figures["journal_mode"] = mode
        with _one_moment(live, mode, work) as connection:
            _look_inside(connection, live, indexes, found)
    except Failed as error:
        found.add("damage", error.message)
    except StorekeeperError as error:
        found.unknown.append(Unknown(error.message, next=error.next))
    return found


def _journal_mode(live: Path) -> str:
    """Raises Failed where the file is damaged, Unknown where it cannot be read."""
    with databases.explained(live, Unknown), closing(databases.open_read_only(live)) as connection:
        connection.execute("select count(*) from sqlite_master").fetchone()
        return contents.journal_mode(connection)


@contextmanager
def _one_moment(live: Path, mode: str, work: Path) -> Iterator[sqlite3.Connection]:
    """Raises Failed where the file is damaged, Unknown and Refused where it could not be had."""
    if mode == "wal":
        with databases.explained(live, Unknown), closing(databases.open_read_only(live)) as connection:
            connection.execute("begin")
            yield connection
        return
    space.check({work: bytes_of(live)}, purpose="a copy to look into", next="set `scratch:` in storekeeper.yml to a directory with room")
    hold = holds.CopyHold(live, work)
    try:
        _copy(hold)
        with databases.explained(live, Unknown), closing(databases.open_sealed(hold.copied)) as connection:
            yield connection
    finally:
        hold.close()


def _copy(hold: holds.CopyHold) -> None:
    """Raises Unknown where it could not be had: that says nothing of the file."""
    try:
        hold.prepare()
        hold.pin()
        hold.copy()
        hold.release()
    except Failed as error:
        raise Unknown(error.message, next=error.next) from error


def _look_inside(connection: sqlite3.Connection, live: Path, indexes: Mapping[str, Sequence[object]], found: Examination) -> None:
    found.figures |= {name: connection.execute(f"pragma {name}").fetchone()[0] for name in _FIGURES}
    for damage in damages(connection):
        found.add("damage", damage)
    if found.flaws:
        return  # what else such a file says of itself cannot be believed
    found.counts = contents.counts(connection)
    for table, count in contents.dangling(connection).items():
        said = f"{count:,} rows of {table} refer to rows that are not there" if isinstance(count, int) else f"{table}: {count}"
        found.add("dangling", said, table, f"sqlite3 {shlex.quote(str(live))} 'pragma foreign_key_check'")
    for table, columns in wanted(indexes):
        if (problem := _missing(connection, table, columns)) is not None:
            found.add("index", problem, table, _made(live, table, columns))


def damages(connection: sqlite3.Connection) -> list[str]:
    """What `integrity_check` says, which also looks at the indexes; nothing where all is well."""
    try:
        said = [" ".join(str(line).split()) for (line,) in connection.execute(f"pragma integrity_check({_DAMAGES})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if said == ["ok"] else said


def _missing(connection: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> str | None:
    """Why no index begins with these columns; None where one does. One that leaves rows out does not count."""
    known = {str(name).lower(): int(key) for name, key in connection.execute("select name, pk from pragma_table_info(?)", (table,))}
    if not known:
        return f"there is no table {table}, of which an index is declared"
    if unknown := [column for column in columns if column.lower() not in known]:
        return f"{table} has no column {unknown[0]}, of which an index is declared"
    names = [str(name) for (name,) in connection.execute("select name from pragma_index_list(?) where partial = 0", (table,))]
    for name in names:
        parts = connection.execute("select name from pragma_index_xinfo(?) where key = 1 order by seqno", (name,)).fetchall()
        if [str(part).lower() for (part,) in parts][: len(columns)] == [column.lower() for column in columns]:
            return None
    if len(columns) == 1 and [name for name, key in known.items() if key] == [columns[0].lower()]:
        return None  # the rows themselves are kept in its order
    return f"{table} has no index that begins with {spoken(columns)}"


def _made(live: Path, table: str, columns: Sequence[str]) -> str:
    name = databases.quoted("_".join([table, *columns]))
    statement = f"create index {name} on {databases.quoted(table)} ({', '.join(map(databases.quoted, columns))})"
    return shlex.join(["sqlite3", str(live), statement])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

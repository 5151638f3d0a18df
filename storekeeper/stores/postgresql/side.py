"""The side database that a restore loads, and the swap of names that makes it live.

A restore uses three names: the live database's, `<name>_side_<token>` for what is staged and `<name>_old_<token>` for what was live.
What is not live lets nobody in, so that no row can go astray.
Which database has which name in pg_database is all the memory that the swap needs; the journal tells whether there was a live one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.postgresql.catalogue import named
from storekeeper.stores.postgresql.connection import Access, Connection, asking, rows, sentence_of
from storekeeper.stores.protocol import Facts, SwitchLog

_LONGEST_NAME = 63  # bytes, NAMEDATALEN - 1
_TRIES = 3  # each waits 5 s for sessions to go
_END_SECONDS = 10.0
_DROP_SECONDS = 300.0  # it waits for a checkpoint, and for every process of the server: one that hangs would keep it for ever
_OURS = re.compile(r".*_(side|old)_[0-9a-f]{8}")


def names_for(database: str, token: str) -> Facts:
    """The three names of a restore with this token."""
    return {"live": database, "side": _derived(database, f"_side_{token}"), "old": _derived(database, f"_old_{token}")}


@dataclass(frozen=True)
class Sides:
    """The databases of one restore, moved by a role that may."""

    admin: Access
    maintenance: str  # the database to be connected to meanwhile
    live: str
    side: str
    old: str

    def switch(self, log: SwitchLog) -> None:
        """Give the live name to the staged database, and the old name to the live one. Safe to repeat."""
        with self.admin.session(self.maintenance) as connection:
            there = _present(connection)
            if self.side in there and self.old not in there:
                absent = self.live not in there
                moves = [(self.side, self.live)] if absent else [(self.live, self.old), (self.side, self.live)]
                self._swap(connection, moves, log, absent=absent)
            elif self.live not in there:
                raise Failed(f"neither {self.side} nor {self.live} is there: there is nothing to switch to")
            self._reopen(connection)

    def switch_back(self, log: SwitchLog) -> None:
        """Give the live name back to the old side, and the staged name to what has it now. Safe to repeat, from any state."""
        with self.admin.session(self.maintenance) as connection:
            there = _present(connection)
            closed = log.noted("closed")
            if self.old in there and self.side not in there:
                moves = [(self.live, self.side)] if self.live in there else []
                self._swap(connection, [*moves, (self.old, self.live)], log, absent=False)
            elif self.side not in there and self.live in there and closed is not None and closed["absent"]:
                self._swap(connection, [(self.live, self.side)], log, absent=True)
            self._reopen(connection)

    def drop(self, name: str) -> None:
        """Remove the staged or the old database, ending its sessions. Safe to repeat; never the live one."""
        if name == self.live or not _OURS.fullmatch(name):
            raise Refused(f"{name} is not a database that a restore made")
        with self.admin.session(self.maintenance) as connection:
            if name in _present(connection):
                if not _is_half_dropped(connection, name):
                    _allow(connection, name, allowed=False)
                _end_sessions(connection, [name])
                connection.execute(f"set statement_timeout = '{_DROP_SECONDS:g}s'")
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _swap(self, connection: Connection, moves: Sequence[tuple[str, str]], log: SwitchLog, *, absent: bool) -> None:
        """Rename all in one transaction. When it cannot be done, what has the live name is opened again before Failed is raised."""
        if held := [what for name, _ in moves for what in holders(connection, name)]:
            raise Failed(f"the databases cannot be renamed while there is {named(held)}", next="end or drop them first")
        log.note("closed", live=self.live, absent=absent)
        touched = [name for name, _ in moves]
        try:
            for name in touched:
                _allow(connection, name, allowed=False)
            _end_sessions(connection, touched)
            log.note("renamed", moves=[list(move) for move in moves])
            _rename(connection, moves)
        except Exception:
            self._reopen(connection)
            raise

    def _reopen(self, connection: Connection) -> None:
        if self.live in _present(connection):
            _allow(connection, self.live, allowed=True)


def holders(connection: Connection, database: str) -> list[str]:
    """What keeps a database from being renamed and cannot be ended like a session: prepared transactions, slots, subscriptions."""
    found = [
        f"prepared transaction {gid}" for (gid,) in rows(connection, "select gid from pg_prepared_xacts where database = %s", (database,))
    ]
    slots = rows(connection, "select slot_name from pg_replication_slots where database = %s", (database,))
    subscriptions = rows(
        connection, "select subname from pg_subscription s join pg_database d on d.oid = s.subdbid where d.datname = %s", (database,)
    )
    found += [f"replication slot {name}" for (name,) in slots]
    return found + [f"subscription {name}" for (name,) in subscriptions]


def _derived(database: str, ending: str) -> str:
    return database.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore") + ending


def _present(connection: Connection) -> set[str]:
    return {name for (name,) in rows(connection, "select datname from pg_database")}


def _is_half_dropped(connection: Connection, name: str) -> bool:
    """A drop that was cut off leaves it so: nobody is let in, and it cannot be altered, only dropped."""
    return bool(rows(connection, "select from pg_database where datname = %s and datconnlimit = -2", (name,)))


def _allow(connection: Connection, name: str, *, allowed: bool) -> None:
    word = sql.SQL("true" if allowed else "false")
    connection.execute(sql.SQL("alter database {} with allow_connections {}").format(sql.Identifier(name), word))


def _end_sessions(connection: Connection, names: Sequence[str]) -> None:
    """End every session of these databases; nobody new is let in by now. Raises Failed naming what stays."""
    deadline = clock.monotonic() + _END_SECONDS
    while True:
        # Autovacuum workers end by themselves when a rename asks for their database.
        left = rows(
            connection,
            "select pid, usename, application_name, pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = any (%s) and backend_type <> 'autovacuum worker'",
            (list(names),),
        )
        if not left:
            return
        if clock.monotonic() > deadline:
            pid, user, program, _ = left[0]
            raise Failed(
                f"{len(left)} sessions did not end within {_END_SECONDS:g} s, such as pid {pid} of {user} {program or ''}".rstrip()
            )
        time.sleep(0.01)


def _rename(connection: Connection, moves: Sequence[tuple[str, str]]) -> None:
    """All renames in one transaction. A session that slipped in is ended, and it is tried again."""
    names = [name for name, _ in moves]
    _try_repeatedly(lambda: _rename_once(connection, moves), lambda: _end_sessions(connection, names))


def _rename_once(connection: Connection, moves: Sequence[tuple[str, str]]) -> None:
    with connection.transaction():
        for source, destination in moves:
            connection.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(source), sql.Identifier(destination)))


def _try_repeatedly(work: Callable[[], None], between: Callable[[], None]) -> None:
    for attempt in range(_TRIES):
        try:
            work()
        except psycopg.errors.ObjectInUse as error:
            if attempt == _TRIES - 1:
                raise Failed(f"the databases could not be renamed in {_TRIES} tries: {sentence_of(error)}") from None
            with asking("the sessions in the way could not be ended"):
                between()
        else:
            return

"""A grip on one moment of a database: an exported snapshot, taken only when every table is safe from TRUNCATE.

TRUNCATE is not MVCC-safe (manual, section 13.6): a snapshot followed by TRUNCATE reads an empty table. So every table is locked
ACCESS SHARE first, as LOCK TABLE's manual page says, before the transaction's first query takes the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg import sql

from storekeeper.host import clock
from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.stores.postgresql import catalogue
from storekeeper.stores.postgresql.archiving import Archiving
from storekeeper.stores.postgresql.catalogue import Table, named
from storekeeper.stores.postgresql.connection import Access, Connection, asking, bounded, rows, sentence_of, value
from storekeeper.stores.protocol import Facts, PinOrder

LOCK_SECONDS = 5.0
PIN_SECONDS = 10.0
PREPARE_SECONDS = 120.0  # for a server that does not answer at all
_LOCK_SECONDS_WHILE_PINNING = 1.0  # other stores' writers may be waiting by then
_TRIES = 10  # of some milliseconds each: tables may come that often while a migration runs
_AT_ONCE = 100  # tables named by one LOCK statement


class SnapshotHold:
    """A session that holds a snapshot of a database, and its tables against TRUNCATE, until it is closed."""

    order = PinOrder.SNAPSHOT

    def __init__(self, access: Access, database: str, lock_seconds: float = LOCK_SECONDS) -> None:
        self.tables: Sequence[Table] = ()
        self.snapshot = ""
        self._access = access
        self._database = database
        self._lock_seconds = lock_seconds
        self._connection: Connection | None = None
        self._pinned_at: float | None = None
        self.archiving: Archiving | None = None
        self.sequences: Mapping[str, Facts] = {}  # before the dump began: no snapshot holds them

    @property
    def pause_ms(self) -> float:
        return 0.0

    @property
    def connection(self) -> Connection:
        """The session itself, whose transaction sees exactly the pinned moment."""
        if self._connection is None:
            raise Failed("the session that held the snapshot is gone")
        return self._connection

    @property
    def held_seconds(self) -> float:
        """How long the snapshot has been held; it keeps vacuum from removing what it can see."""
        return 0.0 if self._pinned_at is None else clock.monotonic() - self._pinned_at

    def prepare(self) -> None:
        self._connection = self._access.connect(self._database)
        for _ in range(_TRIES):
            with bounded(self.connection, PREPARE_SECONDS):
                if self._lock_all(self._lock_seconds):
                    return
        raise Failed(
            "tables come and go faster than they can be locked: no snapshot was taken", next="try again when the migration is over"
        )

    def pin(self) -> datetime:
        with bounded(self.connection, PIN_SECONDS):
            return self._pin()

    def _pin(self) -> datetime:
        for attempt in range(_TRIES):
            if attempt == 0 or self._lock_all(_LOCK_SECONDS_WHILE_PINNING):
                with asking("the snapshot could not be taken"):
                    self.snapshot = value(self.connection, "select pg_export_snapshot()")
                    moment, self._pinned_at = clock.now(), clock.monotonic()
                    seen = catalogue.tables(self.connection)
                if {table.oid for table in seen} <= {table.oid for table in self.tables}:
                    self.tables = catalogue.require_readable(seen)
                    return moment
        new = sorted({table.key for table in seen} - {table.key for table in self.tables})
        raise Failed(
            f"tables appeared while the snapshot was taken, {_TRIES} times in a row: {named(new)}",
            next="try again when the migration is over",
        )

    def copy(self) -> None:
        """Nothing needs a lock on writers."""

    def release(self) -> None:
        """Writers were never blocked; the snapshot stays."""

    def require_alive(self) -> None:
        """Raises Failed when the session was ended meanwhile: nothing proves then what was dumped."""
        with asking("the session that held the snapshot was lost during the dump"):
            if value(self.connection, "select pg_export_snapshot() is not null") is not True:
                raise Failed("the session that held the snapshot was lost during the dump")

    def close(self) -> None:
        if self.archiving is not None:
            self.archiving.give_up()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _lock_all(self, seconds: float) -> bool:
        """Begin the transaction and lock every table in it; False when one vanished between the list and its lock."""
        connection = self.connection
        with asking("the tables could not be listed"):
            connection.execute("rollback")
            found = catalogue.require_readable(catalogue.tables(connection))
            connection.execute("begin isolation level repeatable read")
            connection.execute(sql.SQL("set local lock_timeout = {}").format(f"{int(seconds * 1000)}ms"))
        try:
            for start in range(0, len(found), _AT_ONCE):
                names = sql.SQL(", ").join(sql.SQL("only {}").format(table.identifier) for table in found[start : start + _AT_ONCE])
                connection.execute(sql.SQL("lock table {} in access share mode").format(names))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return False
        except psycopg.errors.LockNotAvailable:
            raise self._locked_by_others(found, seconds) from None
        except psycopg.Error as error:
            raise Failed(f"the tables could not be locked: {sentence_of(error)}") from None
        self.tables = found
        return True

    def _locked_by_others(self, found: Sequence[Table], seconds: float) -> StorekeeperError:
        with asking("the holders of locks could not be listed"):
            self.connection.execute("rollback")
            holders = rows(
                self.connection,
                "select l.relation, l.pid, a.application_name from pg_locks l left join pg_stat_activity a using (pid)"
                " where l.locktype = 'relation' and l.granted and l.mode = 'AccessExclusiveLock' and l.relation = any (%s)",
                ([table.oid for table in found],),
            )
        names = {table.oid: table.key for table in found}
        told = [f"{names[oid]} (pid {pid}{f', {name}' if name else ''})" for oid, pid, name in holders]
        who = named(told) if told else "a table"
        return Failed(f"no lock within {seconds:g} s: somebody holds {who} exclusively", next="wait for that transaction to end, or end it")

"""One PostgreSQL database as a store: what the protocol asks, in the words of the modules beside this one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from storekeeper.host.processes import User
from storekeeper.outcomes import Failed, Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.runtimes.protocol import Runtime
from storekeeper.runtimes.registry import open_runtime
from storekeeper.stack.model import PostgresqlModel
from storekeeper.stack.rules import Rows
from storekeeper.stack.setting import is_open_to_all
from storekeeper.stack.types import SecretReference, Setting
from storekeeper.stores import lending
from storekeeper.stores.examination import Examination, InUse
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, Remarks, RowsSource, Source, SqlSource
from storekeeper.stores.marks import mark
from storekeeper.stores.mending import Mender
from storekeeper.stores.postgresql import (
    answering,
    catalogue,
    dump,
    emptying,
    examining,
    extensions,
    foresight,
    identities,
    loading,
    marks,
    properties,
)
from storekeeper.stores.postgresql.connection import Access, Connection, access_to, bounded, server_version, value
from storekeeper.stores.postgresql.hold import SnapshotHold
from storekeeper.stores.postgresql.loading import Loading
from storekeeper.stores.postgresql.mending import PostgresqlMender
from storekeeper.stores.postgresql.programs import find_for_backup, major_of
from storekeeper.stores.postgresql.readback import fingerprint_of, read_back
from storekeeper.stores.postgresql.recorded import Recorded, recorded_in
from storekeeper.stores.postgresql.scratch import let_in, reader, scratch_server
from storekeeper.stores.postgresql.side import Sides, names_for
from storekeeper.stores.protocol import Before, Content, Dumped, Facts, Foresight, Inspection, Look, Part, Rescued, SwitchLog, SwitchRoom
from storekeeper.stores.questions import SECONDS as ANSWER_SECONDS
from storekeeper.stores.questions import Answer, Question
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.surroundings import Surroundings

_TESTED = range(15, 19)
_SWAP_SECONDS = 1.0  # at most 0.35 s in 30 swaps with clients that reconnect without pause
_ADMIN = "postgres"
_LOOK_SECONDS, _COUNT_SECONDS = 60.0, 900.0
_EXAMINE_SECONDS = 6 * 3600.0  # every index of a large database is read
_GRACE_SECONDS = 10.0  # for a server to end a statement by itself, before its connection is cut
_SIZE = "select pg_database_size(current_database())"


class PostgresqlStore:
    """A database on a server; every promise is the protocol's."""

    kind: ClassVar[str] = "postgresql"
    needs_stopped: ClassVar[bool] = False
    copies_parts: ClassVar[bool] = False

    def __init__(self, name: str, declared: PostgresqlModel, surroundings: Surroundings) -> None:
        self._name = name
        if declared.database is None or declared.user is None:
            raise ValueError(f"nobody has asked where {name} is: {declared.url}")
        self._database, self._user = declared.database, declared.user
        self._declared = declared
        self._surroundings = surroundings
        self._access = access_to(declared.host, declared.port, declared.user, declared.password, surroundings.private)
        self._loading: Loading | None = None  # the last that was begun

    @property
    def name(self) -> str:
        return self._name

    @property
    def mends_alone(self) -> bool:
        return False

    @property
    def runtime(self) -> Runtime | None:
        return None if self._declared.runtime is None else open_runtime(self._declared.runtime)

    def preflight(self) -> Sequence[Problem]:
        with self._access.session(self._database, _LOOK_SECONDS) as connection:
            version = server_version(connection)
            find_for_backup(self._declared.programs, version)
            catalogue.require_readable(catalogue.tables(connection))
            if denied := catalogue.unreadable_large_objects(connection):
                raise Refused(f"the role may not read {denied} large objects", next="declare the owner of the large objects")
            problems = [*_about_version(version), *_about_checksums(connection), *_about_collations(connection, self._database)]
        return [*problems, *_about_setting(self._access.password)]

    def look(self, before: Before | None = None) -> Look:
        """What a dump will hold is only known from the one before."""
        try:
            with self._access.session(self._database, _LOOK_SECONDS) as connection:
                size = value(connection, _SIZE)
                return Look(server_version(connection), size, adds=before.record.bytes if before else size)
        except StorekeeperError as error:
            raise Unknown(error.message, next=error.next) from error

    def inspect(self) -> Inspection:
        try:
            with self._access.session(self._database, _COUNT_SECONDS) as connection:
                connection.execute(f"set lock_timeout = '{_LOOK_SECONDS:g}s'")  # a table may be locked for as long as somebody likes
                return Inspection(server_version(connection), value(connection, _SIZE), catalogue.counts(connection))
        except StorekeeperError as error:
            raise Unknown(error.message, next=error.next) from error

    def is_absent(self) -> bool:
        try:
            with self._admin() as (_, connection):
                there = value(connection, "select exists (select from pg_database where datname = %s)", (self._database,))
        except StorekeeperError as error:
            raise Unknown(error.message, next=error.next) from error
        return not there

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        if not isinstance(source, SqlSource | RowsSource):
            raise TypeError(f"a database has no {type(source).__name__}")
        with self._access.session(self._database, _COUNT_SECONDS) as connection:
            connection.execute(f"set lock_timeout = '{_LOOK_SECONDS:g}s'")
            yield from identities.read(connection, source, remarks)

    def mark(self, source: Source) -> str | None:
        if not isinstance(source, SqlSource | RowsSource):
            raise TypeError(f"a database has no {type(source).__name__}")
        try:
            with self._access.session(self._database, _LOOK_SECONDS) as connection:
                found = marks.of_query(connection, source)
        except StorekeeperError:
            return None
        return None if found is None else mark(self.address, found)

    def dumped_identities(
        self,
        hold: SnapshotHold,
        folder: Path,  # noqa: ARG002 - an archive cannot be asked: the session that holds the snapshot is
        source: Source,
        remarks: Remarks,
    ) -> Iterator[Identity]:
        if not isinstance(source, SqlSource | RowsSource):
            raise TypeError(f"a database has no {type(source).__name__}")
        with bounded(hold.connection, _COUNT_SECONDS):
            yield from identities.read(hold.connection, source, remarks)

    def mender(self, source: Source, rows: Sequence[Rows], token: str, *, only_look: bool = False) -> AbstractContextManager[Mender]:  # noqa: ARG002 - the protocol's
        if not rows:
            raise Refused("a query does not say which rows are a document's", next="declare `rows` beside it")
        return nullcontext(PostgresqlMender(lambda: self._access.session(self._database, _COUNT_SECONDS), rows))

    def forget_taken(self, token: str) -> None:
        """Nothing: what was taken is kept with the repair's plan."""

    def answer(self, question: Question) -> Answer:
        with self._access.session(self._database, ANSWER_SECONDS + _GRACE_SECONDS) as connection:
            return answering.answer(connection, question)

    def examine(self, work: Path) -> Examination:  # noqa: ARG002 - the server reads its own files
        with self._access.session(self._database, _EXAMINE_SECONDS) as connection:
            connection.execute(f"set lock_timeout = '{_LOOK_SECONDS:g}s'")
            return examining.examine(connection, self._declared.indexes)

    def users(self) -> Sequence[InUse]:
        raise Refused("a server holds the locks of its database, and ends its sessions itself", next="select pg_terminate_backend(PID)")

    def rescue(self, into: StoreFolder, work: Path) -> Rescued:  # noqa: ARG002 - the protocol's
        raise Refused(f"{self._database} is a database of a server: its files are the server's, and are not read past it")

    def hold(self, work: Path) -> SnapshotHold:  # noqa: ARG002 - nothing of this store is copied under a lock
        return SnapshotHold(self._access, self._database)

    def begin_dump(self, hold: SnapshotHold, into: StoreFolder) -> bool:
        dump.begin(hold, self._access, self._database, self._declared.programs, into)
        return True

    def dump(self, hold: SnapshotHold, into: StoreFolder) -> Dumped:
        return dump.finish(hold, into, sql=self._declared.sql)

    def empty(self, into: StoreFolder, work: Path, keep: Sequence[str] | None, instead: Before | None) -> Dumped:  # noqa: ARG002 - the protocol's
        """What cannot be read has no raw copy either, so there is never another schema to take."""
        return emptying.empty(self._access, self._database, self._declared.programs, into, keep)

    @property
    def address(self) -> str:
        return self._access.url(self._database)

    def passfile_line(self) -> str | None:
        return self._access.passfile_line(self._database)

    def verify(self, folder: Path, record: StoreRecord) -> None:
        recorded = recorded_in(folder, record, self._declared.programs)
        for each in (recorded.shape(), recorded.sequences()):
            for _ in each:  # every line reads
                pass
        recorded.archive.decode()
        recorded.archive.require_tables(sum(1 for key in record.digests if key != catalogue.LARGE_OBJECTS))

    @contextmanager
    def copy(self, folder: Path, record: StoreRecord, scratch: Path, part: Part | None = None) -> Iterator[PostgresqlCopy]:  # noqa: ARG002 - a database is loaded whole
        recorded = recorded_in(folder, record, self._declared.programs)
        major = major_of(record.version)
        bootstrap, tables = str(recorded.database["bootstrap"]), len(record.counts)
        with scratch_server(self._declared.programs, major, bootstrap, scratch, tables=tables) as access:
            with access.session(_ADMIN) as connection:
                for extension in recorded.database["extensions"]:
                    if (sentence := extensions.why_unavailable(connection, extension)) is not None:
                        raise Unknown(sentence, next=foresight.package_of(extension["name"], major))
            side = names_for(self._database, "00000000")["side"]
            with Loading(access, _ADMIN, side, recorded, lambda role: let_in(access, role), tablespaces=False) as going_on:
                going_on.finish()
            declared = self._declared.model_copy(
                update={"database": side, "host": access.host, "port": access.port, "password": None, "admin": None, "runtime": None}
            )
            yield PostgresqlCopy(self._name, declared, self._surroundings, access, recorded)

    def raw_bytes(self) -> int:
        """Raises Refused: the files belong to the server, and mean nothing without all of its others."""
        database = self._database
        raise Refused(
            f"no raw copy of database {database} can be made: its files belong to the server",
            next=f"save by hand what pg_dump can read; when database {database} is renamed, its name is restored as absent",
        )

    def raw_copy(self, into: StoreFolder) -> Facts:  # noqa: ARG002 - the protocol's
        """Raises Refused, as `raw_bytes` does."""
        return {"bytes": self.raw_bytes()}

    def foresee(self, folder: Path, record: StoreRecord, stage_dir: Path | None, *, raw: bool = False) -> Foresight:
        if raw:
            self.raw_bytes()
        recorded = recorded_in(folder, record, self._declared.programs)
        live = self._database
        with self._admin() as (admin, connection):
            problems = foresight.refuse_unless_possible(connection, admin, live, recorded)
            problems += foresight.functions_beyond(*loading.beyond(admin, recorded, self._become), admin)
            needs = foresight.bytes_needed(connection, admin.host, admin.is_socket, recorded)
        if stage_dir is not None:
            problems.append(Problem("a database is staged on its server, whatever --stage-dir says", Severity.INFO))
        absent = self.is_absent()
        counts_now = None if absent else self._counts()
        return Foresight(counts_now, record.counts, needs, 0.0 if absent else _SWAP_SECONDS, problems)

    def place(self, token: str, stage_dir: Path | None, *, raw: bool = False) -> Facts:  # noqa: ARG002 - a database is staged on its server
        return names_for(self._database, token)

    def begin_stage(self, folder: Path, record: StoreRecord, place: Facts) -> Loading:
        recorded = recorded_in(folder, record, self._declared.programs)
        side = str(place["side"])
        self.discard_stage(place)
        with self._admin() as (admin, connection):
            maintenance, tablespaces = connection.info.dbname, foresight.has_tablespaces(connection, recorded)
            self._loading = Loading(admin, maintenance, side, recorded, self._become, tablespaces=tablespaces)
        return self._loading

    def stage(self, folder: Path, record: StoreRecord, place: Facts) -> Content:
        recorded, side = recorded_in(folder, record, self._declared.programs), str(place["side"])
        going_on = self._loading if self._loading and self._loading.goes_on_for(side) else self.begin_stage(folder, record, place)
        with going_on:
            going_on.finish()
        with self._admin() as (admin, connection):
            found = read_back(admin, side, recorded)
            with admin.session(side) as staged:
                staged.execute("analyze")
            properties.apply(connection, side, recorded.database)
        return found

    def refuse_holders(self, place: Facts) -> None:
        """Nobody is refused: sessions are ended when the names are swapped."""

    def back_needs(self, place: Facts) -> Mapping[Path, int]:  # noqa: ARG002 - the protocol's
        """Nothing: names are swapped."""
        return {}

    def switch_room(self, place: Facts) -> SwitchRoom:  # noqa: ARG002 - the protocol's
        """Nothing: names are swapped."""
        return SwitchRoom()

    def switch(self, place: Facts, log: SwitchLog) -> None:
        with self._sides(place) as sides:
            sides.switch(log)

    def switch_back(self, place: Facts, log: SwitchLog) -> None:
        with self._sides(place) as sides:
            sides.switch_back(log)

    def probe(self, place: Facts, expected: StoreRecord) -> None:  # noqa: ARG002 - the live name is the declared one
        """Every table is there, and not all are empty. Rows are not compared: they were when they were staged, a swap of names does
        not change them, and clients that nobody declared may have written since, for which no restore should be taken back.
        """
        found = self._counts()
        if missing := sorted(expected.counts.keys() - found.keys() - {catalogue.LARGE_OBJECTS}):
            raise Failed(f"the live database has no {catalogue.named(missing)}")
        if sum(expected.counts.values()) and not sum(found.values()):
            raise Failed("the live database is empty, the set is not")

    def discard_stage(self, place: Facts) -> None:
        with self._sides(place) as sides:
            sides.drop(sides.side)

    def discard_old(self, place: Facts) -> None:
        with self._sides(place) as sides:
            sides.drop(sides.old)

    def _become(self, role: str) -> Access | None:
        """The one role of a live server whose password is known here beside the administrator's: the store's own."""
        return self._access if role == self._access.user else None

    def _counts(self) -> dict[str, int]:
        with self._access.session(self._database, _COUNT_SECONDS) as connection:
            return catalogue.counts(connection)

    @contextmanager
    def _sides(self, place: Facts) -> Iterator[Sides]:
        with self._admin() as (admin, connection):
            maintenance = connection.info.dbname
        yield Sides(admin, maintenance, str(place["live"]), str(place["side"]), str(place["old"]))

    @contextmanager
    def _admin(self) -> Iterator[tuple[Access, Connection]]:
        """The role that makes and swaps databases, and a session of it in a database that is not the live one."""
        maintenance = "postgres" if self._database != "postgres" else "template1"
        access = self._admin_access(maintenance)
        with access.session(maintenance) as connection:
            yield access, connection

    def _admin_access(self, maintenance: str) -> Access:
        if (admin := self._declared.admin) is not None:
            return access_to(self._declared.host, self._declared.port, admin.user, admin.password, self._surroundings.private)
        if os.geteuid() == 0 and self._access.is_socket and self._access.user != _ADMIN:
            postgres = access_to(self._declared.host, self._declared.port, _ADMIN, None, self._surroundings.private)
            return postgres if postgres.answers(maintenance) else self._access
        return self._access


def _about_setting(password: SecretReference | Setting | None) -> list[Problem]:
    """The application's own file may have any mode that it needs; that everybody can read a password is said."""
    if not isinstance(password, Setting) or not is_open_to_all(password):
        return []
    said = f"{password.file} holds the database's password in {password.key}, and every user of this host can read it"
    return [Problem(said, Severity.WARNING, next=shlex.join(["chmod", "o-r", str(password.file)]))]


class PostgresqlCopy(PostgresqlStore):
    """A set's database on a scratch server. `admin` may do everything there; what is read of it is read as the declared role."""

    def __init__(self, name: str, declared: PostgresqlModel, surroundings: Surroundings, admin: Access, recorded: Recorded) -> None:
        super().__init__(name, declared, surroundings)
        self._server = admin
        self._recorded = recorded
        with admin.session(_ADMIN) as connection:
            properties.set_search_paths(connection, self._database, recorded.database, self._user)
        self._access = reader(admin, self._user)

    def content(self) -> Content:
        return read_back(self._server, self._database, self._recorded)

    def fingerprint(self) -> str:
        return fingerprint_of(self._server, self._database)

    def lend(self, user: User | None) -> None:
        """Anybody who reaches the server's socket is let in, so only the user's own group does."""
        sockets = Path(self._server.host)
        for each in (sockets, sockets.parent) if sockets.parent.parent == self._surroundings.scratch else (sockets,):
            lending.let_through(each, user)


def _about_version(version: str) -> list[Problem]:
    major = major_of(version)
    if major in _TESTED:
        return []
    how = "older" if major < _TESTED.start else "newer"
    return [Problem(f"PostgreSQL {version} is {how} than the versions this was tested with (15 to 18)", Severity.WARNING)]


def _about_checksums(connection: Connection) -> list[Problem]:
    if value(connection, "show data_checksums") == "on":
        return []
    return [
        Problem(
            "data checksums are off: a page that rots on disk is backed up as it is",
            Severity.WARNING,
            next="pg_checksums --enable, while the server is stopped",
        )
    ]


def _about_collations(connection: Connection, database: str) -> list[Problem]:
    """Rows are whole whatever the order of text was; only indexes of before are wrong, and a restore builds all of them anew."""
    changed = catalogue.changed_collations(connection)
    if not changed:
        return []
    return [
        Problem(
            f"the order of text has changed since indexes were made: {catalogue.named(changed)}; queries by these indexes may miss rows",
            Severity.WARNING,
            next=f"reindexdb {database}, then: alter database {database} refresh collation version",
        )
    ]

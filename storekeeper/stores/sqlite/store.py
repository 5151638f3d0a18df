"""A SQLite file as a store of a stack."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from storekeeper.host import durable
from storekeeper.host.processes import User
from storekeeper.outcomes import Failed, Problem, Refused, Severity, Unknown
from storekeeper.runtimes.protocol import Runtime
from storekeeper.runtimes.registry import open_runtime
from storekeeper.stack.model import SqliteModel
from storekeeper.stack.rules import Rows
from storekeeper.stores import databases, emptied, lending, marks, rawcopy
from storekeeper.stores.examination import Examination, InUse
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, Remarks, RowsSource, Source, SqlSource
from storekeeper.stores.mending import Mender
from storekeeper.stores.protocol import Before, Content, Dumped, Facts, Foresight, Inspection, Look, Part, Rescued, SwitchLog, SwitchRoom
from storekeeper.stores.questions import Answer, Question
from storekeeper.stores.record import EMPTIED, RESCUED, StoreRecord
from storekeeper.stores.sqlite import (
    answering,
    arrival,
    contents,
    examining,
    foresight,
    identities,
    locking,
    overwriting,
    rawfiles,
    rescuing,
)
from storekeeper.stores.sqlite.holds import COPY, CopyHold, SnapshotHold, hold
from storekeeper.stores.sqlite.mending import SqliteMender
from storekeeper.stores.sqlite.moving import WHY, Moving
from storekeeper.stores.sqlite.others import may_be_used, refuse_others
from storekeeper.stores.sqlite.place import Place, remove
from storekeeper.stores.sqlite.switching import Switching, drop_markers, refuse_users_of_other_shape
from storekeeper.stores.surroundings import Surroundings


class SqliteStore:
    """`switch_patience_s` is how long a switch waits for the lock on the live file."""

    kind: ClassVar[str] = "sqlite"
    needs_stopped: ClassVar[bool] = False
    copies_parts: ClassVar[bool] = False

    def __init__(
        self, name: str, declared: SqliteModel, surroundings: Surroundings, switch_patience_s: float = overwriting.PATIENCE_S
    ) -> None:
        self._name = name
        if declared.path is None:
            raise ValueError(f"nobody has asked where {name} is: {declared.url}")
        self._path = declared.path
        self._declared = declared
        self._surroundings = surroundings
        self._patience_s = switch_patience_s
        self._runtime = open_runtime(declared.runtime) if declared.runtime is not None else None

    @property
    def name(self) -> str:
        return self._name

    @property
    def mends_alone(self) -> bool:
        return False

    @property
    def runtime(self) -> Runtime | None:
        return self._runtime

    @property
    def _live(self) -> Path:
        """The file itself: SQLite keeps its journal and log beside the file that a link leads to."""
        return Path(os.path.realpath(self._path))

    def preflight(self) -> Sequence[Problem]:
        live = self._live
        if self.is_absent():
            raise Failed(f"{live} is not there")
        if not os.access(live, os.R_OK | os.W_OK):
            raise Refused(f"{live} cannot be locked: this user may not write to it", next="run as root, or as the user who owns the file")
        with databases.explained(live), closing(databases.open_read_only(live)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
        return foresight.foreign_owner(live)

    def look(self, before: Before | None = None) -> Look:  # noqa: ARG002 - a database is one file, and copied whole
        live = self._live
        if self.is_absent():
            raise Unknown(f"{live} is not there")
        with databases.explained(live, Unknown), closing(databases.open_read_only(live)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
        size = foresight.bytes_of(live)
        return Look(sqlite3.sqlite_version, size, adds=size)

    def inspect(self) -> Inspection:
        live = self._live
        if self.is_absent():
            raise Unknown(f"{live} is not there")
        with databases.explained(live, Unknown), closing(databases.open_read_only(live)) as connection:
            facts = {**contents.header(connection), "journal_mode": contents.journal_mode(connection)}
            counts = contents.counts(connection)
        return Inspection(sqlite3.sqlite_version, foresight.bytes_of(live), counts, facts)

    def is_absent(self) -> bool:
        """Raises Unknown when the directory is not there (an unmounted disk looks so), and Failed for what is no file."""
        live = self._live
        if not live.parent.is_dir():
            raise Unknown(f"{live.parent} is not there, so nobody knows whether {live.name} is", next=f"findmnt --target {live.parent}")
        try:
            status = os.lstat(live)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise Unknown(f"{live} cannot be looked at: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise Failed(f"{live} is no file")
        return False

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        if not isinstance(source, SqlSource | RowsSource):
            raise TypeError(f"a database has no {type(source).__name__}")
        if self.is_absent():
            raise Unknown(f"{self._live} is not there")
        return identities.live(self._live, source, remarks)

    def mark(self, source: Source) -> str | None:
        live = self._live
        if isinstance(source, SqlSource) and not marks.says_the_same(live, source.query):
            return None
        return marks.of_database(live)

    def dumped_identities(
        self,
        hold: SnapshotHold | CopyHold,  # noqa: ARG002 - the copy in the set is the pinned moment
        folder: Path,
        source: Source,
        remarks: Remarks,
    ) -> Iterator[Identity]:
        if not isinstance(source, SqlSource | RowsSource):
            raise TypeError(f"a database has no {type(source).__name__}")
        return identities.sealed(folder / COPY, source, remarks)

    def mender(self, source: Source, rows: Sequence[Rows], token: str, *, only_look: bool = False) -> AbstractContextManager[Mender]:  # noqa: ARG002 - the protocol's
        if not rows:
            raise Refused("a query does not say which rows are a document's", next="declare `rows` beside it")
        if self.is_absent():
            raise Unknown(f"{self._live} is not there")
        return nullcontext(SqliteMender(self._live, rows))

    def forget_taken(self, token: str) -> None:
        """Nothing: what was taken is kept with the repair's plan."""

    def answer(self, question: Question) -> Answer:
        if self.is_absent():
            raise Unknown(f"{self._live} is not there")
        return answering.answer(self._live, question)

    def examine(self, work: Path) -> Examination:
        if self.is_absent():
            raise Failed(f"{self._live} is not there")
        return examining.examine(self._live, self._declared.indexes, work)

    def users(self) -> Sequence[InUse]:
        if self.is_absent():
            raise Unknown(f"{self._live} is not there")
        return locking.users(self._live)

    def hold(self, work: Path) -> SnapshotHold | CopyHold:
        return hold(self._live, work)

    def begin_dump(self, hold: SnapshotHold | CopyHold, into: StoreFolder) -> bool:  # noqa: ARG002 - no program is needed
        return False

    def dump(self, hold: SnapshotHold | CopyHold, into: StoreFolder) -> Dumped:
        """One artefact, `database.sqlite`, with a rollback journal whatever the live file has: reading it makes nothing beside it.

        Foreign keys that lead nowhere are kept as they are, recorded, and said as a warning: refusing them would leave such data
        without any backup.
        """
        live = self._live
        with databases.explained(live):
            if isinstance(hold, SnapshotHold):
                mode = "wal"
                _copy_snapshot(hold.connection, hold.copied)
                found, facts = contents.read(hold.connection), contents.header(hold.connection)
            else:
                with closing(databases.open_sealed(hold.copied)) as connection:
                    mode = contents.journal_mode(connection)
                    found, facts = contents.read(connection), contents.header(connection)
            with closing(databases.open_sealed(hold.copied)) as connection:
                dangling = contents.dangling(connection)
        into.adopt(hold.copied, COPY)
        details = {**facts, "journal_mode": mode, "dangling": dangling, **foresight.ownership(live)}
        return Dumped(hold.klass, found.counts, found.digests, details, _warnings(live, dangling))

    def empty(self, into: StoreFolder, work: Path, keep: Sequence[str] | None, instead: Before | None) -> Dumped:
        live, made = self._live, work / COPY
        source = live if instead is None else instead.folder / COPY
        with databases.explained(source):
            with closing(databases.open_read_only(source) if instead is None else databases.open_sealed(source)) as connection:
                mode = contents.journal_mode(connection) if instead is None else str(instead.record.details["journal_mode"])
                if keep is None:
                    emptied.make_bare(connection, made)
                else:
                    emptied.make(connection, made, keep)
            with closing(databases.open_sealed(made)) as connection:
                contents.refuse_damage(connection, str(made))
                found, facts, dangling = contents.read(connection), contents.header(connection), contents.dangling(connection)
        into.adopt(made, COPY)
        details = {**facts, "journal_mode": mode, "dangling": dangling, **foresight.ownership(live)}
        return Dumped(EMPTIED, found.counts, found.digests, details)

    def rescue(self, into: StoreFolder, work: Path) -> Rescued:
        """One artefact, as `dump` writes it, and as sound as one: every page, index and constraint of it is checked."""
        live, copied, made = self._live, work / "damaged.sqlite", work / COPY
        if self.is_absent():
            raise Refused(f"{live} is not there")
        rawfiles.copy_out(live, copied)
        mode = rescuing.journal_mode(copied)
        damages = rescuing.settle(copied, live)
        if not damages:
            again = f"storekeeper examine {self._surroundings.stack} --store {self._name}"
            raise Refused(f"nothing is wrong with {live}: every page, row and index of it can be read", next=again)
        rebuilt = rescuing.rebuild(copied, made)
        remove(copied)
        with databases.explained(made), closing(databases.open_sealed(made)) as connection:
            contents.refuse_damage(connection, f"what was made anew of {live}")
            found, facts, dangling = contents.read(connection), contents.header(connection), contents.dangling(connection)
        into.adopt(made, COPY)
        details = {**facts, "journal_mode": mode, "dangling": dangling, **foresight.ownership(live)}
        dumped = Dumped(RESCUED, found.counts, found.digests, details, _warnings(live, dangling))
        return Rescued(dumped, damages, rebuilt.tables, rebuilt.unplaced, rebuilt.notes)

    @property
    def address(self) -> str:
        return str(self._live)

    def passfile_line(self) -> None:
        return None

    def verify(self, folder: Path, record: StoreRecord) -> None:
        """Every page, row and index; every foreign key that led somewhere when it was dumped still does; every table is there."""
        path = folder / COPY
        with (
            foresight.telling_newer(record.version),
            databases.explained(path),
            closing(databases.open_sealed(path)) as connection,
        ):
            contents.refuse_damage(connection, str(path))
            if contents.tables(connection) != sorted(record.counts):
                raise Failed(f"{path} does not hold the tables that its record names")
            if contents.dangling(connection) != record.details.get("dangling"):
                raise Failed(f"{path} has other dangling foreign keys than the data it was taken from")

    @contextmanager
    def copy(self, folder: Path, record: StoreRecord, scratch: Path, part: Part | None = None) -> Iterator[SqliteCopy]:  # noqa: ARG002 - a database is one file
        path = scratch / COPY
        try:
            rawcopy.copy_file(folder / COPY, path)
            durable.sync_file(path)
            declared = self._declared.model_copy(update={"path": path, "runtime": None})
            yield SqliteCopy(self._name, declared, self._surroundings, record.version)
        finally:
            remove(path)

    def raw_bytes(self) -> int:
        return rawfiles.bytes_of(self._live)

    def raw_copy(self, into: StoreFolder) -> Facts:
        return rawfiles.copy(self._live, into)

    def foresee(self, folder: Path, record: StoreRecord, stage_dir: Path | None, *, raw: bool = False) -> Foresight:
        """Contents are written over contents. Where one side cannot be read, files are moved, and nobody may have them open."""
        live, absent = self._live, self.is_absent()
        if not record.is_raw:
            foresight.refuse_newer(folder / COPY, record.version)
        counts_now = None if absent or raw else foresight.counts_now(live)
        problems: list[Problem] = []
        if not absent and (raw or record.is_raw):
            foresight.refuse_unmovable(live)
            problems = foresight.users(live, WHY, self._surroundings)
        elif not absent:
            problems = foresight.users_of_other_shape(live, contents.Shape.of(dict(record.details)), self._surroundings)
        needed, downtime_s = foresight.needs(live, record, stage_dir)
        return Foresight(counts_now, dict(record.counts), needed, downtime_s, problems)

    def place(self, token: str, stage_dir: Path | None, *, raw: bool = False) -> Facts:
        return Place.named(self._name, self._live, token, stage_dir, raw=raw).to_facts()

    def begin_stage(self, folder: Path, record: StoreRecord, place: Facts) -> None:  # noqa: ARG002 - no program is needed
        return None

    def stage(self, folder: Path, record: StoreRecord, place: Facts) -> Content:
        """What will be a file of its own gets the owner and mode of the live one, where nothing is live those recorded, and the
        recorded journal mode.
        """
        names = Place.of(place)
        remove(names.stage)
        if record.is_raw:
            rawfiles.stage(folder, record, names.stage, keep_owners=not self._surroundings.no_owners)
            return Content({}, {})
        found = _loaded(folder / COPY, names.stage)
        is_live = os.path.lexists(names.live)
        if names.raw or not is_live:
            arrival.set_mode(names.stage, str(record.details["journal_mode"]))
            self._give_away(names.stage, foresight.ownership(names.live) if is_live else record.details)
        durable.sync_file(names.stage)
        durable.sync_directory(names.stage.parent)
        return found

    def refuse_holders(self, place: Facts) -> None:
        """A switch of contents may have users; that of files, or of what they keep in memory, must have none."""
        names, nobody_uses = Place.of(place), self._surroundings.nobody_uses
        if names.raw:
            refuse_others(names.live, WHY, nobody_uses=nobody_uses)
        elif os.path.lexists(names.live):
            refuse_users_of_other_shape(names, nobody_uses=nobody_uses)

    def back_needs(self, place: Facts) -> Mapping[Path, int]:
        return foresight.back_needs(Place.of(place))

    def switch_room(self, place: Facts) -> SwitchRoom:
        return foresight.switch_room(Place.of(place))

    def switch(self, place: Facts, log: SwitchLog) -> None:
        self._switching(place, log).to_restored()

    def switch_back(self, place: Facts, log: SwitchLog) -> None:
        self._switching(place, log).to_before()

    def probe(self, place: Facts, expected: StoreRecord) -> None:
        """The live file answers, with the tables and the rows that the set says, unless others have it open and may write."""
        live = Place.of(place).live
        with databases.explained(live), closing(databases.open_read_only(live)) as connection:
            found, schema = contents.counts(connection), contents.schema_digest(connection)
        if found == dict(expected.counts) and schema == expected.digests.get(contents.SCHEMA):
            return
        missing = sorted(set(expected.counts) - set(found))
        if missing:
            raise Failed(f"{live} has no table {missing[0]}, which the set has")
        if not may_be_used(live):
            wrong = [name for name, count in expected.counts.items() if found[name] != count]
            raise Failed(f"{live} does not hold what the set holds: {wrong[0] if wrong else 'its schema'} differs")

    def discard_stage(self, place: Facts) -> None:
        names = Place.of(place)
        remove(names.stage)
        remove(names.near)

    def discard_old(self, place: Facts) -> None:
        names = Place.of(place)
        remove(names.old)
        remove(names.aside)
        if names.live.exists() and not names.raw:
            drop_markers(names.live)

    def _switching(self, place: Facts, log: SwitchLog) -> Switching | Moving:
        names, nobody_uses = Place.of(place), self._surroundings.nobody_uses
        if names.raw:
            return Moving(names, log, nobody_uses=nobody_uses)
        return Switching(names, log, nobody_uses=nobody_uses, patience_s=self._patience_s)

    def _give_away(self, path: Path, details: Mapping[str, object]) -> None:
        os.chmod(path, int(str(details["mode"]), 8))
        if os.geteuid() == 0 and not self._surroundings.no_owners:
            os.chown(path, int(str(details["uid"])), int(str(details["gid"])))


class SqliteCopy(SqliteStore):
    """A set's database in a scratch directory; `written_by` is the version of SQLite that the set names."""

    def __init__(self, name: str, declared: SqliteModel, surroundings: Surroundings, written_by: str) -> None:
        super().__init__(name, declared, surroundings)
        self._written_by = written_by

    def content(self) -> Content:
        """Every page and every row is read."""
        with foresight.telling_newer(self._written_by):
            return _read_whole(self._live)

    def fingerprint(self) -> str:
        with databases.explained(self._live), closing(databases.open_read_only(self._live)) as connection:
            contents.refuse_damage(connection, str(self._live))
            return json.dumps(contents.read(connection).digests)

    def lend(self, user: User | None) -> None:
        lending.give(self._live, user)


def _copy_snapshot(connection: sqlite3.Connection, target: Path) -> None:
    with closing(databases.make(target)) as copy:
        databases.copy_pages(connection, copy)
        copy.execute("pragma journal_mode=delete").fetchone()


def _loaded(artefact: Path, copy: Path) -> Content:
    """Copy an artefact, and read every page and every row of the copy."""
    rawcopy.copy_file(artefact, copy)
    durable.sync_file(copy)
    return _read_whole(copy)


def _read_whole(copy: Path) -> Content:
    with databases.explained(copy), closing(databases.open_sealed(copy)) as connection:
        contents.refuse_damage(connection, str(copy))
        return contents.read(connection)


def _warnings(live: Path, dangling: Mapping[str, int | str]) -> list[Problem]:
    return [
        Problem(
            f"{live}: {count} rows of {table} refer to rows that are not there"
            if isinstance(count, int)
            else f"{live}: the foreign keys of {table} cannot be checked: {count}",
            Severity.WARNING,
            next=f"sqlite3 {live} 'pragma foreign_key_check'",
        )
        for table, count in dangling.items()
    ]

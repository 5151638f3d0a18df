"""A Chroma directory as a store: what every verb of `stores.protocol.Store` means for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from storekeeper.host import clock, durable, holders
from storekeeper.host.processes import User
from storekeeper.outcomes import Failed, Problem, Refused, Severity, Unknown
from storekeeper.runtimes.protocol import Runtime
from storekeeper.stack.model import ChromaModel
from storekeeper.stack.rules import Rows
from storekeeper.stores import lending, marks
from storekeeper.stores.chroma import (
    catalogue,
    checking,
    content,
    dumping,
    emptying,
    examining,
    identities,
    layout,
    proof,
    rawtree,
    speaking,
    staging,
)
from storekeeper.stores.chroma.checking import DatabaseCheck
from storekeeper.stores.chroma.clients import Served, embedded
from storekeeper.stores.chroma.hold import ChromaHold
from storekeeper.stores.chroma.mending import ChromaMender
from storekeeper.stores.chroma.place import Place, is_empty
from storekeeper.stores.chroma.recorded import Recorded
from storekeeper.stores.chroma.server import Server
from storekeeper.stores.examination import Examination, InUse
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import CollectionSource, Identity, Remarks, Source
from storekeeper.stores.mending import Mender
from storekeeper.stores.protocol import Before, Content, Dumped, Facts, Foresight, Inspection, Look, Part, Rescued, SwitchLog, SwitchRoom
from storekeeper.stores.questions import Answer, Question
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.surroundings import Surroundings

_SECONDS_TO_SWITCH = 1.0  # stop, exchange and start of a small server: measured 0.57 s
_SWITCHING = "switching"


class ChromaStore:
    """One declared Chroma directory, kept embedded or by a server. The live directory is never opened with a client."""

    kind: ClassVar[str] = "chroma"
    needs_stopped: ClassVar[bool] = True
    copies_parts: ClassVar[bool] = False

    def __init__(self, name: str, declared: ChromaModel, surroundings: Surroundings, runtime: Runtime | None) -> None:
        self._name = name
        self._path = declared.path
        self._python = declared.python
        self._server = Server(declared.url) if declared.url is not None else None
        self._surroundings = surroundings
        self._runtime = runtime
        self._switched_at: datetime | None = None
        self._running: dict[str, DatabaseCheck] = {}  # by the digest of the directory that this object wrote

    @property
    def name(self) -> str:
        return self._name

    @property
    def mends_alone(self) -> bool:
        """An embedded directory bears one client."""
        return self._server is None and self._runtime is None

    @property
    def runtime(self) -> Runtime | None:
        return self._runtime

    def preflight(self) -> Sequence[Problem]:
        self._directory()
        if self._server is not None:
            self._server.heartbeat()
        for path in (self._path, self._path / layout.DATABASE):
            if not os.access(path, os.R_OK | os.W_OK):
                raise Refused(f"{path} may not be written to, which its lock needs", next="run as root, or as the directory's owner")
        with catalogue.open_catalogue(self._path, sealed=False) as live:
            live.collections()
            return dumping.newer(live.migrations())

    def look(self, before: Before | None = None) -> Look:  # noqa: ARG002 - all of it is copied before any of it is shared
        """The version is that of the directory's format."""
        try:
            found = layout.scan(self._directory())
            with catalogue.open_catalogue(self._path, sealed=False) as live:
                size = layout.size_of(found)
                return Look(catalogue.spoken(live.migrations()), size, adds=size)
        except (Failed, Refused, OSError, layout.NotRegular) as error:
            raise Unknown(f"the Chroma directory cannot be read: {error}") from error

    def inspect(self) -> Inspection:
        """The version is that of the directory's format; a server's own is in the facts."""
        try:
            found = layout.scan(self._directory())
            with catalogue.open_catalogue(self._path, sealed=False) as live:
                migrations, counts = live.migrations(), live.counts()
            facts: Facts = {"migrations": migrations}
            if self._server is not None:
                facts["server"] = self._server.version()
        except (Failed, Refused, OSError, layout.NotRegular) as error:
            raise Unknown(f"the Chroma directory cannot be read: {error}") from error
        return Inspection(catalogue.spoken(migrations), layout.size_of(found), counts, facts)

    def is_absent(self) -> bool:
        """No such directory, or an empty one. Raises Unknown where that cannot be seen."""
        try:
            return is_empty(self._path)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise Unknown(f"whether there is a Chroma directory at {self._path} cannot be seen: {error.strerror}") from error

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        if not isinstance(source, CollectionSource):
            raise TypeError(f"a Chroma directory has no {type(source).__name__}")
        return identities.live(self._directory(), source, remarks)

    def mark(self, source: Source) -> str | None:  # noqa: ARG002 - all collections are in one database
        return marks.of_database(self._path / layout.DATABASE)

    def dumped_identities(
        self,
        hold: ChromaHold,  # noqa: ARG002 - the copy in the set is the pinned moment
        folder: Path,
        source: Source,
        remarks: Remarks,
    ) -> Iterator[Identity]:
        if not isinstance(source, CollectionSource):
            raise TypeError(f"a Chroma directory has no {type(source).__name__}")
        return identities.sealed(folder / dumping.CONTENT, source, remarks)

    @contextmanager
    def mender(self, source: Source, rows: Sequence[Rows], token: str, *, only_look: bool = False) -> Iterator[Mender]:  # noqa: ARG002 - the protocol's
        """Through the server where there is one; else through the application's own chromadb, while nobody has the directory open. Whoever
        only looks reads no vectors, and where services will be stopped for the change, they may run on meanwhile."""
        if not isinstance(source, CollectionSource):
            raise TypeError(f"a Chroma directory has no {type(source).__name__}")
        directory = self._directory()
        if self._server is not None:
            self._server.heartbeat()
            yield ChromaMender(self._surroundings.stack, directory, source, Recorded(directory) if only_look else Served(self._server))
            return
        if self._runtime is not None:
            raise Refused("a server keeps the directory, and nothing says where it answers", next=f"declare the `url:` of {self._name}")
        if not (only_look and self._surroundings.services_stop) and (who := self._held()) is not None:
            raise Refused(f"{who}: chunks can only be removed by who uses the directory, or while nobody does", next="stop the application")
        if only_look:
            yield ChromaMender(self._surroundings.stack, directory, source, Recorded(directory))
            return
        with embedded(directory, self._python) as client:
            yield ChromaMender(self._surroundings.stack, directory, source, client)

    def forget_taken(self, token: str) -> None:
        """Nothing: what was taken is kept with the repair's plan."""

    def answer(self, question: Question) -> Answer:
        raise TypeError(f"a Chroma directory answers no query: {question.query[:60]}")

    def examine(self, work: Path) -> Examination:
        return examining.examine(self._directory(), work)

    def users(self) -> Sequence[InUse]:
        raise Refused("Chroma uses the directory as a whole: stop what has it open")

    def rescue(self, into: StoreFolder, work: Path) -> Rescued:  # noqa: ARG002 - the protocol's
        raise Refused(f"{self._path} is a Chroma directory: its vectors are in no table, and nothing makes them anew from what is left")

    def hold(self, work: Path) -> ChromaHold:
        return ChromaHold(self._path, work)

    def begin_dump(self, hold: Any, into: StoreFolder) -> bool:  # noqa: ARG002 - no program is needed
        return False

    def dump(self, hold: Any, into: StoreFolder) -> Dumped:
        dumped, running = dumping.dump(hold, self._path, into)
        self._running[dumped.digests[content.DIGEST]] = running
        return dumped

    def empty(self, into: StoreFolder, work: Path, keep: Sequence[str] | None, instead: Before | None) -> Dumped:  # noqa: ARG002 - no tables
        live = self._directory()
        source = live if instead is None else instead.folder / dumping.CONTENT
        return emptying.empty(live, source, into, work, sealed=instead is not None)

    @property
    def address(self) -> str:
        return str(self._path)

    def passfile_line(self) -> None:
        return None

    def verify(self, folder: Path, record: StoreRecord) -> None:
        """What this object wrote was checked from the dump on: reading back has just found the same bytes in the set."""
        digest = content.digest_of_listing(folder / dumping.LISTING)
        if dict(record.digests) != {content.DIGEST: digest}:
            raise Failed(f"{dumping.LISTING} lists other files than the manifest says: {digest}")
        running = self._running.pop(digest, None)
        if running is not None:
            running.result()
        elif (counts := checking.check(folder / dumping.CONTENT)) != dict(record.counts):
            raise Failed(f"the directory holds {counts}, the manifest says {dict(record.counts)}")

    @contextmanager
    def copy(self, folder: Path, record: StoreRecord, scratch: Path, part: Part | None = None) -> Iterator[ChromaCopy]:  # noqa: ARG002 - the protocol's
        interpreter = speaking.interpreter(self._python, "the set could not be tried")
        path = scratch / "directory"
        declared = ChromaModel(kind="chroma", path=path, python=interpreter)
        try:
            proof.copy_directory(folder / dumping.CONTENT, path)
            yield ChromaCopy(self._name, declared, replace(self._surroundings, nobody_uses=True), folder / dumping.CONTENT)
        finally:
            for each in (path, path.with_name("blank")):
                durable.remove_tree(each)

    def raw_bytes(self) -> int:
        return rawtree.bytes_of(self._directory())

    def raw_copy(self, into: StoreFolder) -> Facts:
        return rawtree.copy(self._directory(), into)

    def foresee(self, folder: Path, record: StoreRecord, stage_dir: Path | None, *, raw: bool = False) -> Foresight:  # noqa: ARG002 - the protocol's
        is_asked = not raw and not self.is_absent()
        place = Place.named(self._name, self._path, "0" * 8, stage_dir)
        self._refuse_elsewhere(place)
        problems = self._users() if raw or is_asked else []
        if not record.is_raw:
            self._refuse_ahead(record, absent=not is_asked)
        counts_now = self.inspect().counts if is_asked else None
        return Foresight(counts_now, record.counts, {place.stage.parent: record.bytes}, _SECONDS_TO_SWITCH, problems)

    def place(self, token: str, stage_dir: Path | None, *, raw: bool = False) -> Facts:  # noqa: ARG002 - a directory is moved, readable or not
        return Place.named(self._name, self._path, token, stage_dir).to_facts()

    def begin_stage(self, folder: Path, record: StoreRecord, place: Facts) -> None:  # noqa: ARG002 - no program is needed
        return None

    def stage(self, folder: Path, record: StoreRecord, place: Facts) -> Content:
        target = Place.of(place)
        return staging.stage(folder, record, target.stage, target.live, keep_owners=not self._surroundings.no_owners)

    def refuse_holders(self, place: Facts) -> None:  # noqa: ARG002 - the protocol's
        if (who := self._held()) is not None:
            raise Failed(f"{who} and would go on using it after the switch")

    def back_needs(self, place: Facts) -> Mapping[Path, int]:  # noqa: ARG002 - the protocol's
        """Nothing: names are exchanged."""
        return {}

    def switch_room(self, place: Facts) -> SwitchRoom:  # noqa: ARG002 - the protocol's
        """Nothing but a name in the directories where they are exchanged."""
        return SwitchRoom(passing={str(self._path.parent): 0})

    def switch(self, place: Facts, log: SwitchLog) -> None:
        self._note_moment(log)
        Place.of(place).switch(log)

    def switch_back(self, place: Facts, log: SwitchLog) -> None:
        self._switched_at = clock.now()
        Place.of(place).switch_back(log)

    def probe(self, place: Facts, expected: StoreRecord) -> None:
        """A server that was not restarted reads the old directory on, and answers: so its start is compared with the switch."""
        with catalogue.open_catalogue(self._path, sealed=False) as live:
            counts, collections = live.counts(), live.collections()
        _compare(counts, expected.counts)
        self._check_restarted(place)
        if self._server is None:
            return
        self._server.wait()
        for collection in collections:
            if collection.key in expected.counts and self._server.count(collection) is None:
                raise Failed(
                    f"the server does not know the restored collection {collection.key}: it reads another directory", next=self._restart
                )

    def discard_stage(self, place: Facts) -> None:
        durable.remove_tree(Place.of(place).stage)

    def discard_old(self, place: Facts) -> None:
        durable.remove_tree(Place.of(place).old)

    @property
    def _restart(self) -> str:
        return f"restart {self._runtime.label}" if self._runtime is not None else "restart the Chroma server"

    def _directory(self) -> Path:
        if self._path.is_symlink():
            raise Refused(
                f"{self._path} is a symbolic link, which could not be exchanged", next=f"declare `path: {os.path.realpath(self._path)}`"
            )
        if not self._path.is_dir():
            raise Failed(f"there is no Chroma directory at {self._path}")
        return self._path

    def _refuse_elsewhere(self, place: Place) -> None:
        """A directory is made live by a change of names, which needs one file system."""
        if self._path.is_symlink():
            self._directory()
        live = self._path if place.inside else self._path.parent
        try:
            same = os.stat(place.stage.parent).st_dev == os.stat(live).st_dev
        except FileNotFoundError as error:
            raise Refused(f"{error.filename} is not there, so nothing can be staged in it", next=f"mkdir -p {error.filename}") from error
        if not same:
            raise Refused(
                f"{place.stage.parent} is on another file system than {live}: a staged Chroma directory could not be made live from there",
                next="restore without --stage-dir",
            )

    def _users(self) -> list[Problem]:
        """A warning where somebody uses the directory who may end with the services. Raises Refused where nobody stops who uses it:
        who has it open goes on using the old one.
        """
        who = None if self._runtime is not None else self._held()
        if who is None:
            return []
        if self._surroundings.services_stop:
            return [Problem(f"{who}: the restore goes back unless it ends with the services", Severity.WARNING)]
        raise Refused(f"{who} and would go on using the old directory", next=f"stop it, or declare the `runtime:` of {self._name}")

    def _held(self) -> str | None:
        """Who has something of the directory open now. Raises Unknown where that cannot be seen, unless a person vouched for it, or its
        runtime was stopped.
        """
        try:
            found = holders.holders_of([self._path], except_pids={os.getpid()})
        except Unknown:
            if self._surroundings.nobody_uses or self._runtime is not None:
                return None
            raise
        return f"pid {found[0].pid} ({found[0].program}) has {found[0].path} open" if found else None

    def _refuse_ahead(self, record: StoreRecord, *, absent: bool) -> None:
        """An older Chroma opens a newer directory silently and reads it wrongly."""
        wanted: catalogue.Migrations = dict(record.details["migrations"])
        known, whose = catalogue.KNOWN, f"chromadb {catalogue.KNOWN_VERSION} knows"
        if not absent:
            with catalogue.open_catalogue(self._path, sealed=False) as live:
                known, whose = live.migrations(), "the live directory has"
        if catalogue.ahead_of(wanted, known):
            said = f"the set has migrations {catalogue.spoken(wanted)}, {whose} {catalogue.spoken(known)}"
            raise Refused(
                f"the set is from a newer Chroma: {said}", next="update the application's chromadb, and let it open the directory once"
            )

    def _note_moment(self, log: SwitchLog) -> None:
        noted = log.noted(_SWITCHING)
        if noted is None:
            self._switched_at = clock.now()
            log.note(_SWITCHING, at=clock.rfc3339(self._switched_at))
        else:
            self._switched_at = clock.parse_rfc3339(str(noted["at"]))

    def _check_restarted(self, place: Facts) -> None:
        if self._runtime is None:
            return
        started = self._runtime.started_at()
        if started is None:
            raise Failed(f"{self._runtime.label} does not run", next=f"start {self._runtime.label}")
        switched = self._switched_at or _renamed_at(Place.of(place).old)
        if switched is not None and started < switched:
            said = f"{self._runtime.label} runs since {clock.rfc3339(started)}, before the switch at {clock.rfc3339(switched)}"
            raise Failed(f"{said}: it reads the old directory on", next=self._restart)


class ChromaCopy(ChromaStore):
    """A set's directory in a scratch directory; `directory` is the one of the set, which nobody changes."""

    def __init__(self, name: str, declared: ChromaModel, surroundings: Surroundings, directory: Path) -> None:
        super().__init__(name, declared, surroundings, None)
        self._directory_of_set = directory

    def content(self) -> Content:
        """Every document is asked of Chroma, which changes the copy's files: to be called once."""
        return proof.read_back(self._directory_of_set, self._path, speaking.interpreter(self._python, "the set could not be tried"))

    def fingerprint(self) -> str:
        return lending.fingerprint_of_tree(self._path)

    def lend(self, user: User | None) -> None:
        lending.give(self._path, user)


def _renamed_at(old: Path) -> datetime | None:
    """When the old side got its name: a rename is the last that changed it."""
    try:
        return datetime.fromtimestamp(os.stat(old).st_ctime_ns / 1e9, UTC)
    except FileNotFoundError:
        return None


def _compare(found: dict[str, int], expected: Any) -> None:
    """The restored collections are there. Who runs again may have written since, so numbers only have to be plausible."""
    for key, count in expected.items():
        if key not in found:
            raise Failed(f"collection {key} is not in the live directory")
        if count > 0 and found[key] == 0:
            raise Failed(f"collection {key} is empty, {count} documents were restored")

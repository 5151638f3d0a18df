"""What every kind of store promises, so that no code above ever asks what kind it is.

A backup walks `preflight`, `look`, `hold` (prepare, pin, copy, release), `dump`, `verify`; a proof reads a `copy`; a restore walks
`foresee`, `place`, `stage`, `refuse_holders`, `switch`, `probe`, and the reverse `switch_back`, `discard_stage`, `discard_old`. What
cannot be read has a `raw_copy`. A check of what stores must agree on reads `identities`, unless their `mark` stayed the
same, a backup `dumped_identities`; a declared query is asked by `answer`.
Every method raises a StorekeeperError whose sentence says what was found; none returns a default for what it could not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from storekeeper.host.processes import User
from storekeeper.outcomes import Problem
from storekeeper.runtimes.protocol import Runtime
from storekeeper.stack.rules import Rows
from storekeeper.stores.examination import Examination, InUse
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, Remarks, Source
from storekeeper.stores.mending import Mender
from storekeeper.stores.questions import Answer, Question
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.rescue import TableRescue

Facts = dict[str, Any]  # JSON-able values only


class PinOrder(IntEnum):
    """When a store's moment is pinned: locks that stop writers first, then snapshots, then listings."""

    WRITE_LOCK = 1
    SNAPSHOT = 2
    LISTING = 3


@dataclass(frozen=True)
class Look:
    """That a store answers, in which version, and its size on disk: what can be had without reading all of it.

    `adds` is what a set taken now would have to write, less what it can share with the set before.
    """

    version: str
    bytes: int
    adds: int


@dataclass(frozen=True)
class Before:
    """The same store in the set before: its folder there, and its record."""

    folder: Path
    record: StoreRecord


@dataclass(frozen=True)
class Inspection:
    """A store as it is now. `bytes` is its size on disk, `counts` are rows, vectors or files by object."""

    version: str
    bytes: int
    counts: Mapping[str, int]
    facts: Facts = field(default_factory=dict)


class Hold(Protocol):
    """One store's grip on one moment. Used in this order; `close` always comes, also after a failure or a signal.

    The walk of all stores is: prepare each; pin each in PinOrder; copy each; release each in the reverse order; then the
    slow dumps. So everything that can be slow belongs in `prepare` or in the store's `dump`.
    """

    order: PinOrder

    def prepare(self) -> None:
        """All that needs no lock on writers: connect, take shared table locks, start the helper, copy in a first pass."""

    def pin(self) -> datetime:
        """Pin the moment and say when it was. Bounded in time; raises Failed when the lock cannot be had."""

    def copy(self) -> None:
        """Copy what only the lock protects, and nothing else."""

    def release(self) -> None:
        """Let writers go on. Snapshots stay. Raises Failed when the lock had been lost before: the copy is then worthless."""

    def close(self) -> None:
        """Let go of everything and remove the hold's own temporary files. Safe to repeat and from any state."""

    @property
    def pause_ms(self) -> float:
        """How long writers were blocked, in milliseconds; 0.0 for snapshots and listings."""


@dataclass(frozen=True)
class Dumped:
    """What a dump wrote: the counts and digests of exactly the pinned moment. Artefacts are recorded by the folder."""

    klass: str  # snapshot, locked-copy, listed-copy: the manifest's `class`
    counts: Mapping[str, int]
    digests: Mapping[str, str]
    details: Facts = field(default_factory=dict)
    problems: Sequence[Problem] = ()


@dataclass(frozen=True)
class Rescued:
    """A database made anew of what a damaged one still holds: `damages` is what is wrong with that one, `unplaced` are rows on pages that
    nothing leads to any more and that may be of several tables. `notes` are sentences about what else may differ.
    """

    dumped: Dumped
    damages: Sequence[str]
    tables: Mapping[str, TableRescue]
    unplaced: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Content:
    """Counts and digests found in a scratch or staged copy, for comparison with a set's record."""

    counts: Mapping[str, int]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class SwitchRoom:
    """Bytes by directory: kept when a switch is over, kept when the way back from it is over, and used while either runs."""

    there: Mapping[str, int] = field(default_factory=dict)
    back: Mapping[str, int] = field(default_factory=dict)
    passing: Mapping[str, int] = field(default_factory=dict)

    @property
    def directories(self) -> list[str]:
        return list({**self.there, **self.back, **self.passing})

    def to_json(self) -> Facts:
        return {"there": dict(self.there), "back": dict(self.back), "passing": dict(self.passing)}

    @classmethod
    def from_json(cls, document: Facts) -> SwitchRoom:
        return cls(document["there"], document["back"], document["passing"])


@dataclass(frozen=True)
class Foresight:
    """What a restore of one store would do: rows now and after, space by directory, seconds that the store does not answer."""

    counts_now: Mapping[str, int] | None  # None: there is no live store (absent), or it cannot be read (`raw`)
    counts_after: Mapping[str, int]
    bytes_needed: Mapping[Path, int]
    downtime_s: float
    problems: Sequence[Problem] = ()


@dataclass(frozen=True)
class Part:
    """What of a set is wanted where not all of it is: one document, in these places of a store."""

    document: str
    sources: Sequence[Source]


class SwitchLog(Protocol):
    """The part of a restore's journal that belongs to one store."""

    def note(self, step: str, **facts: Any) -> None:
        """Write a step down; it is durable when this returns. Written before the change it announces."""

    def noted(self, step: str) -> Facts | None:
        """The facts of the last note of that step, also from before a crash; None when it was never reached."""


class Store(Protocol):
    """One declared store of a stack."""

    kind: ClassVar[str]
    needs_stopped: ClassVar[bool]  # its own runtime is stopped for a switch (a Chroma server reads the old directory on)
    copies_parts: ClassVar[bool]  # `copy` takes of a part's files only what is wanted, and compares it with the listing itself

    @property
    def name(self) -> str: ...

    @property
    def mends_alone(self) -> bool:
        """Whether documents are removed and put back only while nobody else has the store open: the stack's services are stopped then."""

    @property
    def runtime(self) -> Runtime | None: ...

    def preflight(self) -> Sequence[Problem]:
        """Look for all that would make a backup fail later: programs, versions, rights. Changes nothing.

        Returns warnings; raises Refused (a program is missing or too old, a secret is unreadable) or Failed (it does not answer).
        """

    def look(self, before: Before | None = None) -> Look:
        """Is it up, which version, how big, how much of it the set `before` does not hold: an answer or an error (Unknown), never an empty
        default. Reads no rows."""

    def inspect(self) -> Inspection:
        """The same with how many of what, which reads every table, collection or directory: an answer or an error (Unknown)."""

    def is_absent(self) -> bool:
        """True only when it is certain that there is nothing: no such file, directory or database on a server that answered."""

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        """Which documents a declared place of this store holds now: those of one moment, in no order, several perhaps with one id, whose
        counts are to be added up. Read to its end at once: writers may wait until then.

        Raises Refused for a place that is declared wrongly (no such column, a query that writes), Unknown or Failed where it cannot be
        read; nothing is ever empty because it could not be looked at.
        """

    def mark(self, source: Source) -> str | None:
        """A word that is another whenever `identities` of that place may be other ones: it is the same before a reading and after it, and
        the same later, only where nothing came between that could be read. None where nobody can promise that, also for want of time.
        """

    def dumped_identities(self, hold: Any, folder: Path, source: Source, remarks: Remarks) -> Iterator[Identity]:
        """The same of the pinned moment, from the hold or from what `dump` has just written into `folder`: between `dump` and `close`."""

    def mender(self, source: Source, rows: Sequence[Rows], token: str, *, only_look: bool = False) -> AbstractContextManager[Mender]:
        """What removes documents of a place and puts them back. `token` is 8 hexadecimal digits, the repair's own. With `only_look` the
        store is not opened for changes; vectors are not read then.

        Raises Refused where nothing can be removed safely here: no rows are declared, or an embedded directory is in use.
        """

    def forget_taken(self, token: str) -> None:
        """Remove what the mender of a repair with this token has taken and kept beside the store, when its time is over. Safe to repeat."""

    def answer(self, question: Question) -> Answer:
        """What a declared query finds now, in a transaction that can only read, within bounds of time, rows and bytes.

        Raises Refused for a query that does not run or would do more than read, Failed for one that takes too long, Unknown or Failed where
        the store cannot be read. Only of databases: a stack file with a query to another store is refused.
        """

    def examine(self, work: Path) -> Examination:
        """Look at every page, row, index, vector or file, and change nothing: what is wrong is a flaw, and no error.

        `work` is an empty private directory for copies of what could not be read for so long while it is live. Raises Unknown or Failed
        where nothing can be said at all.
        """

    def users(self) -> Sequence[InUse]:
        """The other processes that have the store's own file open, and who holds which lock. Raises Unknown where that cannot be seen, and
        Refused for a store whose files no lock of a process guards.
        """

    def hold(self, work: Path) -> Hold:
        """A grip on the store's moment, not yet taken.

        `work` is an empty private directory in the set's partial, for copies made under a lock; it exists until `close`, and
        `StoreFolder.adopt` moves files from it into the set without another copy.
        """

    def begin_dump(self, hold: Any, into: StoreFolder) -> bool:
        """Start what programs write by themselves, after every lock is released; the hold ends them when it is closed.

        True where something is on its way: the other stores are dumped first, and `dump` waits for the rest of it.
        """

    def dump(self, hold: Any, into: StoreFolder) -> Dumped:
        """Write the artefacts of the pinned moment into the set's folder. `begin_dump` was called with the same before."""

    def empty(self, into: StoreFolder, work: Path, keep: Sequence[str] | None, instead: Before | None) -> Dumped:
        """Write artefacts as `dump` does, of this store with its schema and nothing in it: what `stage` makes of them answers as the live
        one does, and holds no row but those of the tables in `keep`. Where that is None, nothing of the application's is left in a
        database, no table either; what it was given from outside stays. The live store is read, and not changed.

        `work` is an empty private directory beside `into`. `instead` is the store in a good set, where the live one cannot be read: the
        schema is taken from there. Raises Refused for a table in `keep` that is not there, and where nothing empty can be made.
        """

    def rescue(self, into: StoreFolder, work: Path) -> Rescued:
        """Write artefacts as `dump` does, of all that can still be read of a damaged store. The live store is only copied, byte by byte.

        `work` is an empty private directory beside `into`. Raises Refused for a store that is whole, of which not even the schema can be
        read, or of a kind that cannot be made anew from what is left; Failed where somebody writes to it all the time.
        """

    @property
    def address(self) -> str:
        """Where a program finds the store: a path, or for a server what libpq reads, without a password."""

    def passfile_line(self) -> str | None:
        """The line of libpq's password file that `address` needs; None where no password is declared. Raises Refused as secrets do."""

    def verify(self, folder: Path, record: StoreRecord) -> None:
        """Decode every artefact (their sha256 has been compared already); raise Failed on the first that would not restore."""

    def copy(self, folder: Path, record: StoreRecord, scratch: Path, part: Part | None = None) -> AbstractContextManager[Copy]:
        """A set's part of this store, restored into an empty scratch directory and opened there; gone after the block with all that
        was started for it. With `part` no more needs to be there. Unknown when it cannot be tried here.
        """

    def raw_bytes(self) -> int:
        """How much `raw_copy` would copy. Raises Refused where no raw copy can be made, such as of files that belong to a server."""

    def raw_copy(self, into: StoreFolder) -> Facts:
        """Copy the live files as they are, for a store that cannot be read; returns the `details` of its record.

        Nothing is decoded. What cannot be copied either is named in the details. Raises Failed when something changed meanwhile.
        """

    def foresee(self, folder: Path, record: StoreRecord, stage_dir: Path | None, *, raw: bool = False) -> Foresight:
        """What `stage` and `switch` would do and need. Raises Refused when the restore would be unsafe: versions, rights, holders.

        Who holds what is live now is only a warning where services will be stopped (`Surroundings.services_stop`). With `raw` the
        live store cannot be read, and is not asked.
        """

    def place(self, token: str, stage_dir: Path | None, *, raw: bool = False) -> Facts:
        """The names that a restore with this token (8 hexadecimal digits) will use: stage, live and old side. Pure: touches nothing.

        With `raw` one of the two sides is known as files only: both are moved, and neither is opened.
        """

    def begin_stage(self, folder: Path, record: StoreRecord, place: Facts) -> AbstractContextManager[object] | None:
        """Start what programs load by themselves, so that other stores are staged meanwhile. It goes on until `stage`, or this, ends it."""

    def stage(self, folder: Path, record: StoreRecord, place: Facts) -> Content:
        """Load next to the live data, which is not touched, and read back what was loaded. Safe to repeat after a crash."""

    def refuse_holders(self, place: Facts) -> None:
        """Before the first switch, when all that is declared was stopped: raises Failed, Refused or Unknown where some process would go
        on using the side that is live now. Changes nothing.
        """

    def back_needs(self, place: Facts) -> Mapping[Path, int]:
        """Bytes by directory that `switch_back` needs after a switch, to keep what is live now."""

    def switch_room(self, place: Facts) -> SwitchRoom:
        """What a switch in either direction needs, asked before it begins: held, so that the disk cannot fill in the middle."""

    def switch(self, place: Facts, log: SwitchLog) -> None:
        """Make the staged data live and keep the old side. Safe to repeat after a crash at any point."""

    def switch_back(self, place: Facts, log: SwitchLog) -> None:
        """Make the old side live again and keep the other as the stage. Safe to repeat, and from before, during or after `switch`."""

    def probe(self, place: Facts, expected: StoreRecord) -> None:
        """After the services run again: the live store answers and holds what the stage held. Raises Failed."""

    def discard_stage(self, place: Facts) -> None:
        """Remove what was staged and is not live. Safe to repeat."""

    def discard_old(self, place: Facts) -> None:
        """Remove the old side, when its time is over. Safe to repeat."""


class Copy(Store, Protocol):
    """A store of the same kind that stands still in a scratch directory. It can be read: `identities`, `inspect`, `content`, and what its
    menders find."""

    def content(self) -> Content:
        """All of it read back, as it is compared with a set's record. Raises Failed for what is not whole."""

    def fingerprint(self) -> str:
        """The same text as before where nothing of the copy was changed meanwhile, its schema included."""

    def lend(self, user: User | None) -> None:
        """Let a user of the system change the copy: a command of the application is run on it. None is this program's own user."""

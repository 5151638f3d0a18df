"""One stack's sets: listed, named, held while they are used, begun and published.

A published set is a directory named by its id; nothing else in the stack's directory is one. There is no pointer to the latest:
it is computed, by sequence number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from storekeeper.host import clock, durable, locks
from storekeeper.outcomes import Busy, Failed, Refused
from storekeeper.sets.entry import Resolved, SetEntry, SetGone, read_entry
from storekeeper.sets.manifest import MANIFEST, Manifest
from storekeeper.sets.names import SetId, format_id, read_id, wanted
from storekeeper.sets.records import RECORDS, Records

__all__ = ["Partial", "Resolved", "SetEntry", "SetGone", "StackSets"]

TRASH = ".trash"
SEQUENCE = "sequence"
_PARTIAL = ".partial"
_TURN = 10.0  # seconds; a turn is taken for the moment between making a partial and locking it
_SETTLE = 1.0  # seconds: pruning tries a set's lock for an instant, and that must not look like its removal
_SHOWN = 5  # matches of an ambiguous name


class StackSets:
    """The sets of one stack, in `path`; `state` is the stack's own directory in the program's state."""

    def __init__(self, path: Path, stack: str, state: Path) -> None:
        self.path = path
        self.stack = stack
        self.state = state
        self.records = Records(path / RECORDS)

    @property
    def trash(self) -> Path:
        return self.path / TRASH

    def entries(self) -> list[SetEntry]:
        """All published sets, oldest first by sequence number, not by the clock. One manifest is read for each."""
        recorded = set(self.records.sets())  # most sets have none, and looking for each would be a tenth of a long listing's time
        listed = (
            read_entry(self.path / name, set_id, self.stack, self.records if name in recorded else None) for name, set_id in self.names()
        )
        return [entry for entry in listed if entry.has_manifest or _is_directory(entry.path)]  # one may be removed meanwhile

    def names(self) -> list[tuple[str, SetId]]:
        """What is named as a published set, oldest first by sequence number, not by the clock. Nothing of it is read."""
        found = sorted((parsed.sequence, parsed.time, name) for name, parsed in self._named(self.path))
        return [(name, SetId(time, sequence)) for sequence, time, name in found]

    def entry(self, set_id: str) -> SetEntry:
        """One set by its exact id. Raises SetGone when there is none."""
        parsed = read_id(set_id)
        if parsed is None or not _is_directory(self.path / set_id):
            raise SetGone(f"there is no set {set_id} of {self.stack}", next=f"storekeeper list {self.stack}")
        return read_entry(self.path / set_id, parsed, self.stack, self.records)

    def resolve(self, name: str, *, usable: bool = True) -> Resolved:
        """The set that a person means by `latest`, an id, a time or the start of an id.

        `latest` is the newest usable set, with the newer ones it passed over; with `usable=False` the newest of any state.
        Raises Refused for a hostile name, for none or several matches, and, unless `usable=False`, for a set that is no backup.
        """
        asked = wanted(name)
        entries = self.entries()
        matches = [each for each in entries if asked.matches(each.id)]
        exact = [each for each in matches if each.id == name]
        if asked.start is None:
            return self._latest(entries, usable=usable)
        if len(exact or matches) != 1:
            raise self._not_one(name, matches)
        (entry,) = exact or matches
        if usable and not entry.usable:
            why = f": {entry.reason}" if entry.reason else ""
            raise Refused(f"set {entry.id} of {self.stack} is {entry.state}{why}", next=f"storekeeper list {self.stack}")
        return Resolved(entry, ())

    def newest_usable(self) -> SetEntry | None:
        """The newest verified or proven set, which a new one is compared with and shares unchanged files with; None when there is none."""
        for name, set_id in reversed(self.names()):
            entry = read_entry(self.path / name, set_id, self.stack, self.records)
            if entry.usable:
                return entry
        return None

    @contextmanager
    def using(self, entry: SetEntry) -> Iterator[None]:
        """Keep a set from being removed while the block reads it. Raises SetGone when it has been removed, Busy while it is."""
        gone = SetGone(f"set {entry.id} of {self.stack} has been removed", next=f"storekeeper list {self.stack}")
        with ExitStack() as held:
            try:
                shared = held.enter_context(_held_within(_SETTLE, entry.path, shared=True))
            except FileNotFoundError:
                raise gone from None
            if not shared:
                raise Busy(f"set {entry.id} of {self.stack} is being removed", next=f"storekeeper list {self.stack}")
            # Removal holds the lock when it renames, and an id never comes again: what has its name now cannot be removed.
            if not _is_directory(entry.path):
                raise gone
            yield

    @contextmanager
    def begin(self, now: datetime) -> Iterator[Partial]:
        """Take the next number and make a locked, private partial. It is removed when the block ends without having published."""
        made: list[Partial] = []
        with ExitStack() as held:
            try:
                yield self._make_partial(now, held, made)
            except BaseException as error:  # also where the run is told to end while it is being made
                for partial in made:
                    partial.withdraw(error)
                raise
            made[0].withdraw(None)

    def _make_partial(self, now: datetime, held: ExitStack, made: list[Partial]) -> Partial:
        with self._turn():
            sequence = self._next_sequence()
            durable.ensure_directory(self.state)
            durable.write_file(self.state / SEQUENCE, f"{sequence}\n".encode())
            partial = Partial(self, format_id(now, sequence), sequence)
            made.append(partial)
            durable.make_directory(partial.path)
            if not held.enter_context(locks.hold_directory(partial.path)):
                raise Failed(f"{partial.path} was locked by somebody else as soon as it was made")
        return partial

    def sweep(self) -> list[str]:
        """Remove what runs that were killed have left, and name it. A partial whose lock is held is alive and is left alone."""
        if not _is_directory(self.path):
            return []
        with ExitStack() as held:
            with self._turn():
                dead = [name for name in self._partials() if held.enter_context(locks.hold_directory(self.path / name))]
            for name in dead:
                durable.remove_tree(self.path / name)
        return dead

    def in_trash(self) -> list[str]:
        """The ids of sets that were on their way out when a run was killed."""
        return sorted(name for name, _ in self._named(self.trash))

    def _latest(self, entries: list[SetEntry], *, usable: bool) -> Resolved:
        skipped: list[SetEntry] = []
        for entry in reversed(entries):
            if entry.usable or not usable:
                return Resolved(entry, tuple(skipped))
            skipped.append(entry)
        found = f"none of its {len(entries)} sets is usable" if entries else "there is no set"
        raise Refused(f"{found} of {self.stack}", next=f"storekeeper list {self.stack}" if entries else f"storekeeper backup {self.stack}")

    def _not_one(self, name: str, matches: list[SetEntry]) -> Refused:
        if not matches:
            return Refused(f"no set of {self.stack} is named {name}", next=f"storekeeper list {self.stack}")
        shown = ", ".join(each.id for each in matches[-_SHOWN:])
        more = f" and {len(matches) - _SHOWN} older" if len(matches) > _SHOWN else ""
        return Refused(f"{len(matches)} sets of {self.stack} are named {name}: {shown}{more}", next=f"storekeeper list {self.stack}")

    def _next_sequence(self) -> int:
        numbers = [parsed.sequence for folder in (self.path, self.trash) for _, parsed in self._named(folder)]
        numbers += [parsed.sequence for name in self._partials() if (parsed := read_id(_id_of_partial(name)))]
        return 1 + max([self._remembered_sequence(), *numbers])

    def _remembered_sequence(self) -> int:
        path = self.state / SEQUENCE
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0
        if not (text.isascii() and text.isdecimal() and len(text) <= 12):
            raise Refused(f"{path} holds no sequence number", next=f"rm {path}")
        return int(text)

    def _partials(self) -> list[str]:
        if not _is_directory(self.path):
            return []
        with os.scandir(self.path) as found:
            return sorted(each.name for each in found if read_id(_id_of_partial(each.name)) and each.is_dir(follow_symlinks=False))

    def _named(self, folder: Path) -> Iterator[tuple[str, SetId]]:
        """The directories in a folder that are named by an id. A folder that was never made holds none."""
        try:
            found = os.scandir(folder)
        except FileNotFoundError:
            return
        with found:
            for each in found:
                if (parsed := read_id(each.name)) and each.is_dir(follow_symlinks=False):
                    yield each.name, parsed

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time in the stack's directory, for moments only: so no partial is ever seen between its making and its lock."""
        durable.ensure_directory(self.path)
        with _held_within(_TURN, self.path) as held:
            if not held:
                raise Busy(f"{self.path} has been locked by another run for {_TURN:g} s", next="storekeeper jobs")
            yield


class Partial:
    """A set in the making, in a private directory that this run alone holds."""

    def __init__(self, sets: StackSets, id: str, sequence: int) -> None:
        self.id = id
        self.sequence = sequence
        self.path = sets.path / f".{id}{_PARTIAL}"
        self._sets = sets
        self._published = False

    def publish(self, manifest: Manifest) -> SetEntry:
        """Write the manifest and give the set its name, durably, in one step. Whoever sees the name sees all of it.

        What the stores wrote is durable before: `StoreFolder.seal`.
        """
        if (manifest.id, manifest.sequence, manifest.stack) != (self.id, self.sequence, self._sets.stack):
            raise ValueError(f"the manifest of {manifest.stack}/{manifest.id} is not that of {self._sets.stack}/{self.id}")
        durable.write_file(self.path / MANIFEST, manifest.to_bytes(), durable.SEALED_FILE)
        durable.rename(self.path, self._sets.path / self.id)
        self._published = True
        return self._sets.entry(self.id)

    def withdraw(self, error: BaseException | None) -> None:
        """Remove what was not published, and what was named but not made durable. What cannot be removed is said with `error`."""
        if self._published:
            return
        try:
            final = self._sets.path / self.id
            if _is_directory(final):
                os.rename(final, self.path)
            durable.remove_tree(self.path)
        except OSError as problem:
            if error is None:
                raise
            error.add_note(f"{self.path} could not be removed: {problem}")


@contextmanager
def _held_within(seconds: float, path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold a directory, trying for this long; yields False when it could not be had."""
    deadline = clock.monotonic() + seconds
    while True:
        with locks.hold_directory(path, shared=shared) as held:
            if held or clock.monotonic() > deadline:
                yield held
                return
        time.sleep(0.02)


def _id_of_partial(name: str) -> str:
    return name[1 : -len(_PARTIAL)] if name.startswith(".") and name.endswith(_PARTIAL) else ""


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()

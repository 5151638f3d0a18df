"""The journal of one restore: append-only JSON lines, each durable before what it announces is done.

A journal is one file, STATE/journals/TOKEN.jsonl. It is unfinished until its `closed` line; at most one is. A last line that a
power cut tore was never acknowledged and is dropped; damage anywhere else is said, never guessed around.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, formats, locks, space
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.protocol import Facts

FORMAT = 1
STEPS: Mapping[int, formats.Step] = {}  # from each older format to the next, for one line
_RESERVED = 1 << 18  # bytes: a disk that is full half way must not keep the way back from being written down
_FOLDER = "journals"
_NAME = re.compile(r"[0-9a-f]{8}\.jsonl")


class Step(StrEnum):
    """The steps of a walk, in the order of a restore that succeeds, then those of the way back and of what comes later."""

    BEGUN = "begun"
    PLACED = "placed"  # a store's names, before anything is made under them
    SAVED = "saved"  # the safety set of a recovery or a migration, which is taken once services are stopped
    STAGED = "staged"
    ALL_STAGED = "all_staged"
    STOPPING = "stopping"  # which services and runtimes were running
    SWITCHING = "switching"  # a store, before its switch
    SWITCHED = "switched"
    SERVING = "serving"  # the stores' own servers run again
    PROBED = "probed"
    COMMAND = "command"  # a declared command of a reset, before it is run and when it has ended well
    STARTING = "starting"  # services, which may write from now on
    STARTED = "started"
    ABANDONING = "abandoning"  # before the first switch: only stages to remove
    GOING_BACK = "going_back"
    BACK = "back"  # a store has its side from before again
    CLOSED = "closed"
    EXPIRING = "expiring"  # the kept sides are about to be removed
    EXPIRED = "expired"
    NOTE = "note"  # a store's own step within its switch


@dataclass(frozen=True)
class Entry:
    """One line: a step, when, the store it is about where it is about one, and the facts that `resume` needs."""

    step: Step
    at: datetime
    store: str | None
    facts: Facts

    def to_line(self) -> bytes:
        document = {"step": self.step.value, "at": clock.rfc3339(self.at), "store": self.store, "facts": self.facts}
        return (json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Entry:
        """Raises KeyError, TypeError or ValueError for anything that `to_line` did not write."""
        store = document["store"]
        return cls(
            Step(document["step"]), clock.parse_rfc3339(document["at"]), None if store is None else str(store), dict(document["facts"])
        )


class Journal:
    """What one walk has done so far, and the only memory that `resume` has."""

    def __init__(self, path: Path, entries: list[Entry], size: int, format: int = FORMAT) -> None:
        self.path = path
        self._entries = entries
        self._size = size  # what is acknowledged; anything after it was torn
        self._format = format  # of the lines on disk

    @classmethod
    def create(cls, state: Path, facts: Mapping[str, Any]) -> Journal:
        """Begin a journal under a token of its own; `facts` names `purpose` and `stack`. Raises Refused while another is unfinished."""
        folder = state / _FOLDER
        durable.ensure_directory(folder)
        known = journals(state)
        refuse_unfinished(known)
        number = 1 + max((int(journal.begun["number"]) for journal in known), default=0)
        path = folder / f"{_unused_token(folder)}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, durable.PRIVATE_FILE)
        try:
            space.reserve(descriptor, _RESERVED)
        finally:
            os.close(descriptor)
        durable.sync_directory(folder)
        journal = cls(path, [], 0)
        journal.write(Step.BEGUN, **{**facts, "format": FORMAT, "number": number})
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read a journal back, without its torn last line. Raises NewerFormat, and Failed for damage. Writes nothing."""
        return cls(path, *_read(path))

    @property
    def is_begun(self) -> bool:
        """False where a crash came before the first line: then nothing else was done either."""
        return bool(self._entries)

    @property
    def token(self) -> str:
        return self.path.stem

    @property
    def state(self) -> Path:
        """The stack's own state directory."""
        return self.path.parent.parent

    @property
    def begun(self) -> Facts:
        return self._entries[0].facts

    @property
    def begun_at(self) -> datetime:
        return self._entries[0].at

    @property
    def purpose(self) -> str:
        """`restore`, `reset`, `recovery`, `back` or `migration`."""
        return str(self.begun["purpose"])

    @property
    def safety_set(self) -> str | None:
        """The set of what was live before; None where there was nothing to save, and in a migration that has not come so far."""
        found = (self.noted(Step.SAVED) or self.begun)["safety_set"]
        return None if found is None else str(found)

    @property
    def sequence(self) -> int:
        """The number of the newest set when it began, its safety set among them."""
        return int((self.noted(Step.SAVED) or self.begun)["sequence"])

    @property
    def is_closed(self) -> bool:
        return self.noted(Step.CLOSED) is not None

    def write(self, step: Step, store: str | None = None, **facts: object) -> None:
        """Append one line, in the place of a torn one where there is one; it is durable when this returns.

        A journal of an older format is written anew first, in one step: its lines are all of one format.
        """
        if self._format < FORMAT:
            self._write_anew()
        entry = Entry(step, clock.now(), store, facts)
        line = entry.to_line()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size > self._size:
                os.ftruncate(descriptor, self._size)
                with suppress(OSError):  # the blocks went with what was torn; this line may fit all the same
                    space.reserve(descriptor, _RESERVED)
            _write_all(descriptor, line, self._size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._entries.append(entry)
        self._size += len(line)

    def _write_anew(self) -> None:
        data = b"".join(entry.to_line() for entry in self._entries)
        durable.write_file(self.path, data)
        self._size, self._format = len(data), FORMAT

    def noted(self, step: Step, store: str | None = None) -> Facts | None:
        """The facts of the last line of that step (about that store, where one is named)."""
        found = self.entry(step, store)
        return found.facts if found is not None else None

    def entry(self, step: Step, store: str | None = None) -> Entry | None:
        for entry in reversed(self._entries):
            if entry.step is step and entry.store == store:
                return entry
        return None

    def stores(self, step: Step) -> list[str]:
        """The stores that reached a step, in the order in which they first did."""
        return list(dict.fromkeys(entry.store for entry in self._entries if entry.step is step and entry.store is not None))

    def notes(self, store: str) -> Iterator[Facts]:
        """A store's own notes, newest first."""
        return (entry.facts for entry in reversed(self._entries) if entry.step is Step.NOTE and entry.store == store)


class StoreLog:
    """The part of a journal that belongs to one store (`stores.protocol.SwitchLog`).

    `before` is the journal of the restore that is being undone: what the store noted then it finds again.
    """

    def __init__(self, journal: Journal, store: str, before: Journal | None = None) -> None:
        self._journal = journal
        self._store = store
        self._before = before

    def note(self, step: str, **facts: object) -> None:
        self._journal.write(Step.NOTE, self._store, note=step, facts=facts)

    def noted(self, step: str) -> Facts | None:
        for journal in (self._journal, self._before):
            for note in journal.notes(self._store) if journal is not None else ():
                if note["note"] == step:
                    return dict(note["facts"])
        return None


def journals(state: Path) -> list[Journal]:
    """All journals of a stack, oldest first."""
    folder = state / _FOLDER
    if not folder.is_dir():
        return []
    opened = [Journal.open(path) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted((journal for journal in opened if journal.is_begun), key=lambda journal: int(journal.begun["number"]))


def unfinished(state: Path) -> Journal | None:
    """The journal of a walk that was interrupted. More than one cannot be: that is damage, and Failed."""
    found = [journal for journal in journals(state) if not journal.is_closed]
    if len(found) > 1:
        raise Failed(f"{len(found)} journals are unfinished, one at most can be: {', '.join(str(each.path) for each in found)}")
    return found[0] if found else None


def journal_of(state: Path, token: str) -> Journal:
    """The journal with this token. Raises Failed when it is gone."""
    path = state / _FOLDER / f"{token}.jsonl"
    if not _NAME.fullmatch(path.name) or not path.is_file():
        raise Failed(f"the journal {path} is gone")
    return Journal.open(path)


def refuse_unfinished(known: Iterable[Journal]) -> None:
    """Raises Refused when one of these is unfinished: another run is at work on it, or it was interrupted."""
    for journal in known:
        if not journal.is_closed:
            stack, is_at_work = journal.begun["stack"], locks.is_held_elsewhere(locks.lock_in(journal.state))
            how, following = ("at work", f"storekeeper jobs {stack}") if is_at_work else ("unfinished", f"storekeeper resume {stack}")
            said = f"a {journal.purpose} begun at {spoken_time(journal.begun_at)} is {how}, nothing else can be done before it ends"
            raise Refused(said, next=following)


def spoken_time(moment: datetime) -> str:
    """To the second, for sentences."""
    return clock.rfc3339(moment.replace(microsecond=0))


def _read(path: Path) -> tuple[list[Entry], int, int]:
    """The entries as today's format has them, the bytes that they take, and the format that they are in."""
    *lines, _ = path.read_bytes().split(b"\n")
    entries: list[Entry] = []
    found = FORMAT
    for index, line in enumerate(lines):
        try:
            document = json.loads(line)
            found = _format(path, document) if index == 0 else found
            entries.append(Entry.from_json(formats.upgraded(document, found, FORMAT, STEPS, what=f"the journal {path}", key="format")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if index < len(lines) - 1:
                raise _damaged(path, index + 1, str(error)) from error
            break  # torn: a power cut can leave the end of a line without its beginning
    if entries:
        entries[0].facts["format"] = FORMAT
    return entries, sum(len(line) + 1 for line in lines[: len(entries)]), found


def _format(path: Path, first: Mapping[str, Any]) -> int:
    """The format that the first line says. Raises KeyError, TypeError or AttributeError for what is no line at all."""
    facts = first["facts"]
    try:
        if first["step"] != Step.BEGUN:
            raise ValueError(first["step"])
        return formats.number_of(facts, key="format")
    except ValueError as error:
        raise _damaged(path, 1, f"it does not begin with {Step.BEGUN}") from error


def _damaged(path: Path, line: int, why: str) -> Failed:
    said = f"the journal {path} is damaged in line {line}: {why}. Where its walk had ended (a line closed), move it aside"
    return Failed(said, next=f"tail -n 3 {path}")


def _unused_token(folder: Path) -> str:
    while True:
        token = secrets.token_hex(4)
        if not (folder / f"{token}.jsonl").exists():
            return token


def _write_all(descriptor: int, line: bytes, offset: int) -> None:
    while line:
        written = os.pwrite(descriptor, line, offset)
        line, offset = line[written:], offset + written

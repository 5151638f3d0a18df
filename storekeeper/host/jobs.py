"""Runs of verbs on this host: a record each, made before the work and finished before anything is printed.

A record lives at STATE/jobs/<stack>/<id>.json, beside a lock that is held while the run lives: a run that was killed shows
as interrupted, never as running. The lock is not passed on to programs, which may outlive the run.

A run that outlives whoever started it tells what it does in <id>.log, and has <id>.heard once its answer has reached somebody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, formats, locks

VARIABLE = "STOREKEEPER_JOB"  # in the environment of a program that outlives whoever started it: the name of its run
KEPT = 200  # records of a stack; the oldest finished ones go first
SCHEMA = 1
STEPS: Mapping[int, formats.Step] = {}  # from each older schema to the next


class Job:
    """A run that is going on, and its record."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self._record = record

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def traceback_path(self) -> Path:
        return self.path.with_suffix(".traceback")

    def finish(self, document: Mapping[str, Any]) -> None:
        """Write the document down, durably. Called before the document is printed."""
        durable.write_json(self.path, {**self._record, "document": dict(document)})

    def keep_traceback(self, text: str) -> Path:
        """Keep where the program crashed, private, beside the record."""
        durable.write_file(self.traceback_path, text.encode("utf-8", "backslashreplace"))
        return self.traceback_path


@dataclass(frozen=True)
class Record:
    """A run as its record tells it. `document` is None while it runs, and for one that never finished: see `interrupted`."""

    id: str
    path: Path
    verb: str
    stack: str
    pid: int
    started: str
    arguments: Mapping[str, Any]
    document: Mapping[str, Any] | None
    interrupted: bool

    @property
    def log(self) -> Path:
        """What it tells while it runs; only one that outlives whoever started it has this file."""
        return _log_path(self.path)

    @property
    def heard(self) -> bool:
        """Whether somebody has had its answer, or was there to see it."""
        return not self.log.exists() or _heard_path(self.path).exists()

    @property
    def running(self) -> bool:
        return self.document is None and not self.interrupted

    @property
    def outcome(self) -> str | None:
        """The outcome as the document says it; failed for an interrupted run, None while it runs."""
        if self.document is not None:
            return str(self.document["outcome"])
        return "failed" if self.interrupted else None

    @property
    def seconds(self) -> float | None:
        return None if self.document is None else float(self.document["seconds"])

    @property
    def message(self) -> str | None:
        """The first sentence of what went wrong, or None."""
        if self.document is None:
            return f"was interrupted: process {self.pid} ended before its end was recorded" if self.interrupted else None
        problems = self.document["problems"]
        return str(problems[0]["message"]) if problems else None


def new_id(verb: str) -> str:
    """The name of a run: when, what, and four random bytes."""
    return f"{clock.now().strftime(clock.SET_STAMP)}-{verb}-{os.urandom(4).hex()}"


def make_log(folder: Path, job_id: str) -> Path:
    """An empty log for a run that is about to begin. Raises FileExistsError."""
    path = _log_path(folder / f"{job_id}.json")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    return path


def hear(record: Record) -> None:
    """Write down, durably, that its answer has reached somebody."""
    durable.write_file(_heard_path(record.path), b"")


@contextmanager
def recorded(folder: Path, verb: str, stack: str, arguments: Mapping[str, Any], job_id: str | None = None) -> Iterator[Job]:
    """Record a run in a stack's folder of jobs (an existing private directory) while the block runs; the block finishes it.

    `job_id` is the name that whoever started it has given it.
    """
    _make_room(folder)
    started = clock.now()
    path = folder / f"{job_id or new_id(verb)}.json"
    record = {
        "schema": SCHEMA,
        "id": path.stem,
        "verb": verb,
        "stack": stack,
        "pid": os.getpid(),
        "started": clock.rfc3339(started),
        "arguments": dict(arguments),
    }
    lock = _lock_path(path)
    with locks.hold_new(lock):
        try:
            durable.write_json(path, {**record, "document": None})
            yield Job(path, record)
        finally:
            lock.unlink(missing_ok=True)


def records(folder: Path) -> list[Record]:
    """All runs of one stack, oldest first; none when nothing ever ran.

    Raises OSError or ValueError for what cannot be read, NewerFormat for a record of a newer version.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if _is_record(name))
    except FileNotFoundError:
        return []
    found = (_read(folder / name) for name in names)
    return sorted((record for record in found if record is not None), key=lambda record: record.started)


def find(folder: Path, job_id: str) -> Record | None:
    """One run of a stack; None where there is no record of it. Raises as `records` does."""
    return _read(folder / f"{job_id}.json")


def _read(path: Path) -> Record | None:
    """None for a record that was removed meanwhile."""
    try:
        found = _document(path)
        if found["document"] is None and not locks.is_held(_lock_path(path)):
            found = _document(path)  # it may have finished between the two looks
        interrupted = found["document"] is None and not locks.is_held(_lock_path(path))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no job's record: {error}") from error
    return Record(
        path.stem,
        path,
        str(found["verb"]),
        str(found["stack"]),
        int(found["pid"]),
        str(found["started"]),
        dict(found["arguments"]),
        found["document"],
        interrupted,
    )


def _document(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())
    return formats.upgraded(found, formats.number_of(found), SCHEMA, STEPS, what=f"the record {path}")


def _make_room(folder: Path) -> None:
    """Remove the oldest finished or interrupted records, so that the newest KEPT remain with the one that begins.

    One that cannot be read stays for a person to look at: a run does not depend on the records of others.
    """
    names = sorted(name for name in os.listdir(folder) if _is_record(name))
    for name in names[: max(0, len(names) - KEPT + 1)]:
        try:
            record = _read(folder / name)
        except (ValueError, formats.NewerFormat):
            continue
        if record is None or record.running:
            continue
        for path in (record.path, record.path.with_suffix(".traceback"), record.log, _heard_path(record.path), _lock_path(record.path)):
            path.unlink(missing_ok=True)


def _is_record(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _log_path(path: Path) -> Path:
    return path.with_suffix(".log")


def _heard_path(path: Path) -> Path:
    return path.with_suffix(".heard")

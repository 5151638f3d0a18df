"""jobs: the running and past runs of this host, from their records."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from storekeeper.host import clock, jobs
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.stack.config import Places, stack_names
from storekeeper.verbs.report import Report

_PATIENCE_S = 120.0  # a restore that is told to end goes back first


def list_jobs(places: Places, stack: str | None) -> Report:
    """Every recorded run of one stack, or of all, oldest first. A stack that is no longer declared is shown too.

    Raises Refused for a stack that is neither declared nor recorded, Unknown for records that cannot be read.
    """
    if stack is not None and stack not in stack_names(places) and not (places.state / "jobs" / places.state_of(stack).name).is_dir():
        raise Refused(f"there is no stack {stack}, and no run of one is recorded", next="storekeeper jobs")
    names = [stack] if stack is not None else _recorded_stacks(places)
    found = [record for name in names for record in records_of(places, name)]
    return Report({"jobs": [_described(record) for record in sorted(found, key=lambda record: record.started)]})


def stop_job(places: Places, stack: str | None, job_id: str) -> Report:
    """Ask a run to end, and wait until it has: its own words are its answer. Raises Refused for one that does not run."""
    names = [stack] if stack is not None else _recorded_stacks(places)
    record = next((record for name in names for record in records_of(places, name) if record.id == job_id), None)
    if record is None:
        raise Refused(f"there is no record of the run {job_id[:80]!r}", next="storekeeper jobs")
    if not record.running:
        raise Refused(f"the run {record.id} has ended ({record.outcome})", next=f"storekeeper jobs {record.stack}")
    os.kill(record.pid, signal.SIGTERM)
    deadline = clock.monotonic() + _PATIENCE_S
    while record is not None and record.running:
        if clock.monotonic() > deadline:
            raise Failed(f"the run {job_id} (pid {record.pid}) was asked to end and still runs", next=f"storekeeper jobs {record.stack}")
        time.sleep(0.1)
        record = jobs.find(places.state / "jobs" / record.stack, job_id)
    return Report({"jobs": [_described(record)] if record is not None else []})


def running_pids(places: Places) -> frozenset[int]:
    """The processes of all runs that go on on this host. Raises Unknown when the records cannot be read."""
    return frozenset(record.pid for name in _recorded_stacks(places) for record in records_of(places, name) if record.running)


def records_of(places: Places, stack: str) -> list[jobs.Record]:
    """The recorded runs of a stack, oldest first. Raises Unknown when they cannot be read."""
    folder = places.state / "jobs" / stack
    try:
        return jobs.records(folder)
    except (OSError, ValueError) as error:
        raise Unknown(f"the records of runs in {folder} cannot be read: {error}", next=f"ls -l {folder}") from error


def _recorded_stacks(places: Places) -> list[str]:
    folder: Path = places.state / "jobs"
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unknown(f"the records of runs in {folder} cannot be read: {error.strerror}", next=f"ls -ld {folder}") from error


def _described(record: jobs.Record) -> dict[str, Any]:
    """`outcome` is null while it runs; `message` is the first sentence of what went wrong."""
    return {
        "id": record.id,
        "verb": record.verb,
        "stack": record.stack,
        "started": record.started,
        "outcome": record.outcome,
        "path": str(record.path),
        "seconds": record.seconds,
        "interrupted": record.interrupted,
        "message": record.message,
    }

"""Runs that outlive whoever started them: found or started, and followed to their end.

The same words never run twice because a wire was cut: while such a run goes on, or has ended and nobody has had its answer, asking for
it again is to follow it. An answer that nobody fetched for an hour is old news, and a run that was killed or lost its power has none: then
a new run is what is meant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from storekeeper.host import clock, jobs, locks
from storekeeper.outcomes import Failed

FRESH = timedelta(hours=1)
_STARTING = ".starting"
_PATIENCE_S = 60.0  # from the start of a program to its record: an interpreter, and the models of a large stack file
_GLANCE_S = 0.1


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the words of one command, as its record keeps them."""

    verb: str
    arguments: Mapping[str, Any]

    def is_that_of(self, record: jobs.Record) -> bool:
        return record.verb == self.verb and dict(record.arguments) == dict(self.arguments)


def found_or_started(folder: Path, wanted: Wanted, start: Callable[[str, Path], None]) -> tuple[str, bool]:
    """The id of the run to follow, and whether it was started now: `start` is given its id and its log.

    Raises Busy while another caller starts one, OSError as `start` does.
    """
    with locks.hold(folder / _STARTING, f"the start of a {wanted.verb}"):
        for record in reversed(jobs.records(folder)):
            if wanted.is_that_of(record) and record.log.exists() and (record.running or _is_answer(record)):
                return record.id, False
        job_id = jobs.new_id(wanted.verb)
        start(job_id, jobs.make_log(folder, job_id))
        _wait_for_record(folder, job_id)
        return job_id, True


def _is_answer(record: jobs.Record) -> bool:
    """Whether its end is what asking for it again should tell. One that was cut off has done nothing: then it is done anew."""
    return is_news(record) and not record.interrupted


def is_news(record: jobs.Record) -> bool:
    """Whether it has ended and nobody has had its answer yet, who may still be waiting for it."""
    return (
        not record.running
        and not record.heard
        and clock.now() - clock.parse_rfc3339(record.started) < FRESH + timedelta(seconds=record.seconds or 0)
    )


def follow(folder: Path, job_id: str, write: Callable[[str], None]) -> jobs.Record:
    """Hand on what a run tells until it has ended; its record then. Raises Failed for one that is not recorded."""
    told = 0
    while True:
        record = jobs.find(folder, job_id)
        if record is None:
            raise Failed(f"there is no record of the run {job_id}", next="storekeeper jobs")
        told += _hand_on(record.log, told, write)
        if not record.running:
            return record
        time.sleep(_GLANCE_S)


def _hand_on(log: Path, told: int, write: Callable[[str], None]) -> int:
    """What stands in a log from there on, in whole lines; how many bytes that were."""
    try:
        with open(log, "rb") as file:
            file.seek(told)
            text = file.read()
    except FileNotFoundError:
        return 0
    whole = text[: text.rfind(b"\n") + 1]
    if whole:
        write(whole.decode("utf-8", "backslashreplace"))
    return len(whole)


def _wait_for_record(folder: Path, job_id: str) -> None:
    """Until the run has written down that it began. Raises Failed with its own last words where it does not."""
    deadline = clock.monotonic() + _PATIENCE_S
    while jobs.find(folder, job_id) is None:
        if clock.monotonic() > deadline:
            log = folder / f"{job_id}.log"
            words = log.read_text(errors="backslashreplace").strip().splitlines()
            raise Failed(f"the run {job_id} did not begin: {words[-1] if words else 'it said nothing'}", next=f"cat {log}")
        time.sleep(_GLANCE_S)

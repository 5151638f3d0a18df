"""A command that is carried out as a job of the host: started or found, followed, and answered as if it had been waited for."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from storekeeper.cli import confirm
from storekeeper.cli.calls import Desk
from storekeeper.cli.document import Begun, Document
from storekeeper.host import detaching, jobs
from storekeeper.outcomes import Failed, Outcome, Problem, Refused
from storekeeper.verbs import following
from storekeeper.verbs.directories import jobs_folder


def job_id_of(verb: str) -> str | None:
    """The name under which this process was started as a job; None for one that somebody waits for. Told once."""
    given = os.environ.pop(jobs.VARIABLE, None)
    return given if given is not None and re.fullmatch(rf"[0-9]{{8}}T[0-9]{{6}}Z-{re.escape(verb)}-[0-9a-f]{{8}}", given) else None


def followed(desk: Desk, begun: Begun) -> Document:
    """Start the words of a desk as a job, or find the one that runs or waits to be heard, and follow it to its answer.

    Raises Busy, Refused or Failed where there is none to follow. Who is told to end meanwhile leaves the job alone.
    """
    desk.confirm()
    record = run_to_its_end(desk)
    document = _answer(record, begun)
    if not desk.console.json:
        jobs.hear(record)
    return document


def run_to_its_end(desk: Desk) -> jobs.Record:
    """As `followed`, with the record of the run."""
    folder = jobs_folder(desk.places, desk.stack_name)
    try:
        job_id, is_new = following.found_or_started(folder, _wanted(desk), lambda name, log: _start(desk, name, log))
    except OSError as error:
        raise Failed(f"the job could not be started: {error}") from error
    desk.console.log(f"job {job_id} {'has begun' if is_new else 'is what was asked for already'}")
    return following.follow(folder, job_id, desk.console.tell)


def heard(desk: Desk, begun: Begun) -> Document:
    """The answer of the newest run of these words that has ended and waits to be heard. Raises Refused where there is none."""
    wanted = _wanted(desk)
    for record in reversed(jobs.records(jobs_folder(desk.places, desk.stack_name))):
        if wanted.is_that_of(record) and following.is_news(record):
            jobs.hear(record)
            return _answer(record, begun)
    raise Refused(f"no answer of a {wanted.verb} waits to be heard", next=f"storekeeper jobs {desk.stack_name}")


def _wanted(desk: Desk) -> following.Wanted:
    return following.Wanted(desk.words.verb.name, desk.words.arguments())


def _start(desk: Desk, job_id: str, log: Path) -> None:
    words = desk.words
    agreed = ["--yes"] if words.changes_live and not confirm.is_confirmed(words) else []  # a person has just said so
    argv = [sys.executable, "-P", "-m", "storekeeper", "--config", str(words.options.config), words.verb.name, *words.typed(*agreed)]
    detaching.start(f"storekeeper-{desk.stack_name}-{job_id}", argv, log, {jobs.VARIABLE: job_id})


def _answer(record: jobs.Record, begun: Begun) -> Document:
    if record.document is not None:
        return {**record.document, "job": record.id}
    problem = Problem(f"{record.verb} {record.message}", next=f"storekeeper jobs {record.stack}")
    return {**begun.ended(Outcome.FAILED, None, [problem]), "job": record.id}

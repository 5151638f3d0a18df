"""Text of what is said about this host: jobs and doctor."""

from __future__ import annotations

from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.layout import Cell, Paint, counted, short_time, span, table, wrapped


def jobs(document: Document, paint: Paint) -> list[str]:
    """One line a run, the newest last, with its sentence where it did not go well."""
    found = document["result"]["jobs"]
    if not found:
        return ["no run is recorded on this host"]
    rows = [_run(job) for job in found]
    lines = table([["started (UTC)", "stack", "verb", "outcome", "took"], *rows], paint)
    for job in [job for job in found[-5:] if job["message"] and job["outcome"] not in ("ok", None)]:
        lines += ["", f"{job['stack']} {job['verb']} of {short_time(job['started'])}:", *wrapped(job["message"], "  "), f"  {job['path']}"]
    return lines


def _run(job: dict[str, Any]) -> list[Cell | str]:
    outcome = "running" if job["outcome"] is None else "interrupted" if job["interrupted"] else job["outcome"]
    colour = "failed" if job["interrupted"] else outcome
    return [
        short_time(job["started"]),
        job["stack"],
        job["verb"],
        Cell(outcome, colour),
        Cell("" if job["seconds"] is None else span(job["seconds"]), right=True),
    ]


def due(document: Document, paint: Paint) -> list[str]:
    """What was missed, and how it ended now."""
    found = document["result"]["runs"]
    if not found:
        return [f"{document['stack']}: nothing is owed"]
    rows: list[list[Cell | str]] = [
        [short_time(run["planned"]), " ".join([run["verb"], *run["arguments"]]), Cell(run["outcome"] or "running", run["outcome"])]
        for run in found
    ]
    return table([["missed (UTC)", "verb", "outcome"], *rows], paint)


def doctor(document: Document, paint: Paint) -> list[str]:
    """What is missing, each with the command that mends it."""
    missing = document["result"]["missing"]
    if not missing and not document["problems"]:
        return [f"{paint.state('ok')}  {document['host']}: nothing is missing"]
    lines = [f"{paint.state(document['outcome'])}  {document['host']}: {counted(len(missing), 'thing is', 'things are')} missing"]
    for each in missing:
        about = ", ".join(word for word in (each["stack"], each["store"]) if word)
        lines += ["", *wrapped(f"{about}: {each['what']}" if about else each["what"], "  ")]
        lines += [f"    {each['command']}"] if each["command"] else []
    known = {each["what"] for each in missing}
    for problem in [problem for problem in document["problems"] if problem["message"] not in known]:
        about = ", ".join(word for word in (problem["stack"], problem["store"]) if word)
        lines += ["", *wrapped(f"{about}: {problem['message']}" if about else problem["message"], "  ")]
        lines += [f"    {problem['next']}"] if problem["next"] else []
    return lines

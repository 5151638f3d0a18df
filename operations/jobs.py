"""The running and past runs of a host: listed, and ended.

What a deploy starts is a job of the host and goes on whatever happens to the wire. The same deploy, run again, finds it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, operation

from .facts.jobs import Jobs
from .facts.sets import ask
from .program import Verb, one_line, value

_COLOURS = {None: "blue", "ok": "green", "warning": "yellow", "unknown": "yellow"}


@operation(is_idempotent=False)
def show(stack: str | None = None, newest: int = 20) -> Generator[FunctionCommand, None, None]:
    """
    Print the runs of a host, newest last: those that go on, and how the others ended.

    + stack: only this stack's
    + newest: how many to print

    **Example:**

    .. code:: python

        jobs.show(name="Runs of maestro", stack="maestro")
    """
    yield FunctionCommand(_show, (None if stack is None else value("stack", stack), newest), {})


@operation(is_idempotent=False)
def stop(job: str) -> Generator[Verb, None, None]:
    """
    Ask a run to end, and wait until it has. A restore that is asked to end goes back first.

    + job: its name, as ``show`` prints it

    **Example:**

    .. code:: python

        jobs.stop(name="End that backup", job="20260101T030000Z-backup-0a1b2c3d")
    """
    yield Verb("jobs", "--stop", value("job", job))


def _show(state: State, host: Host, stack: str | None, newest: int) -> bool:  # noqa: ARG001 pyinfra looks for both names
    found = ask(host, Jobs, stack=stack)
    if found is None:
        return False
    runs = found["result"]["jobs"][-newest:]
    if not runs:
        host.log_styled("nothing has run yet", fg="yellow", log_func=logger.info)
    for run in runs:
        host.log_styled(one_line(line(run)), fg=_COLOURS.get(run["outcome"], "red"), log_func=logger.info)
    return True


def line(run: dict[str, Any]) -> str:
    """A run in one line: how it ended or that it goes on, what it was, since when, for how long, and what went wrong."""
    words = [run["outcome"] or "running", f"{run['verb']} {run['stack']}", f"since {run['started'][:19]}Z"]
    words += [f"{run['seconds']:.1f} s"] if run["seconds"] is not None else []
    words += [run["message"]] if run["message"] and run["outcome"] != "ok" else []
    return "  ".join([*words, run["id"]])

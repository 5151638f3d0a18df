"""The report of a host or a fleet: one HTML file, made on the control machine from one fact of each host."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, operation

from . import declared
from .facts.sets import Overview
from .program import Program

_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
_BARS = 40  # sets drawn for a stack: the newest
_WIDTH = 640  # of a chart, in its own units


@operation(is_idempotent=False)
def write(path: str) -> Generator[FunctionCommand, None, None]:
    """
    Read the state of every stack of every host and write the report on the control machine.

    + path: the HTML file to write

    **Example:**

    .. code:: python

        report.write(name="Report", path="report.html")
    """
    yield FunctionCommand(_write_report, (path,), {})


def _write_report(state: Any, host: Any, path: str) -> bool:
    program = Program.of(host)
    names = sorted(host.data.get("storekeeper_stacks", {}))
    overview = host.get_fact(Overview, stacks=names, program=program.path, program_config=program.config)
    if overview is None:
        return False
    gathered = state.__dict__.setdefault("storekeeper_overviews", {})
    gathered[host.name] = overview
    text = render([{"name": name, **gathered.get(name, {})} for name in sorted(h.name for h in state.inventory)], datetime.now(UTC))
    Path(path).write_text(text, encoding="utf-8")
    host.log(f"report: {path}", log_func=logger.info)
    return True

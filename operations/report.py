"""The report of a host or a fleet: one HTML file, made on the control machine from one fact of each host."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, OperationValueError, State, operation

from . import page
from .facts.sets import Overview, ask
from .program import one_line

_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
_VERDICT_COLOURS = {"ok": "green", "attention": "yellow", "unknown": "red"}

# What was gathered so far in each run: a host that was not heard of, or not yet, is None.
_gathered: WeakKeyDictionary[State, dict[str, Mapping[str, Any] | None]] = WeakKeyDictionary()


@operation(is_idempotent=False)
def write(path: str) -> Generator[FunctionCommand, None, None]:
    """
    Read the state of every stack of every host and write the report on the control machine. A host that does not answer fails, and
    the report says so; the others are in it all the same.

    + path: the HTML file to write

    **Example:**

    .. code:: python

        report.write(name="Report", path="report.html")
    """
    if not path or not Path(path).absolute().parent.is_dir():
        raise OperationValueError(f"there is no directory for the report {path!r}")
    yield FunctionCommand(_read_and_write, (path,), {})


def render(overviews: Mapping[str, Mapping[str, Any] | None], made: datetime, wanted: Mapping[str, Sequence[str]] | None = None) -> str:
    """The report's HTML. None stands for a host that was not reached, and is said so; `wanted` are the stacks declared for each."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(page.fleet(overviews, wanted or {}, made), width=page.WIDTH)


def _read_and_write(state: State, host: Host, path: str) -> bool:
    """Ask one host and write the report anew with its answer, so that the last host's is whole."""
    # a host left out by --limit is not asked, and not dead either
    gathered = _gathered.setdefault(state, {each.name: None for each in state.inventory if state.is_host_in_limit(each)})
    stacks = sorted(host.data.get("storekeeper_stacks", {}))
    overview = ask(host, Overview, stacks=stacks)
    gathered[host.name] = overview
    wanted = {each.name: sorted(each.data.get("storekeeper_stacks", {})) for each in state.inventory}
    made = datetime.now(UTC)
    _write(Path(path), render(gathered, made, wanted))
    _tell(host, page.fleet({host.name: overview}, wanted, made))
    return overview is not None


def _write(path: Path, text: str) -> None:
    """Whole or not at all: somebody may be reading the old one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _tell(host: Host, found: dict[str, Any]) -> None:
    for stack in (stack for each in found["hosts"] for stack in each["stacks"]):
        proof = f"newest proven set {stack['proof']['age']} old" if stack["proof"] else "no proven set"
        said = one_line(f"{stack['verdict']}: {stack['name']}, {proof}")
        host.log_styled(said, fg=_VERDICT_COLOURS[stack["verdict"]], log_func=logger.info)
        for problem in stack["problems"]:
            host.log(one_line(f"  {problem['message']}"), log_func=logger.info)

"""The report of a host or a fleet: one HTML file, made on the control machine from one fact of each host."""

from __future__ import annotations

import json
import os
import tempfile
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
from .wire import watch

SCHEMA = 1  # of the document beside the page
PATIENCE_S = 60  # how long a host may take to say how it is
_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
_VERDICT_COLOURS = {"ok": "green", "attention": "yellow", "unknown": "red"}

# What was gathered so far in each run: a host that was not heard of, or not yet, is None.
_gathered: WeakKeyDictionary[State, dict[str, Mapping[str, Any] | None]] = WeakKeyDictionary()


@operation(is_idempotent=False)
def write(path: str) -> Generator[FunctionCommand, None, None]:
    """
    Read the state of every stack of every host and write the report on the control machine. A host that does not answer fails, and
    the report says so; the others are in it all the same.

    + path: the HTML file to write; what the hosts answered goes beside it, for programs, as a document with the ending ``.json``

    **Example:**

    .. code:: python

        report.write(name="Report", path="report.html")
    """
    if not path or not Path(path).absolute().parent.is_dir():
        raise OperationValueError(f"there is no directory for the report {path!r}")
    yield FunctionCommand(_read_and_write, (path,), {})


def render(
    overviews: Mapping[str, Mapping[str, Any] | None],
    made: datetime,
    wanted: Mapping[str, Sequence[str]] | None = None,
    heard: Mapping[str, str | None] | None = None,
) -> str:
    """The report's HTML. None stands for a host that was not reached, and is said so; `wanted` are the stacks declared for each."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(page.fleet(overviews, wanted or {}, made, heard), width=page.WIDTH)


def _read_and_write(state: State, host: Host, path: str) -> bool:
    """Ask one host and write the report anew with its answer, so that the last host's is whole."""
    # a host left out by --limit is not asked, and not dead either
    gathered = _gathered.setdefault(state, {each.name: None for each in state.inventory if state.is_host_in_limit(each)})
    watch(host)
    stacks = sorted(host.data.get("storekeeper_stacks", {}))
    overview = ask(host, Overview, stacks=stacks, _timeout=int(host.data.get("storekeeper_patience", PATIENCE_S)))
    gathered[host.name] = overview
    wanted = {each.name: sorted(each.data.get("storekeeper_stacks", {})) for each in state.inventory}
    made = datetime.now(UTC)
    known = Path(path).with_suffix(".json")
    heard = {**_heard(known), **{name: each["status"]["started"] for name, each in gathered.items() if each is not None}}
    _write(known, json.dumps(_document(gathered, made, heard), indent=1) + "\n")
    _write(Path(path), render(gathered, made, wanted, heard))
    _tell(host, page.fleet({host.name: overview}, wanted, made))
    return overview is not None


def _document(gathered: Mapping[str, Mapping[str, Any] | None], made: datetime, heard: Mapping[str, str | None]) -> dict[str, Any]:
    """What the hosts answered, for programs, and for the next report, which tells since when a host is silent."""
    hosts = {
        name: {
            "answers": overview is not None,
            "heard": heard.get(name),
            "status": overview["status"] if overview is not None else None,
            "sets": overview["sets"] if overview is not None else {},
        }
        for name, overview in sorted(gathered.items())
    }
    return {"schema": SCHEMA, "made": made.isoformat(timespec="seconds"), "hosts": hosts}


def _heard(path: Path) -> dict[str, str | None]:
    """When each host answered last, by the report before. One that is not there, or is none of ours, knows nothing."""
    try:
        found = json.loads(path.read_bytes())
        return {str(name): each["heard"] for name, each in found["hosts"].items()} if found["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(path: Path, text: str) -> None:
    """Whole or not at all: somebody may be reading the old one. Under a name meanwhile that nobody can have made first."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as new:
        new.write(text)
        os.fchmod(new.fileno(), 0o644)
    os.replace(new.name, path)


def _tell(host: Host, found: dict[str, Any]) -> None:
    for stack in (stack for each in found["hosts"] for stack in each["stacks"]):
        proof = f"newest proven set {stack['proof']['age']} old" if stack["proof"] else "no proven set"
        said = one_line(f"{stack['verdict']}: {stack['name']}, {proof}")
        host.log_styled(said, fg=_VERDICT_COLOURS[stack["verdict"]], log_func=logger.info)
        for problem in stack["problems"]:
            host.log(one_line(f"  {problem['message']}"), log_func=logger.info)

"""The report of a host or a fleet: one HTML file, made on the control machine from one fact of each host."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, operation

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


def render(overviews: Mapping[str, Mapping[str, Any] | None], made: datetime) -> str:
    """The report's HTML: a section a host, sorted by name. None stands for a host that was not reached, and is said so."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["size"] = _size
    environment.filters["age"] = lambda moment: _age(moment, made)
    hosts = [{"name": name, "stacks": _stacks(overview)} for name, overview in sorted(overviews.items())]
    return environment.get_template("report.html.j2").render(hosts=hosts, made=made.strftime("%Y-%m-%d %H:%M UTC"))


_gathered: dict[str, dict[str, Any] | None] = {}


def _write_report(state: State, host: Host, path: str) -> bool:
    program = Program.of(host)
    names = sorted(host.data.get("storekeeper_stacks", {}))
    for each in state.inventory:
        _gathered.setdefault(each.name, None)
    asked = host.get_fact(Overview, stacks=names, program=program.path, program_config=program.config)
    overview = cast("dict[str, Any] | None", asked)
    if overview is None:
        return False
    _gathered[host.name] = overview
    Path(path).write_text(render(_gathered, datetime.now(UTC)), encoding="utf-8")
    host.log(f"report: {path}", log_func=logger.info)
    return True


def _stacks(overview: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    if overview is None:
        return None
    found = []
    for name, status in sorted(overview["status"]["result"]["stacks"].items()):
        listed = overview["sets"].get(name)
        sets = listed["result"]["sets"] if listed else []
        problems = [each for each in overview["status"]["problems"] if each["stack"] == name]
        found.append({"name": name, "status": status, "sets": sets[::-1], "problems": problems, "chart": _chart(sets[-_BARS:])})
    return found


def _chart(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One bar a set, oldest first: its place, height (0 to 100) and what its title says."""
    if not sets:
        return []
    largest = max(each["bytes"] for each in sets) or 1
    step = _WIDTH / len(sets)
    return [
        {
            "x": round(index * step + 1, 1),
            "width": round(min(step - 2, 48), 1),
            "height": max(2, round(100 * each["bytes"] / largest)),
            "state": each["state"],
            "title": f"{each['id']}: {_size(each['bytes'])}, {each['state']}",
        }
        for index, each in enumerate(sets)
    ]


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _age(moment: str | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = int((now - datetime.fromisoformat(moment)).total_seconds())
    if seconds < 3600:
        return f"{max(seconds, 0) // 60} min ago"
    if seconds < 172800:
        return f"{seconds // 3600} h ago"
    return f"{seconds // 86400} days ago"

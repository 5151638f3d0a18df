"""Text of a migration: what it would do, what it did on the copy and live, and what a command says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, joined, printable, size, span, table
from storekeeper.cli.render.restore import agreements
from storekeeper.cli.render.sets import objects


def migrate(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if "plan" in result:
        return plan(document, paint)
    return _told(document, paint) if "output" in result else _done(document, paint)


def plan(document: Document, paint: Paint) -> list[str]:
    """What would be run: nothing was run yet."""
    found, where = document["result"]["plan"], f"{document['stack']} on {document['host']}"
    lines = [paint(f"{where}: {found['action']}, nothing was run yet", "bold"), ""]
    lines += [f"  first on a copy of set {found['set']}: {short(each)}" for each in found["commands"]]
    if found["action"] != "test":
        lines += [f"  then live, inside a safety set: {short(found['commands'][0])}"]
    lines += _applied(found["applied"], "  applied now: ")
    lines += [f"  stopped meanwhile: {joined(found['services'])}"] if found["services"] else []
    return lines + [f"  {mount}: needs {size(room['needed'])}, has {size(room['free'])} free" for mount, room in found["space"].items()]


def _told(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    said = [f"  {printable(line)}" for line in result["output"].splitlines()]
    return [f"{paint.state(document['outcome'])}  {document['stack']}: {short(result['command'])}", "", *(said or ["  it said nothing"])]


def _done(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    what = f"{result['action']}: {_how(result)} ({span(document['seconds'])})"
    trial = f"  on a copy of set {result['set']}: {short(result['command'])} ({span(result['trial']['seconds'])})"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what}", "", trial]
    lines += _applied(result["applied"], "  applied live: ")
    rows = [[name, Cell(f"{objects(store['counts']):,}", right=True)] for name, store in result["stores"].items()]
    lines += ["", *table([["store", "objects"], *rows], paint, "  ")] if rows else []
    lines += agreements(result["agreements"])
    if result["safety_set"]:
        lines += ["", f"  services were stopped for {span(result['downtime_s'])}"]
        lines += [f"  as it was before: set {result['safety_set']}, pinned", f"  the way back: {result['back']}"]
    return lines


def _how(result: Mapping[str, Any]) -> str:
    if result["safety_set"]:
        return "done on what is live"
    return "the copy came out well" if result["action"] == "test" else "there is nothing to do"


def _applied(found: Mapping[str, Any] | None, before: str) -> list[str]:
    if found is None:
        return []
    return [f"{before}{found['count']:,}{', newest ' + short(found['newest']) if found['newest'] is not None else ''}"]

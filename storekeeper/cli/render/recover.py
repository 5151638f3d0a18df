"""Text of what a recovery would bring, or brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, table
from storekeeper.cli.render.restore import costs, done

_SHOWN = 3  # of what is wrong; the document has more


def recover(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if "plan" in result:
        return plan(document, paint)
    name = next(iter(result["stores"]))
    return done(document, paint, f"{name} was made anew of what could be read", _tables(result["rescued"], paint))


def plan(document: Document, paint: Paint) -> list[str]:
    """What would be rescued and needed: nothing was changed yet."""
    found, where = document["result"]["plan"], f"{document['stack']} on {document['host']}"
    name = next(iter(found["stores"]))
    lines = [paint(f"{where}: recovery of {name}, nothing was changed yet", "bold"), ""]
    return [*lines, *_tables(found["rescued"], paint), "", *costs(found)]


def _tables(rescued: Mapping[str, Any], paint: Paint) -> list[str]:
    """A line a table; after them what is wrong with the file, as SQLite says it."""
    rows: list[list[Cell | str]] = []
    for name, each in rescued["tables"].items():
        lost = "some" if each["lost"] is None else f"{each['lost'] + each['refused']:,}"
        in_set = "-" if each["in_set"] is None else f"{each['in_set']:,}"
        colour = None if lost == "0" else "attention"
        rows.append([short(name), Cell(f"{each['rows']:,}", right=True), Cell(lost, colour, right=True), Cell(in_set, right=True)])
    lines = table([["table", "rescued", "lost", f"in {rescued['proven_set'] or 'no proven set'}"], *rows], paint, "  ")
    return [*lines, "", *(f"  damaged: {short(each)}" for each in rescued["damages"][:_SHOWN])]

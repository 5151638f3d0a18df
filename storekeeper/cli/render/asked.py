"""Text of `query`: the rows as a table, or the queries that there are. Nothing in a value reaches the terminal as a command to it."""

from __future__ import annotations

import base64
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, counted, span, table

_BYTES = 12  # of a value that is no text


def query(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if "queries" in result:
        return _listed(document, paint)
    rows, columns = result["rows"], [short(name) for name in result["columns"]]
    what = f"{result['query']} of {result['store']}: {counted(len(rows), 'row')} in {span(document['seconds'])}"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what}"]
    if rows and columns:
        right = [all(_is_number(row[number]) for row in rows) for number in range(len(columns))]
        cells: list[list[Cell | str]] = [[Cell(_shown(value), right=right[number]) for number, value in enumerate(row)] for row in rows]
        lines += ["", *table([columns, *cells], paint, "  ")]
    return [*lines, *([f"  and more: these are the first {len(rows):,}"] if result["more"] else [])]


def _listed(document: Document, paint: Paint) -> list[str]:
    found = document["result"]["queries"]
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {counted(len(found), 'query', 'queries')} declared"]
    if not found:
        return lines
    rows: list[list[Cell | str]] = [
        [" ".join([each["name"], *(name.upper() for name in each["arguments"])]), each["store"], short(each["description"] or "")]
        for each in found
    ]
    return [*lines, "", *table([["query", "store", "what it is for"], *rows], paint, "  ")]


def _shown(value: Any) -> str:
    """A value on one short line. Null is told from the text that says so by its brackets."""
    if value is None:
        return "(null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and "base64" in value:
        data = base64.b64decode(value["base64"])
        return f"x'{data[:_BYTES].hex()}{'...' if len(data) > _BYTES else ''}' ({counted(len(data), 'byte')})"
    return short(str(value["number"] if isinstance(value, dict) else value))


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (isinstance(value, dict) and "number" in value)

"""Text of `query`, `examine` and `evict`. Nothing of a value reaches the terminal as a command to it."""

from __future__ import annotations

import base64
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import WIDTH, Cell, Paint, counted, printable, size, span, table, wrapped

_BYTES = 12  # of a value that is no text
_SHOWN = 20  # flaws of a store


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


def examine(document: Document, paint: Paint) -> list[str]:
    """Each store with its figures, what is wrong with it, and who uses it."""
    stores = document["result"]["stores"]
    what = f"{counted(len(stores), 'store')} looked into in {span(document['seconds'])}"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what}"]
    for name, found in stores.items():
        flaws = len(found["flaws"]) + found["left_out"]
        word = {"ok": "nothing wrong", "warning": counted(flaws, "flaw"), "unknown": "UNKNOWN"}[found["outcome"]]
        lines += ["", f"{paint(name, 'bold')}   {found['kind']}   {paint.state(word, found['outcome'])}"]
        lines += [f"  {line}" for line in wrapped(", ".join(_figures(found)), "", WIDTH - 2)] if found["figures"] else []
        lines += [f"  {each['kind']}: {printable(each['message'])}" for each in found["flaws"][:_SHOWN]]
        lines += [f"  and {flaws - _SHOWN:,} more: --json lists them"] if flaws > _SHOWN else []
        lines += _users(found["users"] or [], paint)
    return lines


def evict(document: Document, paint: Paint) -> list[str]:
    found = document["result"]
    holds = "what it holds now is not known" if found["lock"] == "unknown" else f"holds {_lock(found['lock'])} now"
    now = "has ended" if found["ended"] else f"has not ended, and {holds}"
    return [f"{paint.state(document['outcome'])}  {document['stack']}: {printable(found['program'])} (pid {found['pid']}) {now}"]


def holder(document: Document, paint: Paint) -> list[str]:  # noqa: ARG001 - as the other plans
    """Whom `evict` would ask to end."""
    found = document["result"]["plan"]
    return [f"{printable(found['program'])} (pid {found['pid']}) holds {_lock(found['lock'])} on {found['store']}: it would get SIGTERM"]


def _figures(found: dict[str, Any]) -> list[str]:
    figures = [f"{name.replace('_', ' ')} {_figure(name, value)}" for name, value in found["figures"].items()]
    return [*figures, *([f"{sum(found['counts'].values()):,} in {counted(len(found['counts']), 'object')}"] if found["counts"] else [])]


def _figure(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "on" if value else "off"
    return size(value) if name.endswith("bytes") else f"{value:,}" if isinstance(value, int) else short(value)


def _users(users: list[dict[str, Any]], paint: Paint) -> list[str]:
    rows: list[list[Cell | str]] = [
        [Cell(str(each["pid"]), right=True), short(each["program"]), _lock(each["lock"]), "waits" if each["waits"] else ""]
        for each in users
    ]
    return table([[Cell("pid", right=True), "program", "holds", ""], *rows], paint, "  ") if rows else []


def _lock(word: str | None) -> str:
    return f"the {word} lock" if word else "no lock"

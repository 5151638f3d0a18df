"""Text of what a restore would do or did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.layout import Cell, Paint, joined, size, span, table

_SHOWN_OBJECTS = 12  # of one store; the document has them all


def restore(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    return plan(document, paint) if "plan" in result else _done(document, paint)


def plan(document: Document, paint: Paint) -> list[str]:
    """What a restore would change and need: nothing was changed yet."""
    found = document["result"]["plan"]
    where = f"{document['stack']} on {document['host']}"
    lines = [paint(f"{where}: restore of {found['set'] or 'the old side'}, nothing was changed", "bold"), ""]
    rows: list[list[Cell | str]] = []
    for name, store in found["stores"].items():
        rows += _changes(name, store)
    lines += table([["store", "object", "now", "after"], *rows], paint, "  ")
    lines += ["", *_costs(found)]
    return lines


def _changes(name: str, store: Mapping[str, Any]) -> list[list[Cell | str]]:
    now, after = store["counts_now"], store["counts_after"] or {}
    names = sorted({*(now or {}), *after})
    rows: list[list[Cell | str]] = []
    for index, each in enumerate(names[:_SHOWN_OBJECTS]):
        before, later = None if now is None else now.get(each), after.get(each)
        changed = "attention" if before != later else None
        rows.append([name if index == 0 else "", each, Cell(_count(before), right=True), Cell(_count(later), changed, right=True)])
    if len(names) > _SHOWN_OBJECTS:
        rows.append(["", f"and {len(names) - _SHOWN_OBJECTS} more", Cell("", right=True), Cell("", right=True)])
    return rows or [[name, "nothing", Cell("-", right=True), Cell("-", right=True)]]


def _count(found: int | None) -> str:
    return "-" if found is None else f"{found:,}"


def _costs(found: Mapping[str, Any]) -> list[str]:
    lines = []
    services = found.get("services") or []
    if services:
        lines.append(f"  stopped meanwhile: {joined(services)}")
    downtime = sum(store["downtime_s"] or 0 for store in found["stores"].values())
    lines.append(f"  expected downtime: {span(downtime) if downtime >= 1 else 'under a second'}")
    lines += [
        f"  {mount}: needs {size(room['needed'])}, has {size(room['free'])} free" for mount, room in (found.get("space") or {}).items()
    ]
    return lines


def _done(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {_what(result)} in {span(document['seconds'])}", ""]
    rows = [
        [
            name,
            Cell(_milliseconds(store["switch_ms"]), right=True),
            Cell(f"{store['downtime_s'] or 0:.1f} s", right=True),
            Cell(str(len(store["counts"])), right=True),
        ]
        for name, store in (result.get("stores") or {}).items()
    ]
    lines += table([["store", "switched in", "down", "objects"], *rows], paint, "  ") if rows else []
    if result.get("safety_set"):
        lines += ["", f"  as it was before: set {result['safety_set']}, pinned"]
    if result.get("back"):
        lines += [f"  the way back: {result['back']}"]
    return lines


def _what(result: Mapping[str, Any]) -> str:
    return f"set {result['set']} is live" if result.get("set") else "the old side is live again"


def _milliseconds(found: float | None) -> str:
    return "-" if found is None else f"{found:.0f} ms"


def resume(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if not result or not result.get("stores"):
        return [f"{paint.state(document['outcome'])}  {document['stack']}: nothing was left open"]
    return _done(document, paint)

"""Text of what a restore would do or did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, joined, size, span, table
from storekeeper.cli.render.sets import objects

_SHOWN_OBJECTS = 12  # of one store; the document has them all


def restore(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if "plan" in result:
        return plan(document, paint)
    return _brought(document, paint) if "places" in result else done(document, paint)


def reset(document: Document, paint: Paint) -> list[str]:
    if "plan" in document["result"]:
        return plan(document, paint)
    return done(document, paint, "all stores are empty", _schema(document["result"]["schema"]))


def plan(document: Document, paint: Paint) -> list[str]:
    """What a restore or a reset would change and need: nothing was changed yet."""
    found, where = document["result"]["plan"], f"{document['stack']} on {document['host']}"
    if "places" in found:
        headline = f"{where}: document {short(found['document'])} out of set {found['set']}, nothing was changed yet"
        stopped = ["", f"  stopped meanwhile: {joined(found['services'])}"] if found["services"] else []
        return [paint(headline, "bold"), "", *_places(found, paint), *stopped]
    return foreseen(found, where, paint, is_reset=document["verb"] == "reset")


def foreseen(found: Mapping[str, Any], where: str, paint: Paint, *, is_reset: bool = False) -> list[str]:
    """As `plan`, of the plan alone."""
    what = "reset of all stores" if is_reset else f"restore of {found['set'] or 'the old sides'}"
    lines = [paint(f"{where}: {what}, nothing was changed yet", "bold"), ""]
    rows: list[list[Cell | str]] = []
    for name, store in found["stores"].items():
        rows += _changes(name, store)
    lines += table([["store", "object", "now", "after"], *rows], paint, "  ")
    lines += ["", *costs(found)]
    return lines


def _schema(made: Mapping[str, Any] | None) -> list[str]:
    """Who made it, where the stores did not keep their own."""
    if made is None:
        return []
    applied = made["applied"]
    newest = f": {applied['newest']}, the last of {applied['count']}" if applied and applied["newest"] else ""
    return [f"  the schema of {joined(made['stores'])} was made by {made['command']}{newest}"]


def _brought(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    what = f"document {short(result['document'])} is as set {result['set']} holds it ({span(document['seconds'])})"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what}", "", *_places(result, paint)]
    return [*lines, *(["", f"  the way back: {result['back']}"] if result["back"] else [])]


def _places(found: Mapping[str, Any], paint: Paint) -> list[str]:
    """Each place with how many rows, chunks or files it held, and holds, and what differs."""
    rows: list[list[Cell | str]] = []
    for each in found["places"]:
        colour = None if each["change"] == "same" else "attention"
        counts = [Cell(f"{each[key]:,}", right=True) for key in ("now", "after")]
        rows.append([short(each["place"]), *counts, Cell(each["change"], colour), short(each["differs"][0]) if each["differs"] else ""])
        rows += [["", Cell("", right=True), Cell("", right=True), "", short(more)] for more in each["differs"][1:]]
    return table([["place", "now", "in the set", "", "what differs"], *rows], paint, "  ")


def _changes(name: str, store: Mapping[str, Any]) -> list[list[Cell | str]]:
    now, after = store["counts_now"], store["counts_after"]
    names = sorted({*(now or {}), *(after or {})})
    rows: list[list[Cell | str]] = []
    for index, each in enumerate(names[:_SHOWN_OBJECTS]):
        before = _count(now, each, absent=store["now"])
        later = _count(after, each, absent="as it was")
        rows.append(
            [name if index == 0 else "", each, Cell(before, right=True), Cell(later, "attention" if before != later else None, right=True)]
        )
    if len(names) > _SHOWN_OBJECTS:
        rows.append(["", f"and {len(names) - _SHOWN_OBJECTS} more", Cell("", right=True), Cell("", right=True)])
    return rows or [[name, "nothing", Cell("-", right=True), Cell("-", right=True)]]


def _count(counts: Mapping[str, int] | None, name: str, *, absent: str) -> str:
    if counts is None:
        return absent
    return f"{counts[name]:,}" if name in counts else "-"


def costs(found: Mapping[str, Any]) -> list[str]:
    """What a plan needs, and stops meanwhile."""
    lines = []
    if found["services"]:
        lines.append(f"  stopped meanwhile: {joined(found['services'])}")
    downtime = sum(store["downtime_s"] for store in found["stores"].values())
    lines.append(f"  expected downtime: {span(downtime) if downtime >= 1 else 'under a second'}")
    lines += [f"  {mount}: needs {size(room['needed'])}, has {size(room['free'])} free" for mount, room in found["space"].items()]
    return lines


def done(document: Document, paint: Paint, what: str | None = None, more: Sequence[str] = ()) -> list[str]:
    """What is live now, `more` about that, and the way back."""
    result = document["result"]
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what or _what(result)} ({span(document['seconds'])})"]
    rows = [
        [
            name,
            Cell(f"{store['switch_ms']:.0f} ms", right=True),
            Cell(f"{store['downtime_s']:.1f} s", right=True),
            Cell(f"{objects(store['counts']):,}", right=True),
        ]
        for name, store in result["stores"].items()
        if store["counts"]
    ]
    lines += ["", *table([["store", "switched in", "down", "objects"], *rows], paint, "  ")] if rows else []
    lines += ["", *more] if more else []
    lines += agreements(result["agreements"])
    if result["safety_set"] and result["stores"]:
        lines += ["", f"  as it was before: set {result['safety_set']}, pinned"]
    if result["back"]:
        lines += [f"  the way back: {result['back']}"]
    return lines


def agreements(told: Mapping[str, Any]) -> list[str]:
    """A line a rule: whether the stores agree now."""
    lines = [""] if told else []
    for name, rule in told.items():
        found = [f"{count:,} {kind}" for kind, count in rule["counts"].items() if count and kind != "in_flight"]
        word = "not known" if rule["outcome"] == "unknown" else ", ".join(found) or "all stores agree"
        documents = "" if rule["documents"] is None else f" of {rule['documents']:,} documents"
        lines.append(f"  {name}{documents}: {word}")
    return lines


def _what(result: Mapping[str, Any]) -> str:
    ended = result.get("ended", "done")
    if ended == "abandoned" and not result["stores"]:
        return "the services that the interrupted repair had stopped run again"
    if ended != "done":
        return "the interrupted restore changed nothing" if ended == "abandoned" else "all stores are back as they were before the restore"
    if not result["stores"]:
        return "nothing was changed"
    return f"set {result['set']} is live" if result["set"] else "the old sides are live again"


def resume(document: Document, paint: Paint) -> list[str]:
    if document["result"]["ended"] is None:
        return [f"{paint.state(document['outcome'])}  {document['stack']}: no restore was open"]
    return done(document, paint)

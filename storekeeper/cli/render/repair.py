"""Text of `repair`: what a plan would remove, what was removed, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, counted, size, span, table

_SHOWN = 20


def repair(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    if isinstance(result["plan"], dict):
        return _plan(document, result["plan"], paint)
    return _reingested(document, result, paint) if "rules" in result else _done(document, result, paint)


def _plan(document: Document, plan: Mapping[str, Any], paint: Paint) -> list[str]:
    documents = sum(plan["documents"].values())
    what = f"{counted(documents, 'document')} to clean up, {counted(plan['reingest'], 'document')} to take in again"
    if (restores := plan["restores"]) is not None:
        what = f"document {short(restores['document'])} out of set {restores['set']}"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: plan {plan['id']}: {what}"]
    if plan["removals"]:
        rows: list[list[Cell | str]] = [[store, Cell(f"{count:,}", right=True)] for store, count in plan["removals"].items()]
        lines += ["", *table([["store", Cell("entries to remove", right=True)], *rows], paint, "  ")]
        lines.append(f"  all is kept for undo: about {size(plan['space']['needed'])} of {size(plan['space']['free'])} free")
    if plan["samples"]:
        found: list[list[Cell | str]] = [
            [Cell(each["class"], "attention"), short(each["place"]), short(each["document"]), short(each["detail"])]
            for each in plan["samples"]
        ]
        lines += ["", *table([["class", "place", "document", "what is there"], *found], paint, "  ")]
    return lines


def _done(document: Document, result: Mapping[str, Any], paint: Paint) -> list[str]:
    word, counts = ("put back", result["undone"]) if result["undo"] is None else ("removed", result["removed"])
    what = f"{counted(sum(counts.values()), 'entry', 'entries')} {word} in {span(document['seconds'])}"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: plan {result['plan']}: {what}"]
    lines += [f"  {store}: {count:,}" for store, count in counts.items()]
    lines += [f"  skipped {short(each['document'])} in {short(each['place'])}: {short(each['why'])}" for each in result["skipped"][:_SHOWN]]
    return [*lines, *([f"  to take it back: {paint.command(result['undo'])}"] if result["undo"] else [])]


def _reingested(document: Document, result: Mapping[str, Any], paint: Paint) -> list[str]:
    whole, asked = (sum(each[key] for each in result["rules"].values()) for key in ("whole", "asked"))
    what = f"{whole:,} of {counted(asked, 'document')} whole again after {span(document['seconds'])}"
    columns = ("asked", "whole", "in_flight", "failed", "gone", "missing")
    rows: list[list[Cell | str]] = [
        [rule, *(Cell(f"{each[column]:,}", right=True) for column in columns)] for rule, each in result["rules"].items()
    ]
    head: list[Cell | str] = ["rule", *(Cell(column.replace("_", " "), right=True) for column in columns)]
    lines = [
        f"{paint.state(document['outcome'])}  {document['stack']}: plan {result['plan']}: {what}",
        "",
        *table([head, *rows], paint, "  "),
    ]
    return [*lines, *(f"  not asked for {short(each['document'])}: {short(each['why'])}" for each in result["skipped"][:_SHOWN])]

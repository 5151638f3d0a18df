"""Text of `check`: what disagrees, by rule, class and store; the first findings of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.layout import Cell, Paint, counted, printable, short_time, size, span, table

_SHOWN = 20
_LONGEST = 40


def check(document: Document, paint: Paint) -> list[str]:
    """Each rule with its counts, and the first of what was found."""
    rules = document["result"]["rules"]
    what = f"{counted(len(rules), 'rule')} looked at in {span(document['seconds'])}"
    lines = [f"{paint.state(document['outcome'])}  {document['stack']}: {what}"]
    for name, rule in rules.items():
        lines += ["", *_rule(name, rule, paint)]
        if rule.get("stats"):
            lines += _stats(rule["stats"], paint)
    if stores := document["result"].get("stores"):
        rows: list[list[Cell | str]] = [[name, Cell(size(found["bytes"]) if found else "?", right=True)] for name, found in stores.items()]
        lines += ["", *table([["store", Cell("size", right=True)], *rows], paint, "  ")]
    return lines


def _rule(name: str, rule: Mapping[str, Any], paint: Paint) -> list[str]:
    counts = {kind: count for kind, count in rule["counts"].items() if count and kind != "in_flight"}
    documents = "documents unknown" if rule["documents"] is None else counted(rule["documents"], "document")
    flying = f", {rule['counts']['in_flight']:,} in flight" if rule["counts"]["in_flight"] else ""
    found = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    word = {"ok": "agreement", "warning": found, "unknown": f"UNKNOWN{': ' + found if found else ''}"}[rule["outcome"]]
    lines = [f"{paint(name, 'bold')}   {documents}{flying}   {paint.state(word, rule['outcome'])}"]
    lines += [f"  not read: {printable(place)}" for place in rule["unread"]]
    if rule["findings"]:
        heading = ["class", "place", "document", "owner", "since (UTC)", "what is there"]
        lines += table([heading, *(_finding(each) for each in rule["findings"][:_SHOWN])], paint, "  ")
    more = len(rule["findings"]) - _SHOWN + rule["left_out"]
    return [*lines, *([f"  and {more:,} more: --lines prints all of them"] if more > 0 else [])]


def _finding(found: Mapping[str, Any]) -> list[Cell | str]:
    return [
        Cell(found["class"], "attention"),
        short(found["place"]),
        short(found["document"]),
        short(found["owner"] or ""),
        short_time(found["since"]) if found["since"] else "",
        short(found["detail"]),
    ]


def _stats(stats: Mapping[str, Any], paint: Paint) -> list[str]:
    states = ", ".join(f"{count:,} {printable(state)}" for state, count in stats["states"].items())
    lines = [f"  {counted(stats['owners'], 'owner')}{'; ' + states if states else ''}"]
    rows: list[list[Cell | str]] = [
        [
            short(place),
            Cell(f"{held['documents']:,}", right=True),
            Cell("" if held["chunks"] is None else f"{held['chunks']:,}", right=True),
        ]
        for place, held in stats["places"].items()
    ]
    return [*lines, *table([["place", Cell("documents", right=True), Cell("chunks", right=True)], *rows], paint, "  ")]


def short(text: str) -> str:
    """One line of what may hold anything."""
    line = printable(text).replace("\n", "?")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."

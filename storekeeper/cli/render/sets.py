"""Text of what is said about sets: backup, list, verify, prove, prune, pin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.document import Document
from storekeeper.cli.render.layout import Cell, Paint, counted, printable, short_time, size, span, table, wrapped

_LONGEST = 60  # signs of a cell that may hold anything


def backup(document: Document, paint: Paint) -> list[str]:
    """The set that was published, store by store, and what retention did."""
    made, stack = document["result"]["set"], document["stack"]
    what = f"set {made['id']} is {made['state']}, {size(made['bytes'])}"
    lines = [_headline(document, paint, f"{what} in {span(document['seconds'])}"), ""]
    lines += table(
        [
            ["store", "kind", "class", "outcome", Cell("size"), Cell("objects"), Cell("writers waited")],
            *(_stored(name, store) for name, store in made["stores"].items()),
        ],
        paint,
        "  ",
    )
    lines += ["", f"  all stores within {made['skew_ms']:.0f} ms; kept in", f"    {made['path']}"]
    lines += agreements(made["agreements"])
    lines += ["", *_kept(document["result"]["retention"], dry_run=False)]
    if made["state"] == "verified":
        command = f"storekeeper prove {stack} {made['id']}"
        lines.append(f"  not proven yet: {paint.command(command)}")
    return lines


def agreements(told: Mapping[str, Any]) -> list[str]:
    """What a set's stores said of each other: a line a rule."""
    return [f"  {name}: {_agreement(each)}" for name, each in told.items()]


def _agreement(told: Mapping[str, Any]) -> str:
    if told["counts"] is None:
        return f"not known whether its stores agreed: the ids of {', '.join(told['unread'])} were not recorded"
    flying = f", {told['in_flight']:,} in flight" if told["in_flight"] else ""
    return f"{told['documents']:,} documents{flying}, {told['holes']:,} holes, {told['extras']:,} extras"


def received(document: Document, paint: Paint) -> list[str]:
    """The set that came from elsewhere, and its name here."""
    made, stack = document["result"]["set"], document["stack"]
    what = f"set {made['id']} was received and is {made['state']}, {size(made['bytes'])} in {span(document['seconds'])}"
    command = f"storekeeper prove {stack} {made['id']}"
    return [_headline(document, paint, what), f"  kept in {made['path']}", f"  not proven here yet: {paint.command(command)}"]


def _headline(document: Document, paint: Paint, what: str) -> str:
    return f"{paint.state(document['outcome'])}  {document['stack']}: {what}"


def _stored(name: str, store: Mapping[str, Any]) -> list[Cell | str]:
    return [
        name,
        store["kind"],
        store["class"],
        Cell(store["outcome"], store["outcome"]),
        Cell(size(store["bytes"]), right=True),
        Cell(f"{objects(store['counts']):,}", right=True),
        Cell(f"{store['pause_ms']:.0f} ms", right=True),
    ]


def objects(counts: Mapping[str, int]) -> int:
    """Rows, vectors or files; the bytes of a tree are no number of objects."""
    return sum(count for name, count in counts.items() if name != "bytes")


def listing(document: Document, paint: Paint) -> list[str]:
    """One line a set, oldest first. Unproven is never green."""
    found = document["result"]["sets"]
    if not found:
        return [f"{document['stack']}: no set"]
    lines = [f"{document['stack']}: {counted(len(found), 'set')}, oldest first (times in UTC)", ""]
    rows = [
        [
            each["id"],
            Cell(each["state"], each["state"]),
            Cell(size(each["bytes"]), right=True),
            Cell(str(len(each["stores"])), right=True),
            Cell(short_time(each["proven_at"]), "proven" if each["proven_at"] and each["state"] == "proven" else "attention"),
            "pinned" if each["pinned"] else "",
        ]
        for each in found
    ]
    return lines + table([["set", "state", "size", "stores", "last proven", ""], *rows], paint, "  ")


def history(document: Document, paint: Paint) -> list[str]:
    """A document through the sets, oldest first: one line a set and rule."""
    result = document["result"]
    what = f"{printable(result['document'])[:60]} in {counted(len(result['sets']), 'set')}, oldest first (times in UTC)"
    lines = [_headline(document, paint, what)]
    rows: list[list[Cell | str]] = [
        [each["id"], Cell(each["state"], each["state"]), rule, Cell(found["is"].replace("_", " "), _TONES[found["is"]]), _wrong(found)]
        for each in result["sets"]
        for rule, found in (each["rules"] or {"": {**_NOT_RECORDED, "why": each["why"] or _NOT_RECORDED["why"]}}).items()
    ]
    lines += ["", *table([["set", "state", "rule", "document", "what was wrong"], *rows], paint, "  ")] if rows else []
    return [*lines, *(["", f"  to bring it back: {paint.command(result['restore'])}"] if result["restore"] else [])]


_NOT_RECORDED = {"is": "unknown", "findings": [], "why": "no rule was declared when it was taken"}
_TONES = {
    "whole": "ok",
    "incomplete": "attention",
    "orphan": "attention",
    "unknown": "unknown",
    "in_flight": None,
    "failed": None,
    "absent": None,
}


def _wrong(found: Mapping[str, Any]) -> str:
    said = [f"{each['class']} in {each['place']}" for each in found["findings"]]
    line = printable(found["why"] or ", ".join(said)).replace("\n", "?")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def looks(document: Document, paint: Paint) -> list[str]:
    """What a verify or a proof found in each store of each set."""
    found = document["result"]["sets"]
    what = f"{document['verb']} of {counted(len(found), 'set')}"
    lines = [_headline(document, paint, f"{what} in {span(document['seconds'])}"), ""]
    rows = [
        [
            each["id"],
            Cell(each["state"], each["state"]),
            name,
            Cell(store["outcome"], store["outcome"]),
            Cell(_seconds(store["seconds"]), right=True),
        ]
        for each in found
        for name, store in each["stores"].items()
    ]
    return lines + (table([["set", "state", "store", "outcome", "time"], *rows], paint, "  ") if rows else ["  no set was looked at"])


def _seconds(found: float | None) -> str:
    return "" if found is None else f"{found:.1f} s"


def prune(document: Document, paint: Paint) -> list[str]:
    """Each set with the reason it stays or goes."""
    result = document["result"]
    dry = bool(result.get("dry_run"))
    lines = [_headline(document, paint, "nothing was removed, this would be done" if dry else "retention is applied"), ""]
    decided = [(each["id"], "keep", "; ".join(each["reasons"])) for each in result["kept"]]
    decided += [(each["id"], "remove", each["reason"]) for each in result["removed"]]
    for set_id, word, reason in sorted(decided):
        shown = paint.state(word.ljust(6), "attention" if word == "remove" else None)
        first, *more = wrapped(reason, " " * (12 + len(set_id)))
        lines += [f"  {set_id}  {shown}  {first.lstrip()}", *more]
    return [*lines, *([""] if decided else []), *_kept(result, dry_run=dry)]


def _kept(retention: Mapping[str, Any] | None, *, dry_run: bool) -> list[str]:
    if retention is None:
        return ["  retention did not run"]
    verb = "would free" if dry_run else "freed"
    removed = len(retention["removed"])
    return [f"  {len(retention['kept'])} kept, {removed} removed" + (f", {verb} {size(retention['bytes_freed'])}" if removed else "")]


def pin(document: Document, paint: Paint) -> list[str]:
    result = document["result"]
    what = "is pinned: no rule removes it" if result["pinned"] else "is not pinned: the rules decide about it"
    return wrapped(f"{paint.state(document['outcome'])}  {document['stack']}: set {result['id']} {what}", "", 100)

"""Text of `status`: one screen, what needs attention first in each stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from storekeeper import __version__
from storekeeper.cli.document import Document
from storekeeper.cli.render.check import short
from storekeeper.cli.render.layout import Cell, Paint, size, span, table, wrapped
from storekeeper.cli.render.sets import objects
from storekeeper.host import clock


def status(document: Document, paint: Paint) -> list[str]:
    """A line about the host, then each stack: the one that needs attention in full, and the others as well."""
    stacks = document["result"]["stacks"]
    troubled = sorted({problem["stack"] for problem in document["problems"] if problem["stack"]})
    verdict = f"{len(troubled)} of {len(stacks)} {'needs' if len(troubled) == 1 else 'need'} attention" if troubled else "all is well"
    if not stacks:
        verdict = "no stack is declared"
    colour = "ok" if stacks and not troubled else "attention"
    now = clock.now().strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"{document['host']}   storekeeper {__version__}   {now}   {paint.state(verdict, colour)}"]
    for name, stack in stacks.items():
        mine = [problem for problem in document["problems"] if problem["stack"] == name]
        lines += ["", *_stack(name, stack, mine, paint)]
    for problem in [problem for problem in document["problems"] if problem["stack"] is None]:
        lines += ["", *wrapped(problem["message"], "  "), *([f"    {problem['next']}"] if problem["next"] else [])]
    return lines


def _stack(name: str, stack: Mapping[str, Any], problems: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    word = "UNKNOWN" if any(problem["severity"] == "error" for problem in problems) else "ATTENTION" if problems else "OK"
    lines = [f"{paint(name, 'bold')}   {paint.state(word)}"]
    for problem in problems:
        about = f"{problem['store']}: " if problem["store"] else ""
        lines += wrapped(about + problem["message"], "  ")
        lines += [f"    {problem['next']}"] if problem["next"] else []
    if stack["stores"]:
        heading = ["store", "kind", "state", "size", "objects", "newest proven", "limit"]
        lines += table([heading, *(_store(each, store) for each, store in stack["stores"].items())], paint, "  ")
    return [*lines, *_backups(stack), *_migrations(stack)]


def _store(name: str, store: Mapping[str, Any]) -> list[Cell | str]:
    proof = store["last_proof"]
    late = proof is not None and proof["limit_s"] is not None and proof["age_s"] > proof["limit_s"]
    told = "never" if proof is None else f"{span(proof['age_s'])} {'late' if late else 'ok'}"
    return [
        name,
        store["kind"],
        Cell(store["state"] or "recorded", {"up": "ok", "unknown": "unknown"}.get(store["state"])),
        Cell("?" if store["bytes"] is None else size(store["bytes"]), right=True),
        Cell("?" if store["counts"] is None else f"{objects(store['counts']):,}", right=True),
        Cell(told, "ok" if told.endswith("ok") else "attention"),
        span(proof["limit_s"]) if proof is not None and proof["limit_s"] is not None else "none",
    ]


def _migrations(stack: Mapping[str, Any]) -> list[str]:
    """Only where the application's own record of them is declared, and was asked."""
    if "migrations" not in stack:
        return []
    found = stack["migrations"]
    if found is None:
        return ["  migrations unknown"]
    count = f"{'more than ' if found['more'] else ''}{found['count']:,} applied"
    return [f"  migrations {count}{', newest ' + short(found['newest']) if found['newest'] is not None else ''}"]


def _backups(stack: Mapping[str, Any]) -> list[str]:
    found, last = stack["backups"], stack["last_backup"]
    if found is None:
        return ["  backups   unknown"]
    newest = f", newest {span(last['age_s'])} old" if last else ""
    lines = [f"  backups   {found['usable']} usable, {found['proven']} proven, {size(found['bytes'])}, {size(found['free'])} free{newest}"]
    if stack["next_run"] is None:
        return [*lines, "  next      not scheduled"]
    at = datetime.fromisoformat(stack["next_run"]).astimezone(UTC)
    return [*lines, f"  next      {at:%Y-%m-%d %H:%M} UTC (in {span((at - clock.now()).total_seconds())})"]

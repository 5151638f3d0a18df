"""How a command's end is shown: its result on standard output, what went wrong on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storekeeper.cli.console import Console
from storekeeper.cli.document import Document
from storekeeper.cli.render import asked, check, host, migrate, recover, repair, restore, sets, status
from storekeeper.cli.render.layout import WIDTH, Paint, printable, wrapped

_INDENT = 9  # as wide as the longest word of an outcome, and two spaces
_RENDERERS = {
    "backup": sets.backup,
    "list": sets.listing,
    "verify": sets.looks,
    "prove": sets.looks,
    "check": check.check,
    "repair": repair.repair,
    "history": sets.history,
    "query": asked.query,
    "examine": asked.examine,
    "evict": asked.evict,
    "prune": sets.prune,
    "receive": sets.received,
    "pin": sets.pin,
    "unpin": sets.pin,
    "restore": restore.restore,
    "reset": restore.reset,
    "recover": recover.recover,
    "migrate": migrate.migrate,
    "resume": restore.resume,
    "jobs": host.jobs,
    "due": host.due,
    "doctor": host.doctor,
    "status": status.status,
}


def present(document: Document, console: Console, *, is_usage: bool = False) -> None:
    """Print the text of a document; with `--json` only what went wrong, since the document has been printed."""
    is_silent = console.json or console.quiet or console.has_answered
    if not is_silent and document["result"] is not None and document["verb"] in _RENDERERS:
        lines = _RENDERERS[document["verb"]](document, console.paint_out)
        console.answer(printable_lines(lines))
    if document["verb"] in _SPEAK_FOR_THEMSELVES and document["result"] is not None and not console.quiet:
        return
    for number, problem in enumerate(document["problems"]):
        if problem["severity"] == "info" and (console.quiet or console.json):
            continue
        if document["outcome"] in ("ok", "warning") and console.json and not console.quiet:
            continue
        console.complain(block(document, problem, console, first=number == 0, is_usage=is_usage))


# Their text shows the problems in their place.
_SPEAK_FOR_THEMSELVES = ("status", "doctor")


def block(document: Document, problem: Mapping[str, Any], console: Console, *, first: bool, is_usage: bool) -> str:
    """One problem: a block for a person at a terminal, one line for a mail or a log."""
    word = _word(document, problem, first=first)
    about = ", ".join(part for part in (problem["stack"], problem["store"]) if part)
    message = printable(f"{about}: {problem['message']}" if about and not is_usage else problem["message"])
    if not console.stands_on_terminal:
        following = f"; next: {printable(problem['next'])}" if problem["next"] else ""
        return f"storekeeper: {word}: {' '.join(message.split())}{following}"
    return "\n".join(_lines(word, message, problem["next"], console.paint_err))


def printable_lines(lines: list[str]) -> str:
    return "\n".join(lines)


def _word(document: Document, problem: Mapping[str, Any], *, first: bool) -> str:
    """What ended the command says so; the others say how grave they are."""
    if first and document["outcome"] not in ("ok", "warning"):
        return str(document["outcome"])
    return str(problem["severity"])


def _lines(word: str, message: str, following: str | None, paint: Paint) -> list[str]:
    lines = wrapped(message, " " * _INDENT, WIDTH)
    lines[0] = f"{paint.state(word.ljust(_INDENT - 1), word)} {lines[0].lstrip()}"
    if following:
        lines.append(f"{' ' * _INDENT}next: {printable(following)}")
    return lines

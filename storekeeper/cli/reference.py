"""Writes docs/reference/cli.md and docs/reference/json.md from the catalogue and the contract: `python -m storekeeper.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storekeeper.cli import help as help_text
from storekeeper.cli.catalogue import GLOBAL_OPTIONS, VERBS, Verb
from storekeeper.cli.contract import PROBLEM, RESULTS, Schema, document_schema
from storekeeper.outcomes import EXIT_CODES

FOLDER = Path("docs/reference")

_MADE = "<!-- Made by `make docs` from storekeeper/cli: change it there. -->\n\n"

_CLI = """# The command line

`storekeeper VERB STACK` is typed alike by people, cron and deploys. Options may stand before and after the verb. The
configuration that is used is said on standard error. Answers go to standard output, everything else to standard error;
`--quiet` prints nothing but what went wrong, in one sentence each, which is what cron should mail.

What replaces live data asks on a terminal, by showing its plan and having the stack's name typed. Elsewhere it needs
`--yes` (typed on this host) or `--confirm STACK@HOST` (from afar, where HOST is what `uname -n` says there); without, it is refused.

A run of backup, verify, prove, restore, resume or prune is recorded on the host before anything is printed: `storekeeper jobs`
shows the running, the past and the interrupted ones. SIGTERM, SIGINT and SIGHUP end a run in good order; HUP is ignored under `nohup`.
"""

_JSON = """# The JSON contract

With `--json` every command prints exactly one document on standard output, also for wrong usage, a refusal and a crash.
Times are RFC 3339 in UTC. Fields may be added; none is removed or changed in meaning without a new `schema`.

Objects in counts and digests are named `schema.table` (PostgreSQL), by table (SQLite) or by collection (Chroma, whose one digest is
`directory`); a tree of files has the counts `files` and `bytes` and the digest `tree`.
"""


def cli_text() -> str:
    """docs/reference/cli.md."""
    parts = [_MADE + _CLI, "## Options of every verb\n", _options(), "## Exit codes\n", _exit_codes()]
    parts += [_verb(verb) for verb in VERBS]
    return "\n".join(parts)


def json_text() -> str:
    """docs/reference/json.md."""
    shell = document_schema("backup")
    fields = {**shell["properties"], "verb": {"type": "string", "description": "the verb; null: none was recognised"}}
    fields["result"] = {"type": "object", "description": "by verb, see below; null: the verb could not answer, `problems` says why"}
    fields["problems"] = {"type": "array", "description": "see below"}
    parts = [_MADE + _JSON, "## The document\n", _table({**shell, "properties": fields}), "## A problem\n", _table(PROBLEM)]
    for verb, results in RESULTS.items():
        for number, schema in enumerate(results):
            title = f"## The result of `{verb}`" + (", or" if number else "")
            parts += [title + "\n", _table(schema)]
    return "\n".join(parts)


def write(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cli.md").write_text(cli_text(), encoding="utf-8")
    (folder / "json.md").write_text(json_text(), encoding="utf-8")


def _options() -> str:
    rows = [f"| `{option.shown}` | {option.help} |" for option in GLOBAL_OPTIONS]
    return "\n".join(["| option | meaning |", "|---|---|", *rows, ""])


def _exit_codes() -> str:
    meanings = {
        "ok": "all went well",
        "failed": "it was tried and went wrong",
        "refused": "wrong usage, or unsafe: nothing was changed",
        "unknown": "it could not be found out",
        "warning": "it went well, with warnings or findings",
        "busy": "another run is at it",
    }
    rows = [f"| {code} | {outcome} | {meanings[outcome]} |" for outcome, code in EXIT_CODES.items()]
    return "\n".join(["| code | outcome | meaning |", "|---|---|---|", *rows, "", "When several apply: 1, then 3, then 4.", ""])


def _verb(verb: Verb) -> str:
    return f"## {verb.name}\n\n```text\n{help_text.of_verb(verb)}```\n"


def _table(schema: Schema) -> str:
    rows = [f"| `{path}` | {kind} | {meaning} |" for path, kind, meaning in _rows(schema, "")]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows, ""])


def _rows(schema: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    """Every field below a schema, by its path: `sets[].stores.NAME.outcome`."""
    for name, field in _fields(schema):
        below = f"{path}.{name}" if path else name
        inner, nullable = _without_null(field)
        while inner.get("type") == "array" and "items" in inner:
            below, inner = below + "[]", inner["items"]
        meaning = str(field.get("description", "")).replace("|", "\\|")
        yield below, _kind(inner) + (" or null" if nullable else ""), meaning
        yield from _rows(inner, below)


def _fields(schema: Schema) -> list[tuple[str, Schema]]:
    if "properties" in schema:
        return list(schema["properties"].items())
    if isinstance(schema.get("additionalProperties"), dict):
        return [(str(schema["title"]), schema["additionalProperties"])]
    return []


def _without_null(schema: Schema) -> tuple[Schema, bool]:
    options = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    return (options[0], True) if len(options) == 1 else (schema, False)


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    return str(schema.get("type", "object"))


if __name__ == "__main__":
    write()

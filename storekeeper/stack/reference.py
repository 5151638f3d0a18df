"""The reference of the stack file, made from the model: `python -m storekeeper.stack.reference` writes it into the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from storekeeper.host import durable
from storekeeper.stack import migrations, model, queries, rules, schedule, types

REFERENCE_FILE = Path("docs/reference/stack.md")

_HEAD = """# The stack file

One YAML file a stack, the same on the control machine and on the host. It is checked in full before anything is touched: every
mistake is said at once, with file, line and column. A key that is not here is refused. Editors that know JSON schemas can use
[stack.schema.json](stack.schema.json).

This page is made from the program's own model by `make docs`.
"""

_TAIL = """
## An example

```yaml
stack: maestro
stores:
  main:     {kind: sqlite, path: /srv/maestro/data/maestro.db}
  metadata: {kind: sqlite, path: /srv/maestro/ai_researcher/data/processed/metadata.db}
  vectors:  {kind: chroma, path: /srv/maestro/ai_researcher/data/vector_store, runtime: {systemd: maestro-chroma}}
  papers:   {kind: files,  path: /srv/maestro/ai_researcher/data, include: [raw_pdfs, processed/markdown, processed/metadata]}
services: [{systemd: maestro-backend}]
backup: {keep: {days: 30, daily: 7, weekly: 4, monthly: 6, at_least: 3}}
schedule:
  - {verb: backup, at: "0 3 * * *"}
  - {verb: verify, arguments: [--all], at: "0 5 * * 6"}
  - {verb: prove, at: "30 4 * * 0"}
```

The short form of a schedule, `{backup: "0 3 * * *", prove: "30 4 * * 0"}`, says the same for verbs without arguments.

## The program's own configuration

`storekeeper.yml`, beside the directory `stacks`, holds up to three keys: `repository` (where sets are kept,
`/var/backups/storekeeper`), `state` (the program's own records, `/var/lib/storekeeper`) and `scratch` (where proofs restore to,
`/var/tmp`).
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", model.Stack),
    ("A store of kind `postgresql`", model.PostgresqlModel),
    ("`admin` of a `postgresql` store", model.Admin),
    ("A store of kind `sqlite`", model.SqliteModel),
    ("A store of kind `chroma`", model.ChromaModel),
    ("A store of kind `files`", model.FilesModel),
    ("`runtime` of a store, and each of `services`", model.RuntimeModel),
    ("A secret", types.SecretReference),
    ("`url` of a `postgresql` or `sqlite` store", types.Setting),
    ("`backup`", model.BackupModel),
    ("`backup.keep`", model.Keep),
    ("`backup.load`", model.Load),
    ("`restore`", model.RestoreModel),
    ("`reset`", model.ResetModel),
    ("A rule of `consistency`", rules.Rule),
    ("`authority` of a rule", rules.Authority),
    ("Each of `replicas` of a rule", rules.Replica),
    ("Each of `rows` of a place", rules.Rows),
    ("`states` of a rule", rules.States),
    ("`brake` of a rule", rules.Brake),
    ("`reingest` of a rule", rules.Reingest),
    ("Each of `queries`", queries.NamedQuery),
    ("`migration`", migrations.Migration),
    ("`applied` of `migration`", migrations.AppliedMigrations),
    ("`upgrade`, `downgrade`, `stamp`, `test`, `current` and `history` of `migration`", migrations.MigrationCommand),
    ("An entry of `schedule`", schedule.ScheduleEntry),
)


def reference_text() -> str:
    """The page as it stands in the documentation."""
    return _HEAD + "".join(_section(title, declared) for title, declared in _SECTIONS) + _TAIL


def _section(title: str, declared: type[BaseModel]) -> str:
    lines = [f"\n## {title}\n", f"\n{(declared.__doc__ or '').strip()}\n", "\n| key | default | meaning |\n|---|---|---|\n"]
    lines += [f"| `{key}` | {default} | {meaning} |\n" for key, default, meaning in _rows(declared)]
    return "".join(lines)


def _rows(declared: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in types.fields_of(declared).items():
        yield name, "required" if field.is_required() else _shown(field.default), field.description or ""


def _shown(default: Any) -> str:
    """A default as it would be written in the file; nothing for none, for an empty list and for a mapping."""
    if isinstance(default, timedelta):
        return f"`{types.spoken_duration(default)}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`" if default else ""
    return f"`{str(default).lower()}`" if isinstance(default, str | int | float) else ""


def write_reference(checkout: Path) -> None:
    """Write the page into a checkout of the project."""
    durable.write_file(checkout / REFERENCE_FILE, reference_text().encode(), 0o644)


if __name__ == "__main__":
    write_reference(Path.cwd())

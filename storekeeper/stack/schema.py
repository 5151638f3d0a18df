"""The JSON schema of a stack file, for editors: `python -m storekeeper.stack.schema` writes it into the documentation."""

from __future__ import annotations

import json
from pathlib import Path

from storekeeper.host import durable
from storekeeper.stack.model import Stack

SCHEMA_FILE = Path("docs/reference/stack.schema.json")


def schema_text() -> str:
    """The schema as it stands in the documentation."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of storekeeper",
        **{key: _without_nothing(value) for key, value in Stack.model_json_schema().items() if key != "title"},
    }
    return json.dumps(schema, indent=2) + "\n"


def _without_nothing(schema: object) -> object:
    """The same, less null and the titles that only repeat a name: a key with nothing behind it is refused in a stack file."""
    if isinstance(schema, list):
        return [_without_nothing(each) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_nothing(value) for key, value in schema.items() if not _says_nothing(key, value)}
    match kept:
        case {"anyOf": [dict(only)]}:
            return {**only, **{key: value for key, value in kept.items() if key != "anyOf"}}
    return kept


def _says_nothing(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or value is None


def write_schema(checkout: Path) -> None:
    """Write the schema into a checkout of the project."""
    durable.ensure_directory((checkout / SCHEMA_FILE).parent, 0o755)
    durable.write_file(checkout / SCHEMA_FILE, schema_text().encode(), 0o644)


if __name__ == "__main__":
    write_schema(Path.cwd())

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
        **{key: value for key, value in Stack.model_json_schema().items() if key != "title"},
    }
    return json.dumps(schema, indent=2) + "\n"


def write_schema(checkout: Path) -> None:
    """Write the schema into a checkout of the project."""
    durable.ensure_directory((checkout / SCHEMA_FILE).parent, 0o755)
    durable.write_file(checkout / SCHEMA_FILE, schema_text().encode(), 0o644)


if __name__ == "__main__":
    write_schema(Path.cwd())

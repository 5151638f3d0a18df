"""The schema for editors says what the loader says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from storekeeper.stack.model import Stack
from storekeeper.stack.schema import SCHEMA_FILE, schema_text, write_schema

ROOT = Path(__file__).parents[2]


def test_the_schema_in_the_documentation_is_the_model_s() -> None:
    assert (ROOT / SCHEMA_FILE).read_text() == schema_text(), "run: python -m storekeeper.stack.schema"


def test_writing_it_twice_changes_nothing(tmp_path: Path) -> None:
    write_schema(tmp_path)
    first = (tmp_path / SCHEMA_FILE).read_bytes()
    write_schema(tmp_path)
    assert (tmp_path / SCHEMA_FILE).read_bytes() == first == schema_text().encode()


def test_every_mapping_refuses_unknown_keys() -> None:
    schema = json.loads(schema_text())
    objects = [each for each in (schema, *schema["$defs"].values()) if each["type"] == "object"]
    assert len(objects) >= 10
    assert all(each["additionalProperties"] is False for each in objects)
    assert set(schema["properties"]) == set(Stack.model_fields)


def test_no_key_may_be_left_empty_and_patterns_are_those_of_the_model() -> None:
    text = schema_text()
    assert "null" not in text
    pattern = json.loads(text)["properties"]["stack"]["pattern"]
    assert re.match(pattern, "maestro")
    assert not re.match(pattern, "../maestro")

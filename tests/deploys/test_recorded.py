"""The recordings that stand for the host program: they are what it answers today, and hold to its contract."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from storekeeper.cli.contract import document_schema
from tests.deploys import record
from tests.deploys.fake import RECORDED, recorded

NAMES = sorted(path.stem for path in RECORDED.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_holds_to_the_contract_and_names_nothing_of_the_machine_it_was_made_on(name):
    document = recorded(name)
    jsonschema.validate(document, document_schema(document["verb"]))
    text = (RECORDED / f"{name}.json").read_text(encoding="utf-8")
    assert document["host"] == "prod-ai-1"
    assert {found.split("/")[1] for found in re.findall(r"(?<![\w/.])/[a-z]+/", text)} <= {"srv", "usr"}


def test_every_outcome_of_the_contract_is_among_the_recordings():
    assert {recorded(name)["outcome"] for name in NAMES} == {"ok", "warning", "failed", "unknown", "refused", "busy"}


@pytest.mark.slow
def test_the_program_answers_today_as_it_was_recorded(tmp_path):
    now = record.answers(tmp_path)
    assert sorted(now) == NAMES
    for name, text in now.items():
        assert _shape(json.loads(text)) == _shape(recorded(name)), f"{name} has changed: python -m tests.deploys.record"


def _shape(found: Any) -> Any:
    """A document without what differs from run to run: moments, sizes, times, digests."""
    if isinstance(found, dict):
        return {_masked(key): _shape(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_shape(each) for each in found]
    if isinstance(found, str):
        return _masked(found)
    return "number" if isinstance(found, int | float) and not isinstance(found, bool) else found


def _masked(text: str) -> str:
    text = re.sub(r"(T[0-9]{6}Z)-[0-9a-f]{12}", r"\1-HEX", text)  # a plan's id
    masked = re.sub(r"sha256:[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "HEX", text)
    return re.sub(r"[0-9]+", "N", re.sub(r"(T[0-9:]+)\.[0-9]+Z", r"\1Z", masked))


def test_control_a_recording_that_says_something_else_is_found():
    old = recorded("backup-busy")
    changed = json.loads(json.dumps(old).replace("has been running since", "runs since"))
    assert _shape(changed) != _shape(old)
    assert _shape({**old, "seconds": 99.0}) == _shape(old)

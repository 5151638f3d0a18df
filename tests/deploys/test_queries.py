"""The operation and the fact that ask named queries: what they type, what a person reads, and what is refused before."""

from __future__ import annotations

import json

import pytest
from pyinfra.api import OperationValueError
from pyinfra.api.exceptions import FactProcessError

from operations import queries
from operations.facts.queries import Answer
from tests.deploys.fake import CODE, END, TYPED, fake_host, recorded

PLACE = {"program": "/opt/sk/bin/storekeeper", "program_config": "/etc/storekeeper"}
ASKED = "query demo titled --limit 2 -- 'a b' -rf"


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        ({}, "query demo"),
        ({"query": "titled"}, "query demo titled"),
        ({"query": "titled", "values": ["a b", "-rf"], "limit": 2}, ASKED),
        ({"query": "titled", "values": ["x; touch MARK $(id) `id`"]}, "query demo titled -- 'x; touch MARK $(id) `id`'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_value_is_one_word_behind_the_end_of_the_options(arguments, typed):
    with fake_host() as fake:
        assert fake.commands(queries.ask, stack="demo", **arguments) == [f"{TYPED} {typed}"]
        assert fake.typed == []


@pytest.mark.parametrize("value", ["x\ny", "x\0y", "x\x1b[2J", "", "x" * 5000, 42], ids=repr)
def test_a_value_that_is_no_word_is_refused_before_anything_is_typed(value):
    with fake_host() as fake:
        for wrong in ({"values": [value]}, {"query": value}, {"stack": value}, {"query": "-rf"}, {"values": "a word"}):
            with pytest.raises(OperationValueError):
                fake.commands(queries.ask, **{"stack": "demo", "query": "titled", **wrong})
        assert fake.typed == []


def test_rows_are_printed_and_a_refusal_fails_the_host():
    document = {**recorded("list-empty"), "verb": "query"}
    rows = [[1, "a\x1b[31m"], [2, None]]
    document["result"] = {"query": "titled", "store": "main", "columns": ["id", "title"], "rows": rows, "more": True}
    document["problems"], document["outcome"] = [], "ok"
    with fake_host({f"{TYPED} query demo titled": {"stdout": [json.dumps(document)], "success": True}}) as fake:
        assert fake.execute(queries.ask, stack="demo", query="titled") == [True]
        assert "id  title" in fake.said.text
        assert "1  a?[31m" in fake.said.text
        assert "2  (null)" in fake.said.text
        assert "and more" in fake.said.text
        assert fake.execute(queries.ask, stack="demo", query="other") == [False]


def test_the_fact_is_the_whole_document_or_an_error():
    typed = Answer().command(stack="demo", query="titled", values=["a b", "-rf"], limit=2, **PLACE)
    assert typed.startswith(f"{TYPED} {ASKED}; printf ")
    document = {**recorded("list-empty"), "verb": "query"}
    lines = [json.dumps(document), "", f"{CODE}0", END]
    assert Answer().process(lines) == document
    for wrong in (lines[:-1], [json.dumps(recorded("list-empty")), *lines[1:]], [lines[0], "", f"{CODE}2", END]):
        with pytest.raises(FactProcessError):
            Answer().process(wrong)

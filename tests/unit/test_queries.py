"""Queries as they are declared: which values stand in them, and what is refused before anything is asked."""

from __future__ import annotations

import pytest

from storekeeper.stack.loader import StackFileErrors, check_text
from storekeeper.stack.queries import numbered, placeholders

FILE = """stack: demo
stores:
  main: {{kind: sqlite, path: /srv/main.db}}
  papers: {{kind: files, path: /srv/papers}}
queries:
  it: {{{it}}}
"""


def refused(it: str) -> str:
    with pytest.raises(StackFileErrors) as error:
        check_text(FILE.format(it=it), "demo.yml")
    return str(error.value)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("select 1", []),
        ("select * from t where a = :a and b = :b_2 or a = :a", ["a", "b_2"]),
        ("select ':a', \":b\", `:c` from t -- :d", []),
        ("select /* :a */ a::text, $$ :b $$, $x$ :c $x$ from t", []),
        ("select 'it''s :a', :b", ["b"]),
        (r"select e'\' :a', :b", ["b"]),
        ("select 'a\n:b', :c", ["c"]),
    ],
)
def test_values_are_found_outside_of_texts_names_comments_and_casts(query: str, names: list[str]) -> None:
    assert placeholders(query) == names


def test_a_server_gets_a_number_for_each_value() -> None:
    assert numbered("select :a::int, ':a', :b, :a") == ("select $1::int, ':a', $2, $1", ["a", "b"])


@pytest.mark.parametrize(
    ("it", "said"),
    [
        ("store: nowhere, query: select 1", 'queries.it.store: there is no store "nowhere"'),
        ("store: papers, query: select 1", "papers is a files store, which answers no query"),
        ("store: main, query: delete from t", "expected one select"),
        ("store: main, query: select 1; select 2", "expected one select"),
        ("store: main, query: with x as (select 1) delete  from t", "expected a query that reads; this one says delete from"),
        ("store: main, query: with x as (select 1) insert\n      into t select 1", "this one says insert into"),
        ('store: main, query: "select :a", arguments: [b]', "the query has no :b"),
        ('store: main, query: "select :a, :c", arguments: [a]', '":c" is none of its `arguments`'),
        ('store: main, query: "select :a", arguments: [a, a]', "an argument stands twice"),
        ("store: main, query: select 1, limit: 10001", "expected at most 10000"),
        ("store: main, query: select 1, limit: 0", "expected 1 or more"),
        ("store: main, query: select 1, arguments: ['a b']", "expected a name"),
    ],
)
def test_what_cannot_be_is_refused_when_the_file_is_read(it: str, said: str) -> None:
    assert said in refused(it)


def test_a_text_that_says_delete_is_no_deletion() -> None:
    stack = check_text(FILE.format(it="store: main, query: \"select 'delete from t' as text\""), "demo.yml")
    assert stack.queries["it"].limit == 100

"""The rules of a stack file: what may be said, and every contradiction and wrong word once, with its place and a sentence."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.stack.loader import check_text, load_stack
from storekeeper.stack.mistakes import StackFileErrors
from storekeeper.stack.model import Stack
from storekeeper.stack.rules import Authority, Place, Replica, Rule

STACKS = Path(__file__).resolve().parents[2] / "inventories/stacks"
GOOD = """\
stack: maestro
stores:
  main:    {kind: sqlite, path: /srv/maestro.db}
  records: {kind: postgresql, database: maestro, user: maestro}
  vectors: {kind: chroma, path: /srv/vectors}
  papers:  {kind: files, path: /srv/papers}
consistency:
  documents:
    authority:
      store: main
      query: "select id, user_id, status, updated_at from documents"
      rows:
        - {table: documents, key: id}
        - {table: links, key: document_id, of: documents, to: id}
    states: {complete: [completed], failed: [failed], in_flight: [pending]}
    grace: 12h
    brake: {percent: 1.5, documents: 50}
    replicas:
      - {store: records, query: "select id from copies", columns: [id]}
      - {store: vectors, collections: [dense, sparse], key: doc_id, owner: user_id}
      - {store: papers, pattern: "pdfs/{id}_*"}
schedule: {check: "0 * * * *"}
"""
QUERY = '      query: "select id, user_id, status, updated_at from documents"\n'
ROWS = GOOD[GOOD.index("      rows:") : GOOD.index("    states:")]
AUTHORITY = GOOD[GOOD.index("    authority:") : GOOD.index("    states:")]
REPLICAS = GOOD[GOOD.index("    replicas:") : GOOD.index("schedule:")]
RULES = GOOD[GOOD.index("consistency:") : GOOD.index("schedule:")]


def mistakes_in(text: str) -> list[str]:
    with pytest.raises(StackFileErrors) as caught:
        check_text(text, "m")
    return [str(mistake) for mistake in caught.value.mistakes]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def rule_of(text: str) -> Rule:
    return check_text(text, "m").consistency["documents"]


def test_a_good_rule_is_read_exactly() -> None:
    rule = rule_of(GOOD)
    assert rule.stores == ("records", "vectors", "papers")
    assert rule.authority.columns == ("id", "owner", "state", "at")
    assert [(each.table, each.key, each.of, each.to) for each in rule.authority.rows] == [
        ("documents", "id", None, None),
        ("links", "document_id", "documents", "id"),
    ]
    assert rule.states is not None
    assert (rule.states.complete, rule.states.failed, rule.states.in_flight) == (("completed",), ("failed",), ("pending",))
    assert (rule.grace, rule.brake.percent, rule.brake.documents) == (timedelta(hours=12), 1.5, 50)
    assert [each.columns for each in rule.replicas] == [("id",)] * 3
    assert rule.replicas[1].collections == ("dense", "sparse")
    assert (rule.replicas[1].key, rule.replicas[1].owner, rule.replicas[2].pattern) == ("doc_id", "user_id", "pdfs/{id}_*")


def test_what_is_left_out_is_careful() -> None:
    text = changed("    grace: 12h\n", "").replace("    brake: {percent: 1.5, documents: 50}\n", "")
    rule = rule_of(text.replace("    states: {complete: [completed], failed: [failed], in_flight: [pending]}\n", ""))
    assert (rule.grace, rule.brake.percent, rule.brake.documents) == (timedelta(hours=24), 1.0, 100)
    assert rule.states is None


def test_rules_are_written_and_read_back_equal() -> None:
    stack = check_text(GOOD, "m")
    assert Stack.model_validate_json(stack.model_dump_json(exclude_unset=True)) == stack
    assert check_text(json.dumps(stack.model_dump(mode="json", exclude_unset=True)), "m") == stack


@pytest.mark.parametrize(("name", "rules"), [("maestro", ["documents"]), ("rag", ["documents", "citations"])])
def test_the_stack_files_that_the_project_ships_are_read(name: str, rules: list[str]) -> None:
    stack = load_stack(STACKS / f"{name}.yml")
    assert list(stack.consistency) == rules
    assert "check" in [entry.verb for entry in stack.schedule]


def test_a_stack_may_have_several_rules_and_one_without_states() -> None:
    second = '  notes: {authority: {store: main, query: "select id from notes"}, replicas: [{store: papers, pattern: "notes/{id}"}]}\n'
    stack = check_text(changed("schedule:", f"{second}schedule:"), "m")
    assert list(stack.consistency) == ["documents", "notes"]
    assert stack.consistency["notes"].states is None


@pytest.mark.parametrize(
    "query",
    ["select 1", "SELECT id FROM t", "  select id from t", "with a as (select 1) select * from a", "values ('a')", "(select 1)"],
)
def test_a_select_in_any_form_is_taken(query: str) -> None:
    assert rule_of(changed("select id from copies", query)).replicas[0].query == query


@pytest.mark.parametrize("pattern", ["{id}", "{id}.md", "{owner}/{id}.pdf", "{owner}_{id}.pdf", "a/*/{id}_*.p?f", "a b/{id} *"])
def test_a_pattern_in_which_an_id_can_be_told_is_taken(pattern: str) -> None:
    assert rule_of(changed("pdfs/{id}_*", pattern)).replicas[2].pattern == pattern


ONE_SELECT = "expected one select without a semicolon, of at most 4000 characters"
A_SIGN = "expected a sign between {id} and what else may be anything, such as {id}_*"
ONE_ID = "expected a path with one {id}, at most one {owner}, and * or ? within a name"
NO_BRACES = "expected no other braces or brackets than those of {id} and {owner}"
A_NAME = "expected a name (a-z, 0-9, _, a letter first, at most 40)"

WRONG: dict[str, tuple[str, str, str]] = {
    # what is replaced: what stands there instead, all that is said about it
    "a store that is not there": (
        "{store: vectors,",
        "{store: vektors,",
        '20:17: consistency.documents.replicas[1].store: there is no store "vektors"\n    did you mean "vectors"?',
    ),
    "an authority that is not there": (
        "      store: main",
        "      store: users",
        '10:14: consistency.documents.authority.store: there is no store "users"',
    ),
    "a store that is no name": (
        "{store: vectors,",
        "{store: Vectors,",
        f'20:17: consistency.documents.replicas[1].store: {A_NAME}, found "Vectors"',
    ),
    "no store": ("{store: papers, ", "{", '21:9: consistency.documents.replicas[2]: missing key "store"'),
    "no authority": (AUTHORITY, "", '8:3: consistency.documents: missing key "authority"'),
    "no replicas": (REPLICAS, "", '8:3: consistency.documents: missing key "replicas"'),
    "an empty list of replicas": (REPLICAS, "    replicas: []\n", "18:15: consistency.documents.replicas: expected at least one"),
    "a mapping for replicas": (
        REPLICAS,
        "    replicas: {store: main}\n",
        "18:15: consistency.documents.replicas: expected a list, found a mapping",
    ),
    "too many replicas": (
        REPLICAS,
        "    replicas:\n" + '      - {store: papers, pattern: "pdfs/{id}_*"}\n' * 21,
        "19:7: consistency.documents.replicas: expected at most 20, found 21",
    ),
    "a text for a replica": (
        '{store: papers, pattern: "pdfs/{id}_*"}',
        "papers",
        '21:9: consistency.documents.replicas[2]: expected a mapping, found "papers"',
    ),
    "a pattern in Chroma": (
        "collections: [dense, sparse], key: doc_id, owner: user_id",
        'pattern: "a/{id}"',
        "20:35: consistency.documents.replicas[1].pattern: vectors is a chroma store, whose places are named by `collections` and `key`",
    ),
    "a query of files": (
        'pattern: "pdfs/{id}_*"}',
        'query: "select 1"}',
        "21:32: consistency.documents.replicas[2].query: papers is a files store, whose places are named by `pattern`",
    ),
    "collections of a database": (
        'query: "select id from copies", columns: [id]',
        "collections: [a], key: b",
        "19:39: consistency.documents.replicas[0].collections: records is a postgresql store, whose places are named by `query` or `rows`",
    ),
    "two forms at once": (
        "pattern:",
        "key: doc_id, pattern:",
        "21:30: consistency.documents.replicas[2].key: papers is a files store, whose places are named by `pattern`",
    ),
    "columns of collections": (
        "owner: user_id}",
        "columns: [id]}",
        "20:78: consistency.documents.replicas[1].columns: vectors is a chroma store, whose places are named by `collections` and `key`",
    ),
    "collections without a key": (
        "key: doc_id, ",
        "",
        "20:9: consistency.documents.replicas[1]: vectors is a chroma store: declare `collections` and `key`",
    ),
    "a key without collections": (
        "collections: [dense, sparse], ",
        "",
        "20:9: consistency.documents.replicas[1]: vectors is a chroma store: declare `collections` and `key`",
    ),
    "no collection": (
        "[dense, sparse]",
        "[]",
        "20:9: consistency.documents.replicas[1]: vectors is a chroma store: declare `collections` and `key`",
    ),
    "files without a pattern": (
        ', pattern: "pdfs/{id}_*"',
        "",
        "21:9: consistency.documents.replicas[2]: papers is a files store: declare `pattern`",
    ),
    "a database without query or rows": (
        ', query: "select id from copies", columns: [id]',
        "",
        "19:9: consistency.documents.replicas[0]: records is a postgresql store: declare `query` or `rows`",
    ),
    "two statements": (
        "select id from copies",
        "select 1; drop table copies",
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "select 1; drop table copies"',
    ),
    "a semicolon at the end": (
        "select id from copies",
        "select 1;",
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "select 1;"',
    ),
    "a statement that deletes": (
        "select id from copies",
        "delete from copies",
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "delete from copies"',
    ),
    "a pragma": (
        "select id from copies",
        "pragma user_version",
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "pragma user_version"',
    ),
    "a word that begins like select": (
        "select id from copies",
        "selected",
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "selected"',
    ),
    "a query of nothing": ("select id from copies", "", f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found ""'),
    "a query without end": (
        "select id from copies",
        "select " + "x" * 4000,
        f'19:33: consistency.documents.replicas[0].query: {ONE_SELECT}, found "select {"x" * 50}..."',
    ),
    "a number for a query": (
        '"select id from copies"',
        "1",
        "19:33: consistency.documents.replicas[0].query: expected text, found the number 1\n    put it in quotes",
    ),
    "a pattern without an id": (
        "pdfs/{id}_*",
        "pdfs/*.pdf",
        f'21:34: consistency.documents.replicas[2].pattern: {ONE_ID}, found "pdfs/*.pdf"',
    ),
    "a pattern with two ids": (
        "pdfs/{id}_*",
        "{id}/{id}.pdf",
        f'21:34: consistency.documents.replicas[2].pattern: {ONE_ID}, found "{{id}}/{{id}}.pdf"',
    ),
    "a pattern with two owners": (
        "pdfs/{id}_*",
        "{owner}/{owner}/{id}",
        f'21:34: consistency.documents.replicas[2].pattern: {ONE_ID}, found "{{owner}}/{{owner}}/{{id}}"',
    ),
    "a pattern of any depth": (
        "pdfs/{id}_*",
        "**/{id}_*",
        f'21:34: consistency.documents.replicas[2].pattern: {ONE_ID}, found "**/{{id}}_*"',
    ),
    "an id that ends nowhere": (
        "pdfs/{id}_*",
        "pdfs/{id}*",
        f'21:34: consistency.documents.replicas[2].pattern: {A_SIGN}, found "pdfs/{{id}}*"',
    ),
    "an id that ends anywhere": (
        "pdfs/{id}_*",
        "pdfs/{id}?",
        f'21:34: consistency.documents.replicas[2].pattern: {A_SIGN}, found "pdfs/{{id}}?"',
    ),
    "an id that begins anywhere": (
        "pdfs/{id}_*",
        "pdfs/*{id}",
        f'21:34: consistency.documents.replicas[2].pattern: {A_SIGN}, found "pdfs/*{{id}}"',
    ),
    "an owner that runs into the id": (
        "pdfs/{id}_*",
        "{owner}{id}",
        f'21:34: consistency.documents.replicas[2].pattern: {A_SIGN}, found "{{owner}}{{id}}"',
    ),
    "braces of a shell": (
        "pdfs/{id}_*",
        "{id}.{pdf,md}",
        f'21:34: consistency.documents.replicas[2].pattern: {NO_BRACES}, found "{{id}}.{{pdf,md}}"',
    ),
    "a word that no pattern knows": (
        "pdfs/{id}_*",
        "{user}/{id}",
        f'21:34: consistency.documents.replicas[2].pattern: {NO_BRACES}, found "{{user}}/{{id}}"',
    ),
    "brackets": (
        "pdfs/{id}_*",
        "{id}_[0-9]",
        f'21:34: consistency.documents.replicas[2].pattern: {NO_BRACES}, found "{{id}}_[0-9]"',
    ),
    "a pattern upward": (
        "pdfs/{id}_*",
        "../{id}_*",
        '21:34: consistency.documents.replicas[2].pattern: expected a path below the store\'s root, found "../{id}_*"',
    ),
    "a pattern from the root of the host": (
        "pdfs/{id}_*",
        "/pdfs/{id}_*",
        '21:34: consistency.documents.replicas[2].pattern: expected a path below the store\'s root, found "/pdfs/{id}_*"',
    ),
    "a state of two meanings": (
        "failed: [failed]",
        "failed: [completed]",
        '15:13: consistency.documents.states: the state "completed" stands twice, and can mean one thing only',
    ),
    "a state twice": (
        "[pending]",
        "[pending, pending]",
        '15:13: consistency.documents.states: the state "pending" stands twice, and can mean one thing only',
    ),
    "states of which none is complete": (
        "complete: [completed], ",
        "",
        '15:5: consistency.documents.states: missing key "complete"',
    ),
    "an empty list of complete states": (
        "[completed]",
        "[]",
        "15:24: consistency.documents.states.complete: expected at least one",
    ),
    "a text for states": (
        "[completed]",
        "completed",
        '15:24: consistency.documents.states.complete: expected a list, found "completed"',
    ),
    "a number for a state": (
        "[pending]",
        "[1]",
        "15:67: consistency.documents.states.in_flight[0]: expected text, found the number 1\n    put it in quotes",
    ),
    "states without a column of them": (
        QUERY,
        f"{QUERY}      columns: [id, owner]\n",
        "16:13: consistency.documents.states: the authority has no column `state` that they could explain",
    ),
    "states without a query": (
        QUERY,
        "",
        "14:13: consistency.documents.states: the authority has no column `state` that they could explain",
    ),
    "columns that do not begin with the id": (
        QUERY,
        f"{QUERY}      columns: [owner, id, state]\n",
        "12:16: consistency.documents.authority.columns: expected id first, then each of owner, state, at, chunks at most once",
    ),
    "a column twice": (
        QUERY,
        f"{QUERY}      columns: [id, state, state]\n",
        "12:16: consistency.documents.authority.columns: expected id first, then each of owner, state, at, chunks at most once",
    ),
    "no column": (
        "columns: [id]",
        "columns: []",
        "19:67: consistency.documents.replicas[0].columns: expected id first, then each of owner, chunks at most once",
    ),
    "a column that only an authority has": (
        "columns: [id]",
        "columns: [id, state]",
        '19:72: consistency.documents.replicas[0].columns[1]: expected one of id, owner, chunks, found "state"',
    ),
    "a mistyped column": (
        QUERY,
        f"{QUERY}      columns: [id, ownr, state]\n",
        '12:21: consistency.documents.authority.columns[1]: expected one of id, owner, state, at, chunks, found "ownr"',
    ),
    "columns without a query": (
        'query: "select id from copies", columns: [id]',
        "rows: [{table: copies, key: id}], columns: [id]",
        "19:69: consistency.documents.replicas[0].columns: there is no `query` whose columns they could be",
    ),
    "rows of a table that is not there": (
        "of: documents",
        "of: document",
        '14:48: consistency.documents.authority.rows[1].of: expected a table that stands before it, found "document"',
    ),
    "rows of a table that comes later": (
        ROWS,
        "      rows: [{table: a, key: b}, {table: c, key: d, of: e, to: f}, {table: e, key: g}]\n",
        '12:57: consistency.documents.authority.rows[1].of: expected a table that stands before it, found "e"',
    ),
    "rows of themselves": (
        "of: documents",
        "of: links",
        '14:48: consistency.documents.authority.rows[1].of: expected a table that stands before it, found "links"',
    ),
    "`of` without `to`": (
        "of: documents, to: id",
        "of: documents",
        "14:11: consistency.documents.authority.rows[1]: `of` and `to` stand together, or neither does",
    ),
    "`to` without `of`": (
        "of: documents, to: id",
        "to: id",
        "14:11: consistency.documents.authority.rows[1]: `of` and `to` stand together, or neither does",
    ),
    "a first table that belongs to another": (
        "{table: documents, key: id}",
        "{table: documents, key: id, of: links, to: x}",
        "13:11: consistency.documents.authority.rows[0]: the first table holds the document itself, and belongs to no other",
    ),
    "rows without a key": (
        "{table: documents, key: id}",
        "{table: documents}",
        '13:11: consistency.documents.authority.rows[0]: missing key "key"',
    ),
    "a mistyped key of rows": (
        "{table: documents, key: id}",
        "{table: documents, kee: id}",
        '13:30: consistency.documents.authority.rows[0]: unknown key "kee"\n    did you mean "key"?',
    ),
    "a mapping for rows": (
        ROWS,
        "      rows: {table: documents, key: id}\n",
        "12:13: consistency.documents.authority.rows: expected a list, found a mapping",
    ),
    "a table over two lines": (
        "table: documents",
        'table: "docu\\nments"',
        '13:19: consistency.documents.authority.rows[0].table: expected a table\'s name, or schema.name, found "docu\\nments"',
    ),
    "a collection twice": (
        "[dense, sparse]",
        "[dense, dense]",
        '20:39: consistency.documents.replicas[1].collections: the collection "dense" stands twice',
    ),
    "a text for collections": (
        "[dense, sparse]",
        "dense",
        '20:39: consistency.documents.replicas[1].collections: expected a list, found "dense"',
    ),
    "a collection without a name": (
        "[dense, sparse]",
        '[""]',
        '20:40: consistency.documents.replicas[1].collections[0]: expected a name without control characters, at most 200, found ""',
    ),
    "a number for a key of metadata": (
        "key: doc_id",
        "key: 5",
        "20:61: consistency.documents.replicas[1].key: expected text, found the number 5\n    put it in quotes",
    ),
    "a share above all": (
        "percent: 1.5",
        "percent: 101",
        "17:22: consistency.documents.brake.percent: expected at most 100, found the number 101",
    ),
    "a share below nothing": (
        "percent: 1.5",
        "percent: -0.1",
        "17:22: consistency.documents.brake.percent: expected 0 or more, found the number -0.1",
    ),
    "a share with its sign": (
        "percent: 1.5",
        "percent: 1%",
        '17:22: consistency.documents.brake.percent: expected a number, found "1%"',
    ),
    "a number of documents below nothing": (
        "documents: 50",
        "documents: -1",
        "17:38: consistency.documents.brake.documents: expected 0 or more, found the number -1",
    ),
    "a number of documents beyond all": (
        "documents: 50",
        "documents: 1000000001",
        "17:38: consistency.documents.brake.documents: expected at most 1000000000, found the number 1000000001",
    ),
    "half a document": (
        "documents: 50",
        "documents: 1.5",
        "17:38: consistency.documents.brake.documents: expected a whole number, found the number 1.5",
    ),
    "a grace without its unit": (
        "grace: 12h",
        "grace: 12",
        "16:12: consistency.documents.grace: expected a duration such as 30m, 26h, 7d or 2w, found the number 12",
    ),
    "a mistyped key of a rule": ("grace:", "grase:", '16:5: consistency.documents: unknown key "grase"\n    did you mean "grace"?'),
    "a mistyped authority": (
        "authority:",
        "autority:",
        '9:5: consistency.documents: unknown key "autority"\n    did you mean "authority"?',
    ),
    "a mistyped key of a place": (
        "collections:",
        "colections:",
        '20:26: consistency.documents.replicas[1]: unknown key "colections"\n    did you mean "collections"?',
    ),
    "a rule that is no name": ("  documents:\n", "  Documents:\n", f'8:3: consistency: {A_NAME}, found "Documents"'),
    "a rule twice": ("schedule:", "  documents: {}\nschedule:", '22:3: consistency: key "documents" stands twice, first in line 8'),
    "a text for a rule": (RULES, "consistency: {documents: x}\n", '7:26: consistency.documents: expected a mapping, found "x"'),
    "a list of rules": (RULES, "consistency: [a]\n", "7:14: consistency: expected a mapping, found a list"),
    "a check on a schedule without a rule": (RULES, "", "7:11: schedule: check needs a rule in `consistency`"),
    "a check on a schedule with no rule in the mapping": (
        RULES,
        "consistency: {}\n",
        "8:11: schedule: check needs a rule in `consistency`",
    ),
    "a check in a list of the schedule without a rule": (
        f'{RULES}schedule: {{check: "0 * * * *"}}\n',
        'schedule: [{verb: check, at: "0 * * * *"}, {verb: check, arguments: [--stats], at: "0 0 * * *"}]\n',
        "7:11: schedule: check needs a rule in `consistency`",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_mistake_of_a_rule_is_one_problem_with_its_place(name: str) -> None:
    old, new, said = WRONG[name]
    assert mistakes_in(changed(old, new)) == [f"m:{said}"]


def test_mistakes_of_several_rules_and_places_are_all_said() -> None:
    text = GOOD.replace("{store: vectors,", "{store: nowhere,").replace('pattern: "pdfs/{id}_*"', "key: doc_id").replace(", to: id", "")
    assert mistakes_in(text) == ["m:14:11: consistency.documents.authority.rows[1]: `of` and `to` stand together, or neither does"]
    assert mistakes_in(text.replace("of: documents}", "of: documents, to: id}")) == [
        'm:20:17: consistency.documents.replicas[1].store: there is no store "nowhere"',
        "m:21:30: consistency.documents.replicas[2].key: papers is a files store, whose places are named by `pattern`",
    ]


def test_a_word_of_a_rule_is_shown_though_its_name_sounds_like_a_secret() -> None:
    """A control stands beside it: of a store's password only what kind of thing it is."""
    assert mistakes_in(changed("owner: user_id", "owner: [a]").replace("  documents:\n", "  tokens:\n")) == [
        "m:20:76: consistency.tokens.replicas[1].owner: expected text, found a list"
    ]
    assert mistakes_in(changed("grace: 12h", "grace: soon").replace("  documents:\n", "  tokens:\n")) == [
        'm:16:12: consistency.tokens.grace: expected a duration such as 30m, 26h, 7d or 2w, found "soon"'
    ]
    assert "hunter2" not in "".join(mistakes_in(changed("user: maestro}", "user: maestro, password: {file: hunter2}}")))


@pytest.mark.parametrize("place", [Authority, Replica])
def test_every_key_of_a_place_is_told_in_the_reference(place: type[Place]) -> None:
    assert all(field.description for field in place.model_fields.values())

"""A wrong stack file: every mistake once, with its line, in words; and nothing secret in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from storekeeper.outcomes import Outcome, Refused
from storekeeper.stack.loader import StackFileErrors, check_text, load_stack
from storekeeper.stack.model import FilesModel, Stack

GOOD = """\
stack: maestro
stores:
  main:     {kind: sqlite, path: /srv/maestro/data/maestro.db}
  vectors:
    kind: chroma
    path: /srv/vectors
    runtime: {systemd: maestro-chroma}
  papers:   {kind: files, path: /srv/papers, include: [raw_pdfs, processed/markdown]}
  rows:
    kind: postgresql
    database: maestro
    user: maestro
    password: {file: /etc/storekeeper/secrets/maestro}
    admin: {user: postgres}
services: [{systemd: maestro-backend}]
backup: {keep: {days: 30, daily: 7}}
restore: {keep_old: 7d}
schedule: {backup: "0 3 * * *"}
"""


def mistakes_in(text: str, label: str = "stacks/maestro.yml") -> list[str]:
    with pytest.raises(StackFileErrors) as caught:
        check_text(text, label)
    return [str(mistake) for mistake in caught.value.mistakes]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


def test_a_good_file_is_read_exactly() -> None:
    stack = check_text(GOOD, "maestro.yml")
    assert list(stack.stores) == ["main", "vectors", "papers", "rows"]
    assert stack.stores["papers"].include == ("raw_pdfs", "processed/markdown")  # type: ignore[union-attr]
    assert stack.backup.keep.days == 30
    assert stack.backup.keep.monthly == 6
    assert str(stack.schedule[0].at) == "0 3 * * *"


def test_what_was_read_is_written_and_read_back_equal() -> None:
    stack = check_text(GOOD, "maestro.yml")
    assert Stack.model_validate_json(stack.model_dump_json()) == stack
    assert check_text(json.dumps(stack.model_dump(mode="json", exclude_defaults=True)), "x.json") == stack


def test_all_mistakes_are_said_at_once_in_the_promised_form() -> None:
    text = GOOD.replace("    path: /srv/vectors", "    path: /srv/vectors\n    colections: [a]").replace("daily: 7", "weekly: four")
    text = text.replace("include: [", "includ: [")
    with pytest.raises(StackFileErrors) as caught:
        check_text(text, "stacks/maestro.yml")
    assert caught.value.message == (
        'stacks/maestro.yml:7:5: stores.vectors: unknown key "colections"\n'
        'stacks/maestro.yml:9:46: stores.papers: unknown key "includ"\n'
        '    did you mean "include"?\n'
        'stacks/maestro.yml:17:35: backup.keep.weekly: expected a number, found "four"\n'
        "3 problems. Nothing was changed."
    )
    assert caught.value.outcome is Outcome.REFUSED
    assert [problem.next for problem in caught.value.problems()] == [None, 'did you mean "include"?', None]


TYPOS = {
    # what is replaced: what stands there instead, what is said about it
    "a word for a number": ("days: 30", "days: four", '16:23: backup.keep.days: expected a number, found "four"'),
    "a fraction": ("days: 30", "days: 1.5", "16:23: backup.keep.days: expected a whole number, found the number 1.5"),
    "an octal number": ("days: 30", "days: 0777", '16:23: backup.keep.days: expected a number, found "0777"'),
    "a sexagesimal number": ("days: 30", "days: 1:30", '16:23: backup.keep.days: expected a number, found "1:30"'),
    "a huge number": ("days: 30", f"days: {'9' * 5000}", "16:23: backup.keep.days: expected a number"),
    "a negative number": ("days: 30", "days: -1", "16:23: backup.keep.days: expected 0 or more, found the number -1"),
    "a truth value for a number": ("days: 30", "days: yes", "16:23: backup.keep.days: expected a number, found the truth value yes"),
    "a mistyped key": ("days: 30", "dais: 30", '16:17: backup.keep: unknown key "dais"\n    did you mean "days"?'),
    "a mistyped key that is needed": (
        "database: maestro",
        "databse: x",
        '11:5: stores.rows: unknown key "databse"\n    did you mean "database"?',
    ),
    "a key that is needed": ("    path: /srv/vectors\n", "", '4:3: stores.vectors: missing key "path"'),
    "a mistyped kind": (
        "kind: chroma",
        "kind: chrome",
        '5:11: stores.vectors.kind: expected one of postgresql, sqlite, chroma, files, found "chrome"',
    ),
    "a mistyped `kind`": ("kind: chroma", "kid: chroma", '4:3: stores.vectors: missing key "kind"'),
    "no for a text": (
        "database: maestro",
        "database: no",
        "11:15: stores.rows.database: expected text, found the truth value no\n    put it in quotes",
    ),
    "a number for a text": ("database: maestro", "database: 12", "11:15: stores.rows.database: expected text, found the number 12"),
    "nothing for a text": ("database: maestro", "database:", "11:14: stores.rows.database: expected a value, found nothing"),
    "nothing in a list": ("[raw_pdfs", "[~", "8:56: stores.papers.include[0]: expected a value, found nothing"),
    "nothing for a mapping": ("restore: {keep_old: 7d}", "restore:", "17:9: restore: expected a value, found nothing"),
    "a list for a mapping": ("restore: {keep_old: 7d}", "restore: [a]", "17:10: restore: expected a mapping, found a list"),
    "a text for a store": (
        "{kind: sqlite, path: /srv/maestro/data/maestro.db}",
        "/srv/x.db",
        "3:13: stores.main: expected a mapping, found",
    ),
    "a mapping for a list": (
        "[{systemd: maestro-backend}]",
        "{systemd: x}",
        "15:11: services: expected a list such as [{systemd: UNIT}], found a mapping",
    ),
    "a text for a service": ("[{systemd: maestro-backend}]", "[x]", '15:12: services[0]: expected a mapping, found "x"'),
    "a text for a runtime": ("{systemd: maestro-chroma}", "x", '7:14: stores.vectors.runtime: expected {systemd: UNIT}, found "x"'),
    "a runtime of nothing": ("{systemd: maestro-chroma}", "{}", '7:5: stores.vectors.runtime: missing key "systemd"'),
    "a mistyped runtime": ("{systemd: maestro-chroma}", "{sistemd: x}", '7:15: stores.vectors.runtime: unknown key "sistemd"'),
    "a unit that is an option": (
        "{systemd: maestro-chroma}",
        "{systemd: --now}",
        "7:24: stores.vectors.runtime.systemd: expected the name of a systemd unit",
    ),
    "two ways to a secret": (
        "{file: /etc/storekeeper/secrets/maestro}",
        "{file: /a, env: B}",
        "13:15: stores.rows.password: expected exactly one of file and env",
    ),
    "a secret that cron has not": (
        "{file: /etc/storekeeper/secrets/maestro}",
        "{env: B}",
        "13:21: stores.rows.password.env: cron has no such environment",
    ),
    "a duration without its unit": (
        "keep_old: 7d",
        "keep_old: 7",
        "17:21: restore.keep_old: expected a duration such as 30m, 26h, 7d or 2w, found the number 7",
    ),
    "four fields": ("0 3 * * *", "0 3 * *", "18:20: schedule.backup: expected five fields such as 0 3 * * *, found '0 3 * *'"),
    "a day that never comes": ("0 3 * * *", "0 3 31 2 *", "18:20: schedule.backup: no month in 2 has a day 31"),
    "a number for a time": ('"0 3 * * *"', "7", "18:20: schedule.backup: expected five fields such as 0 3 * * *, found the number 7"),
    "a mistyped verb": (
        "{backup:",
        "{bakup:",
        "18:12: schedule: expected one of backup, verify, prove, prune, check, examine, status, list, doctor",
    ),
    "a hostile argument": (
        '{backup: "0 3 * * *"}',
        '[{verb: verify, arguments: ["; x"], at: "0 3 * * *"}]',
        "18:39: schedule[0].arguments[0]: expected an option",
    ),
    "a schedule without a time": ('{backup: "0 3 * * *"}', "[{verb: verify}]", '18:12: schedule[0]: missing key "at"'),
    "a relative path": (
        "path: /srv/vectors",
        "path: srv/vectors",
        '6:11: stores.vectors.path: expected an absolute path, found "srv/vectors"',
    ),
    "a path upward": ("path: /srv/vectors", "path: /srv/../x", "6:11: stores.vectors.path: expected an absolute path without '..'"),
    "the root": ("path: /srv/vectors", "path: /", "6:11: stores.vectors.path: expected an absolute path without '..'"),
    "an entry upward": ("[raw_pdfs", "[../x", "8:56: stores.papers.include[0]: expected a path below the store's root"),
    "stores that overlap": (
        "path: /srv/vectors",
        "path: /srv/papers/raw_pdfs/x",
        "8:33: stores.papers.path: /srv/papers/raw_pdfs overlaps",
    ),
    "entries that overlap": ("[raw_pdfs", "[processed", "8:33: stores.papers.path: /srv/papers/processed/markdown overlaps"),
    "a stack that is no name": ("stack: maestro", "stack: Maestro", "1:8: stack: expected a name"),
    "no stack": ("stack: maestro\n", "", '1:1: missing key "stack"'),
    "a store that is no name": (
        "  main:  ",
        "  Main:  ",
        '3:3: stores: expected a name (a-z, 0-9, _, a letter first, at most 40), found "Main"',
    ),
    "a store called no": ("  main:  ", "  no:  ", "3:3: stores.no: expected text as a key, found the truth value no\n    put it in quotes"),
    "a store called 1": ("  main:  ", "  1:  ", "3:3: stores."),
    "one store twice": ("  main:  ", "  vectors:  ", '4:3: stores: key "vectors" stands twice, first in line 3'),
    "one key twice": ("schedule: {", "stack: maestro\nschedule: {", '18:1: key "stack" stands twice, first in line 1'),
    "a port out of range": (
        "    user: maestro\n",
        "    user: maestro\n    port: 70000\n",
        "13:11: stores.rows.port: expected at most 65535",
    ),
    "a number for a truth value": (
        "    user: maestro\n",
        "    user: maestro\n    sql: 1\n",
        "13:10: stores.rows.sql: expected true or false",
    ),
    "a connection string": ("database: maestro", 'database: "host=x"', "11:15: stores.rows.database: expected a database or role name"),
    "an anchor": ("stack: maestro", "stack: &a maestro", "1:8: anchors and aliases"),
    "an alias": ("stack: maestro", "stack: *a", "1:8: anchors and aliases"),
    "a tag": ("stack: maestro", "stack: !!str maestro", "1:8: tags (!) are not read"),
    "a tag that runs code": ("stack: maestro", "stack: !!python/object/apply:os.system [true]", "1:8: tags (!) are not read"),
    "a merge key": ("stack: maestro", "<<: {a: b}\nstack: maestro", '1:1: unknown key "<<"'),
    "a tabulator": ("stack: maestro", "stack: maestro\n\tx: 1", "2:1: this is not YAML"),
    "a bracket left open": ("stack: maestro", "stack: [maestro", "this is not YAML"),
    "two documents": ("stack: maestro\n", "stack: maestro\n---\n", "2:1: this is not YAML: expected a single document"),
    "containers": (
        "{systemd: maestro-chroma}",
        "{docker: x}",
        '7:15: stores.vectors.runtime: "docker" is not known to this version of storekeeper',
    ),
    "compose": (
        "{systemd: maestro-chroma}",
        "{compose: x, service: y}",
        '7:15: stores.vectors.runtime: "compose" is not known to this version',
    ),
    "containers as services": (
        "[{systemd: maestro-backend}]",
        "[{docker: x}]",
        '15:13: services[0]: "docker" is not known to this version',
    ),
    "neo4j": (
        "kind: chroma",
        "kind: neo4j\n    url: bolt://x",
        '5:11: stores.vectors.kind: "neo4j" is not known to this version of storekeeper',
    ),
    "a verb of later": ("{backup:", "{measure:", '18:12: schedule: "measure" on a schedule is not known to this version of storekeeper'),
}


@pytest.mark.parametrize("name", TYPOS)
def test_one_mistake_is_one_problem(name: str) -> None:
    old, new, said = TYPOS[name]
    found = mistakes_in(changed(old, new))
    assert len(found) == 1, found
    assert said in found[0].removeprefix("stacks/maestro.yml:")


@pytest.mark.parametrize("key", ["thresholds", "probes", "pools", "sample", "notify", "copies"])
def test_a_key_of_a_later_version_is_named_as_such(key: str) -> None:
    assert mistakes_in(f"{GOOD}{key}: {{a: b}}\n") == [f'stacks/maestro.yml:19:1: "{key}" is not known to this version of storekeeper']


def test_safe_load_and_the_bare_model_let_through_what_is_refused_here() -> None:
    """The control: duplicates vanish, `no` becomes False, an octal port changes, and a union gives one mistake several times."""
    assert yaml.safe_load("a: 1\na: 2\nb: no\nc: 0123\nd: 1:30") == {"a": 2, "b": False, "c": 83, "d": 90}
    with pytest.raises(ValidationError) as caught:
        FilesModel.model_validate({"kind": "files", "pth": "/x"})
    assert caught.value.error_count() == 2


@pytest.mark.parametrize(
    "text",
    [
        changed("{file: /etc/storekeeper/secrets/maestro}", "hunter2"),
        changed("{file: /etc/storekeeper/secrets/maestro}", "{file: hunter2}"),
        changed("{file: /etc/storekeeper/secrets/maestro}", "{env: hunter2-}"),
        changed("{file: /etc/storekeeper/secrets/maestro}", "[hunter2]"),
        changed("{file: /etc/storekeeper/secrets/maestro}", "{file: /a, pass: hunter2}"),
        changed("{file: /etc/storekeeper/secrets/maestro}", "|\n hunter2\n"),
        changed("admin: {user: postgres}", "admin: {user: postgres, password: hunter2}"),
        changed("password:", "pasword: hunter2\n    x:"),
        GOOD + "ping: https://hunter2:hunter2@example.org/\n",
        GOOD + "ping: ftp://example.org/hunter2\n",
        changed("    runtime: {systemd: maestro-chroma}", "    url: http://u:hunter2@localhost/"),
        GOOD + "password: hunter2: hunter2\n",
        GOOD + "password: [hunter2\n",
        GOOD + "password: &hunter2 x\n",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    assert "hunter2" in text
    assert "hunter2" not in "\n".join(mistakes_in(text))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected a mapping of keys to values, found nothing"),
        (b"[]", "found a list"),
        (b"maestro", 'found "maestro"'),
        (b"stack: \xff", "the file is not UTF-8 text"),
        (b"stack: \x00", "characters or escapes that YAML does not allow"),
        (b'stack: "\\U00110000"', "characters or escapes that YAML does not allow"),
        (b"[" * 100_000, "nested too deeply"),
        (b"x" * 300_000, "at most 262144 are read"),
        (b"{[a]: b}", "expected text as a key, found a list"),
    ],
)
def test_bytes_that_are_no_stack_file_are_refused_in_a_sentence(data: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "maestro.yml"
    file.write_bytes(data)
    with pytest.raises(StackFileErrors) as caught:
        load_stack(file)
    assert said in caught.value.message


def test_hostile_text_is_shown_without_its_control_signs() -> None:
    found = "\n".join(mistakes_in(changed("stack: maestro", 'stack: "a\\e[31m\\nb\\u202e"')))
    assert all(sign.isprintable() or sign == "\n" for sign in found)


def test_the_name_in_the_file_is_the_name_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mem0.yml"
    file.write_text(GOOD)
    with pytest.raises(StackFileErrors, match=r'mem0.yml:1:8: stack: expected "mem0" as the file is named, found "maestro"'):
        load_stack(file)
    file.rename(tmp_path / "maestro.yml")
    assert load_stack(tmp_path / "maestro.yml").stack == "maestro"


def test_a_file_that_everybody_may_change_or_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "maestro.yml"
    with pytest.raises(Refused, match="there is no"):
        load_stack(file)
    os.mkfifo(file)
    with pytest.raises(Refused, match="no regular file"):
        load_stack(file)
    file.unlink()
    file.write_text(GOOD)
    file.chmod(0o666)
    with pytest.raises(Refused, match="mode 0666"):
        load_stack(file)


def test_two_stores_of_one_database_are_refused() -> None:
    text = GOOD.replace("services:", "  again: {kind: postgresql, database: maestro, user: other}\nservices:")
    assert mistakes_in(text) == [
        "stacks/maestro.yml:15:39: stores.again.database: maestro is the database of stores.rows too: a restore would switch it twice"
    ]


def test_contradictions_are_all_said() -> None:
    text = GOOD.replace("{file: /etc/storekeeper/secrets/maestro}", "{env: A}").replace("path: /srv/vectors", "path: /srv/papers/raw_pdfs")
    assert len(mistakes_in(text)) == 2

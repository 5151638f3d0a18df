"""The report: true for every answer and for every silence, small, and harmless whatever the names in it are."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from pyinfra.api import OperationValueError

from operations import page, report
from storekeeper.cli import contract
from tests.deploys.fake import answer, fake_host, recorded

MADE = datetime(2026, 11, 21, 15, tzinfo=UTC)
STATUS = "storekeeper-code"  # a part of every fact's command


def overview(status: str = "status", sets: str = "list-proven") -> dict[str, Any]:
    return {"status": recorded(status), "sets": {"demo": recorded(sets)}}


class Reader(HTMLParser):
    """The tags and the text that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[tuple[str, dict[str, str | None], str]] = []  # every tag again, with the text that follows it
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.cells.append((tag, dict(attrs), ""))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style and data.strip():
            self.words.append(" ".join(data.split()))
            tag, attributes, text = self.cells.pop()
            self.cells.append((tag, attributes, text + self.words[-1]))

    @property
    def text(self) -> str:
        return " | ".join(self.words)


def read(overviews: dict[str, Any], wanted: dict[str, list[str]] | None = None) -> Reader:
    return Reader(report.render(overviews, MADE, wanted or {name: ["demo"] for name in overviews}))


@pytest.mark.parametrize(
    ("status", "sets", "verdict", "said"),
    [
        ("status", "list-proven", "OK", "1 of 1 stack is well"),
        ("status-empty", "list-empty", "needs attention", "There is no set. Nothing can be restored."),
        ("status-attention", "list-damaged", "needs attention", "is damaged: main: main/database.sqlite is altered"),
        ("status-unknown", "list-proven", "unknown", 'unknown key "bakup"'),
    ],
)
def test_each_stack_has_its_verdict_and_the_reasons(status, sets, verdict, said):
    found = read({"prod-ai-1": overview(status, sets)})
    badges = [attributes["class"] for tag, attributes in found.tags if tag == "span" and "badge" in (attributes.get("class") or "")]
    assert len(badges) == 1
    assert verdict in found.words
    assert said in found.text


def test_the_age_of_the_newest_proof_stands_against_its_limit():
    seen = overview()
    proof = seen["status"]["result"]["stacks"]["demo"]["last_proof"]
    proof.update(age_s=9 * 3600, limit_s=26 * 3600)
    found = read({"h": seen})
    assert "9 h 0 min of 26 h 0 min" in found.words
    assert ("rect", {"width": "35", "height": "4"}) in found.tags
    proof.update(age_s=30 * 3600)
    late = read({"h": seen})
    assert ("rect", {"width": "100", "height": "4"}) in late.tags
    assert any(attributes.get("class") == "gauge late" for _, attributes in late.tags)


def test_a_proof_without_a_limit_is_not_drawn_as_if_it_had_one():
    found = read({"h": overview()})
    assert "no schedule, so no limit" in found.words
    assert not any(attributes.get("class") == "gauge" for _, attributes in found.tags)


def test_a_host_that_could_not_be_read_is_listed_and_never_well():
    found = read({"prod-ai-1": overview(), "prod-ai-2": None})
    assert "prod-ai-2" in found.words
    assert "This host could not be read: no earlier report has heard of it. Nothing is known about its backups." in found.words
    assert "1 of 1 stack is well, 1 host does not answer" in found.words
    assert found.words.index("prod-ai-2") < found.words.index("prod-ai-1"), "what needs somebody stands first"


def test_sets_that_could_not_be_listed_are_not_shown_as_none():
    seen = overview()
    seen["sets"]["demo"] = {**recorded("list-no-stack"), "stack": "demo"}
    found = read({"h": seen})
    assert "Its sets could not be read: whether there are any is not known." in found.words
    assert "There is no set" not in found.text
    assert "unknown" in found.words


def test_a_declared_stack_that_is_not_on_the_host_needs_attention_and_so_does_one_that_is_not_declared():
    assert "declared in the inventory, not on this host" in read({"h": overview()}, {"h": ["demo", "mem0"]}).words
    seen = overview()
    seen["sets"] = {}
    undeclared = read({"h": seen}, {"h": []})
    assert "kept on this host, not declared in the inventory: its sets were not asked for" in undeclared.text
    assert "needs attention" in undeclared.words


def test_a_host_without_a_stack_is_not_well():
    empty = overview()
    empty["status"]["result"]["stacks"] = {}
    empty["sets"] = {}
    assert page.fleet({"h": empty}, {}, MADE)["verdict"] == "attention"
    assert "No stack is declared on this host." in read({"h": empty}, {"h": []}).words


def test_every_bar_says_what_it_is_and_every_set_stands_in_the_table():
    found = read({"h": overview("status-attention", "list-damaged")})
    for each in recorded("list-damaged")["result"]["sets"]:
        assert f"{each['id']}: {page.spoken_size(each['bytes'])}, {each['state']}" in found.words
        assert each["id"] in found.words
    assert [a["class"] for tag, a in found.tags if tag == "rect" and a.get("class")] == ["proven", "damaged"]


def heat(found: Reader) -> list[list[str]]:
    """The heat tables of a page, a list for each row."""
    rows: list[list[str]] = []
    inside = False
    for tag, attributes, text in found.cells:
        inside = attributes.get("class") == "heat" if tag == "table" else inside
        if inside and tag == "tr":
            rows.append([])
        elif inside and tag in ("td", "th"):
            rows[-1].append(text)
    return rows


NONE = ["partial", "leftover", "foreign"]
NEVER = "titles | was never looked at: whether the stores agree is not known"


def test_stores_that_agree_are_said_to_and_when_they_were_looked_at():
    seen = {"status": recorded("status-agreement"), "sets": {"demo": recorded("list-empty")}}
    look = seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"]
    look["at"] = (MADE - timedelta(minutes=130)).isoformat()
    assert "library | in agreement | 3 documents, looked at 2 h 10 min ago, 2026-11-21 12:50 UTC" in read({"h": seen}).text


def test_findings_stand_by_class_and_store_and_none_is_a_zero():
    found = read({"h": overview("status-findings", "list-empty")})
    assert heat(found)[:1] == [["class", "cards", "papers"]]
    assert heat(found)[1:] == [["orphan", "0", "30"], ["missing", "0", "1"], *([kind, "0", "0"] for kind in NONE)]
    assert "library | 31 findings | 3 documents, looked at" in found.text
    assert "in agreement" not in found.text


def test_a_store_that_could_not_be_read_is_unknown_in_words_and_never_a_zero():
    found = read({"h": overview("status-unread", "list-empty")})
    assert heat(found) == [
        ["class", "cards", "papers"],
        ["orphan", "UNKNOWN", "30"],
        ["missing", "UNKNOWN, at least 1", "1"],
        *([kind, "UNKNOWN", "0"] for kind in NONE),
    ]
    assert "library | UNKNOWN: cards/tags could not be read | 3 documents" in found.text
    assert "in agreement" not in found.text


def test_what_nobody_could_read_anything_of_is_not_in_agreement_though_nothing_was_found():
    seen = overview("status-agreement", "list-empty")
    seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"]["unread"] = ["cards/cards", "papers/{id}.txt"]
    found = read({"h": seen})
    assert "library | UNKNOWN: cards/cards, papers/{id}.txt could not be read" in found.text
    assert {cell for row in heat(found)[1:] for cell in row[1:]} == {"UNKNOWN"}


def test_without_its_authority_nothing_is_known_of_any_store_of_a_rule():
    seen = overview("status-findings", "list-empty")
    seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"].update(documents=None, unread=["main/query"])
    assert heat(read({"h": seen}))[:3] == [
        ["class", "cards", "papers"],
        ["orphan", "UNKNOWN", "UNKNOWN, at least 30"],
        ["missing", "UNKNOWN", "UNKNOWN, at least 1"],
    ]


@pytest.mark.parametrize("status", ["status-agreement", "status-findings", "status-unread"])
def test_a_rule_that_was_never_looked_at_says_so_and_has_no_table(status):
    seen = overview(status, "list-empty")
    assert NEVER in read({"h": seen}).text
    seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"] = None
    found = read({"h": seen})
    assert found.text.count("was never looked at: whether") == 2
    assert heat(found) == []
    assert "in agreement" not in found.text


def test_a_store_of_the_rule_of_which_nothing_is_wrong_has_its_zeros_and_a_store_of_no_rule_has_no_column():
    seen = overview("status-findings", "list-empty")
    seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"]["stores"] = ["main", "cards", "papers"]
    assert heat(read({"h": seen}))[:3] == [["class", "main", "cards", "papers"], ["orphan", "0", "0", "30"], ["missing", "0", "0", "1"]]


def test_a_stack_without_rules_and_a_host_that_knows_none_say_nothing_of_agreement():
    seen = overview()
    assert "Do the stores agree" not in read({"h": seen}).text
    del seen["status"]["result"]["stacks"]["demo"]["agreement"]
    assert "Do the stores agree" not in read({"h": seen}).text


def test_the_shade_of_a_cell_follows_its_digits_and_a_zero_has_none():
    for count, shade in ((0, ""), (1, "heat-1"), (9, "heat-1"), (10, "heat-2"), (999, "heat-3"), (1000, "heat-4"), (10**9, "heat-4")):
        assert page._cell("main", {"main": count}, ())["heat"] == shade
    assert page._cell("main", {"main": 1_234_567}, ())["said"] == "1,234,567"


def test_the_rows_are_the_classes_that_the_program_tells_in_its_order():
    assert page.CLASSES == contract.CLASSES


HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' &amp; {{ 7*7 }} javascript:x"


def _poisoned(found: Any) -> Any:
    """The same document with every word in it hostile, except those that the contract fixes."""
    fixed = {"schema", "verb", "outcome", "started", "severity", "at", "time", "verified_at", "proven_at", "next_run", "as_of"}
    if isinstance(found, dict):
        return {key if key in KEYS else f"{key}{HOSTILE}": value if key in fixed else _poisoned(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_poisoned(each) for each in found]
    return HOSTILE if isinstance(found, str) else found


def _keys(found: Any) -> set[str]:
    if isinstance(found, dict):
        return set(found) | {key for value in found.values() for key in _keys(value)}
    return {key for each in found for key in _keys(each)} if isinstance(found, list) else set()


KEYS = (_keys(recorded("status-attention")) | _keys(recorded("list-damaged")) | {"status", "sets"}) - {
    "main",
    "papers",
    "demo",
    "documents",
}


def test_hostile_names_are_shown_as_text_and_do_nothing():
    seen = _poisoned(copy.deepcopy({"status": recorded("status-attention"), "sets": {"demo": recorded("list-damaged")}}))
    seen["sets"] = {f"demo{HOSTILE}": seen["sets"].popitem()[1]}
    html = report.render({f"host{HOSTILE}": seen}, MADE, {f"host{HOSTILE}": [f"demo{HOSTILE}", f"other{HOSTILE}"]})
    found = Reader(html)
    plain = {tag for tag, _ in read({"h": overview("status-attention", "list-damaged")}).tags}
    assert {tag for tag, _ in found.tags} <= plain, "no tag came in by a name"
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert html.count("alert(1)") > 20
    assert "<script" not in html
    assert "49" not in re.sub(r"#[0-9a-f]+", "", found.text), "nothing in a name is evaluated"


def test_hostile_names_of_rules_stores_and_places_are_shown_as_text_too():
    seen = overview("status-unread", "list-empty")
    look = seen["status"]["result"]["stacks"]["demo"]["agreement"]["library"]
    look["counts"] = {f"orphan{HOSTILE}": {f"papers{HOSTILE}": 30}}
    look["unread"] = [f"papers{HOSTILE}/{HOSTILE}"]
    seen["status"]["result"]["stacks"]["demo"]["agreement"] = {f"library{HOSTILE}": look, f"titles{HOSTILE}": None}
    html = report.render({"h": seen}, MADE, {"h": ["demo"]})
    found = Reader(html)
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in read({"h": overview("status-unread", "list-empty")}).tags}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<script" not in html
    assert html.count("alert(1)") > 8
    assert f"papers{HOSTILE}" in [attributes.get("data-name") for _, attributes in found.tags]


def test_control_a_template_that_does_not_escape_lets_a_name_in():
    safe = report.render({f"host{HOSTILE}": None}, MADE)
    assert "<script>" not in safe
    assert "script" in {tag for tag, _ in Reader(safe.replace("&lt;", "<").replace("&gt;", ">")).tags}


def test_the_report_needs_no_script_no_font_and_no_network():
    html = report.render({"prod-ai-1": overview(), "prod-ai-2": None}, MADE)
    found = Reader(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in found.tags}
    assert not {"src", "href", "style"} & {name for _, attributes in found.tags for name in attributes}
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_of_very_many_problems_the_first_are_shown_and_the_rest_are_counted():
    seen = overview("status-attention", "list-damaged")
    seen["status"]["problems"] = [{**each, "message": f"problem {n}"} for n in range(500) for each in seen["status"]["problems"][:1]]
    found = read({"h": seen})
    assert "and 488 more:" in found.words
    assert "problem 11" in found.words
    assert "problem 12" not in found.words


def test_a_host_with_many_stacks_and_sets_is_still_a_small_report():
    seen = {"status": recorded("status-attention"), "sets": {}}
    one, listed = seen["status"]["result"]["stacks"].pop("demo"), recorded("list-damaged")
    problems = seen["status"]["problems"]
    seen["status"]["problems"] = []
    for number in range(20):
        name = f"stack_{number}"
        seen["status"]["result"]["stacks"][name] = one
        seen["status"]["problems"] += [{**each, "stack": name} for each in problems]
        sets = [{**each, "id": f"{each['id']}-{index}"} for index in range(5_000) for each in listed["result"]["sets"]]
        seen["sets"][name] = {**listed, "stack": name, "result": {"sets": sets}}
    html = report.render({"h": seen}, MADE)
    assert len(html.encode()) < 150_000
    assert "and 9992 older" in Reader(html).words


@pytest.mark.parametrize(
    ("seconds", "spoken"),
    [(-5, "0 min"), (59, "0 min"), (3599, "59 min"), (7300, "2 h 1 min"), (172799, "47 h 59 min"), (172800, "2 days")],
)
def test_ages_are_spoken_in_the_unit_that_fits(seconds, spoken):
    assert page.spoken_seconds(seconds) == spoken
    assert page.ago((MADE - timedelta(seconds=seconds)).isoformat(), MADE) == f"{spoken} ago"


def test_the_operation_writes_the_report_and_says_each_verdict(tmp_path):
    with fake_host({STATUS: answer("status-attention", "list-damaged")}, storekeeper_stacks={"demo": "x"}) as fake:
        assert fake.execute(report.write, path=str(tmp_path / "report.html")) == [True]
        assert "attention: demo, newest proven set 0 min old" in fake.said.text
    found = Reader((tmp_path / "report.html").read_text())
    assert "@fake/other" in found.words, "a host that was not heard of is in it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("said", [[], ["no shell here"], answer("status", "list-proven")[:-1], answer("backup-refused")], ids=len)
def test_a_host_that_does_not_answer_fails_and_the_report_is_written_all_the_same(said, tmp_path):
    with fake_host({STATUS: said}, storekeeper_stacks={"demo": "x"}) as fake:
        assert fake.execute(report.write, path=str(tmp_path / "report.html")) == [False]
    found = Reader((tmp_path / "report.html").read_text())
    assert "This host could not be read: no earlier report has heard of it. Nothing is known about its backups." in found.words
    assert "0 of 0 stacks are well, 2 hosts do not answer" in found.words


def test_a_host_that_is_silent_is_told_with_when_it_last_answered_by_the_document_beside_the_page(tmp_path):
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    for answers in (answer("status", "list-proven"), []):
        with fake_host({STATUS: answers}, storekeeper_stacks={"demo": "x"}) as fake:
            fake.execute(report.write, path=str(page))
            found = json.loads(document.read_text())["hosts"]
            assert found["@fake/prod-ai-1"]["answers"] is bool(answers)
            assert found["@fake/prod-ai-1"]["heard"] == recorded("status")["started"]
            assert found["@fake/other"]["heard"] is None
    assert re.search(r"This host could not be read: it last answered [0-9]+ (min|h|days)", Reader(page.read_text()).text)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "hosts": {"x": 3}}', "\xff"])
def test_a_document_that_is_none_of_ours_knows_nothing(text, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with fake_host({STATUS: []}, storekeeper_stacks={"demo": "x"}) as fake:
        fake.execute(report.write, path=str(tmp_path / "report.html"))
    assert "no earlier report has heard of it" in (tmp_path / "report.html").read_text()


def test_a_host_left_out_by_a_limit_is_not_called_dead(tmp_path):
    with fake_host({STATUS: answer("status", "list-proven")}, storekeeper_stacks={"demo": "x"}) as fake:
        fake.state.limit_hosts = [fake.host]
        fake.execute(report.write, path=str(tmp_path / "report.html"))
    assert "@fake/other" not in (tmp_path / "report.html").read_text()


def test_a_report_that_could_not_be_written_is_refused_before_any_host_is_asked(tmp_path):
    with fake_host() as fake:
        with pytest.raises(OperationValueError, match="no directory for the report"):
            fake.execute(report.write, path=str(tmp_path / "nowhere/report.html"))
        assert fake.typed == []


def test_one_run_knows_nothing_of_the_run_before(tmp_path):
    for number in range(2):
        with fake_host({STATUS: answer("status", "list-proven") if number == 0 else []}, storekeeper_stacks={"demo": "x"}) as fake:
            fake.execute(report.write, path=str(tmp_path / "report.html"))
    assert json.dumps(recorded("list-proven")["result"]["sets"][0]["id"]).strip('"') not in (tmp_path / "report.html").read_text()

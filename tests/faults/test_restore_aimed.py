"""A restore that is aimed at the wrong thing: another host, one store of several, the newest set, a name that is a path, a damaged set."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.host import clock
from storekeeper.outcomes import Outcome, Severity
from storekeeper.restore.journal import journals
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.damage import flip
from tests.harness.program import Program
from tests.harness.stacks import Lab, write_sqlite

pytestmark = pytest.mark.lab(sqlites=1, services=1)

HERE = os.uname().nodename


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A stack with one set, and one row more that is live."""
    made = Program(tmp_path)
    made.declare_small()
    assert made.run("backup", "demo").code == 0
    with closing(sqlite3.connect(made.database())) as database, database:
        database.execute("insert into documents (title) values ('since')")
    return made


def put_by_hand(entry: SetEntry, lab: Lab) -> None:
    """What a person does without Storekeeper: copy the set's files over the live ones."""
    artefact = next((entry.path / "main").glob("*.sqlite"))
    shutil.copy(artefact, lab.root / "live" / "main.db")
    for name in ("raw", "notes"):
        shutil.rmtree(lab.root / "live" / "papers" / name)
        shutil.copytree(entry.path / "papers" / "content" / name, lab.root / "live" / "papers" / name)


# --- the wrong host ---


@pytest.mark.fault("E-16")
@pytest.mark.parametrize("words", [(), ("--confirm", "demo@elsewhere"), ("--confirm", f"other@{HERE}"), ("--confirm", "demo")])
def test_a_restore_that_does_not_name_this_stack_on_this_host_is_refused_and_changes_nothing(
    program: Program, words: tuple[str, ...]
) -> None:
    rows = program.rows()
    ended = program.answer("restore", "demo", "latest", "--nobody-uses", "papers", *words)
    assert (ended.code, ended.document["outcome"], ended.document["host"]) == (2, "refused", HERE)
    assert f"demo@{HERE}" in ended.document["problems"][0]["message"]
    assert program.rows() == rows == 41
    assert not list(program.state.rglob("journals/*"))
    assert len(list((program.repository / "demo").glob("2*"))) == 1, "no safety set was taken"


@pytest.mark.fault("E-16")
@pytest.mark.control("E-16")
def test_a_plan_names_the_host_the_set_and_the_rows_now_and_after_and_control_the_right_name_replaces_them(program: Program) -> None:
    plan = program.answer("restore", "demo", "latest", "--nobody-uses", "papers", "--plan").document
    store = plan["result"]["plan"]["stores"]["main"]
    assert (plan["host"], store["counts_now"], store["counts_after"]) == (HERE, {"documents": 41}, {"documents": 40})
    assert plan["result"]["plan"]["set"]
    assert program.answer("restore", "demo", "latest", "--nobody-uses", "papers", "--confirm", f"demo@{HERE}").code == 0
    assert program.rows() == 40


# --- one store of several ---


@pytest.mark.fault("E-18")
def test_a_plan_for_one_store_says_first_what_the_others_will_no_longer_agree_with(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second!")
    report = restore(lab.context, RestoreRequest(set=entry.id, only=("papers",), plan=True))
    (said,) = [each for each in report.problems if each.store == "main"]
    assert said.severity is Severity.WARNING
    assert "only papers will be as of 20" in said.message
    assert "things 305 in the set, 307 now" in said.message
    assert lab.all_hold("second!")
    assert restore(lab.context, RestoreRequest(set=entry.id, only=("papers",))).ended() is Outcome.WARNING
    lab.write("third")
    whole = restore(lab.context, RestoreRequest(set=entry.id, plan=True))
    assert [each for each in whole.problems if "will be as of" in each.message] == []


@pytest.mark.fault("E-18")
def test_a_restore_of_one_store_needs_a_persons_word_like_any_other(program: Program) -> None:
    refused = program.answer("restore", "demo", "latest", "--only", "main")
    assert (refused.code, program.rows()) == (2, 41)
    done = program.answer("restore", "demo", "latest", "--only", "main", "--yes")
    assert (done.code, done.document["outcome"], program.rows()) == (4, "warning", 40)
    (said,) = [each["message"] for each in done.document["problems"] if each["store"] == "papers"]
    assert "this store keeps what it holds now" in said


@pytest.mark.control("E-18")
def test_control_one_store_alone_leaves_the_stack_at_two_moments(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, RestoreRequest(set=entry.id, only=("papers",)))
    assert lab.sides() == {"main": "second", "papers": "first"}


# --- the newest set ---


@pytest.mark.control("E-17")
def test_control_the_newest_directory_of_the_repository_is_the_damaged_one_and_copied_it_is_live(lab: Lab) -> None:
    good, bad = lab.take("first"), lab.take("second")
    flip(bad.path / "papers" / "content" / "raw" / "a.pdf")
    lab.context.sets.records.add(bad.id, "verify", "failed", clock.now(), reason="a bit is flipped")
    newest = max(lab.context.sets.entries(), key=lambda entry: entry.id)
    assert newest.id == bad.id
    put_by_hand(newest, lab)
    assert "MIXED" in lab.sides()["papers"]
    assert restore(lab.context, RestoreRequest(set="latest")).result["set"] == good.id
    assert lab.all_hold("first")


# --- a name that is a path ---


@pytest.mark.control("E-14")
def test_control_a_name_that_is_joined_to_the_repository_leads_out_of_it(program: Program) -> None:
    outside = program.root / "outside"
    outside.mkdir()
    joined = program.repository / "demo" / "../../outside"
    assert joined.is_dir()
    assert joined.resolve() == outside
    assert program.repository / "demo" / "/etc" == Path("/etc"), "an absolute name replaces the whole path"


# --- a damaged set ---


@pytest.mark.control("E-10")
def test_control_a_damaged_set_that_is_copied_over_live_data_is_noticed_only_afterwards(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    flip(entry.path / "papers" / "content" / "raw" / "a.pdf")
    lab.services[0].stop()
    put_by_hand(entry, lab)
    assert "MIXED" in lab.sides()["papers"]
    assert not lab.services[0].is_running()


@pytest.mark.control("E-9")
def test_control_a_broken_live_file_that_is_overwritten_takes_what_could_still_be_saved_of_it_along(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    live = lab.root / "live" / "main.db"
    data = live.read_bytes()
    live.write_bytes(b"\0" * 100 + data[100:])
    assert b"second" in live.read_bytes(), "its rows are still there"
    put_by_hand(entry, lab)
    assert not [path for path in lab.root.rglob("*") if path.is_file() and path.suffix == ".db" and b"second" in path.read_bytes()]


# --- twice ---


@pytest.mark.control("E-26")
def test_control_an_exchange_of_directories_that_is_done_twice_is_undone(lab: Lab, tmp_path: Path) -> None:
    lab.write("second")
    live, other = lab.root / "live" / "papers", tmp_path / "other"
    shutil.copytree(live, other)
    (other / "raw" / "only-second").rename(other / "raw" / "only-first")
    for _ in range(2):
        live.rename(tmp_path / "aside")
        other.rename(live)
        (tmp_path / "aside").rename(other)
    assert (live / "raw" / "only-second").exists()


@pytest.mark.fault("E-26")
def test_the_way_back_and_a_restore_in_turn_always_end_where_they_say(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    for _ in range(2):
        restore(lab.context, RestoreRequest(set=entry.id))
        assert lab.all_hold("first")
        restore(lab.context, RestoreRequest(back=True))
        assert lab.all_hold("second")
        again = restore(lab.context, RestoreRequest(back=True))
        assert "gone back from already" in again.problems[0].message
        assert lab.all_hold("second")
    assert all(journal.is_closed for journal in journals(lab.context.state))
    write_sqlite(lab.root / "live" / "main.db", "third")
    restore(lab.context, RestoreRequest(back=True))
    assert lab.sides()["main"] == "third", "what was written after the way back is not gone back from again"
